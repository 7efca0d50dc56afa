//! What proves the caller of a connection that outlives its request, to be looked at again while it lasts.

use super::layer::access;
use crate::{app::App, caller::Caller, error::ServiceError, live::Witness};
use axum::extract::ConnectInfo;
use hoody_protocol::id::UserId;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header, request::Parts};
use std::{net::SocketAddr, time::Duration};
use tokio::time::{Instant, sleep_until};

/// Longest time between two looks at a credential.
const RECHECK: Duration = Duration::from_secs(30);
/// How long a look counts, whatever takes place.
const TRUSTED: Duration = Duration::from_secs(1);
/// Headers that say who calls, from where and in which realm.
const CREDENTIAL_HEADERS: [HeaderName; 5] = [
    header::AUTHORIZATION,
    header::HOST,
    header::UPGRADE,
    header::SEC_WEBSOCKET_PROTOCOL,
    HeaderName::from_static("x-forwarded-for"),
];

/// The parts of a request that say who calls, from where and in which realm.
pub(super) struct Credential {
    uri: Uri,
    headers: HeaderMap,
    address: Option<ConnectInfo<SocketAddr>>,
}

impl Credential {
    pub(super) fn of(parts: &Parts) -> Self {
        let mut headers = HeaderMap::new();
        for name in CREDENTIAL_HEADERS {
            for value in parts.headers.get_all(&name) {
                headers.append(name.clone(), copied(value));
            }
        }
        // Whatever is not a copy holds the buffer that the whole head was read into, for as long as the connection.
        let uri = parts.uri.to_string().parse().unwrap_or_else(|_| parts.uri.clone());
        Self { uri, headers, address: parts.extensions.get().copied() }
    }

    /// Who calls, if they may call the operation now.
    pub(super) async fn caller(&self, app: &App, operation: &str) -> Result<Caller, ServiceError> {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.uri = self.uri.clone();
        parts.headers = self.headers.clone();
        if let Some(address) = self.address {
            parts.extensions.insert(address);
        }
        access::admit(app, &mut parts, operation).await
    }
}

/// The same value in memory of its own.
fn copied(value: &HeaderValue) -> HeaderValue {
    let mut copy = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
    copy.set_sensitive(value.is_sensitive());
    copy
}

/// A credential that is looked at again while a connection lasts: within [`TRUSTED`] of whatever may have changed what
/// its caller may do, and every [`RECHECK`].
pub(super) struct Watched {
    credential: Credential,
    operation: &'static str,
    witness: Witness,
    checked: Instant,
    due: Instant,
}

impl Watched {
    /// Watches the credential of `caller`, who was admitted to what `owner` owns.
    pub(super) fn new(
        app: &App,
        credential: Credential,
        operation: &'static str,
        caller: UserId,
        owner: UserId,
    ) -> Self {
        let (witness, now) = (app.live.witness(caller, owner), Instant::now());
        // Once more soon: something may have taken place between their admission and now.
        Self { credential, operation, witness, checked: now, due: now + TRUSTED }
    }

    /// Returns when it is time to look again; at once where that is past. May be dropped while it waits.
    pub(super) async fn due(&mut self) {
        loop {
            tokio::select! {
                biased;
                () = sleep_until(self.due) => return,
                () = self.witness.changed() => self.due = self.due.min(self.checked + TRUSTED),
            }
        }
    }

    /// Looks again: who calls, if they may call the operation now.
    pub(super) async fn caller(&mut self, app: &App) -> Result<Caller, ServiceError> {
        // Before the look: what takes place meanwhile may not be seen by it.
        let now = Instant::now();
        let found = self.credential.caller(app, self.operation).await;
        (self.checked, self.due) = (now, now + RECHECK);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// As hyper makes them: all parts of a head are parts of the buffer that it was read into.
    #[test]
    fn the_head_of_the_request_is_not_kept() {
        let head = Bytes::from(vec![b'a'; 8 << 10]);
        let target = Bytes::from(b"/events/stream?event_type=container.created".to_vec());
        let value = HeaderValue::from_maybe_shared(head.slice(..64)).expect("a value");
        let uri = Uri::from_maybe_shared(target.clone()).expect("a URI");
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.headers.insert(header::AUTHORIZATION, value.clone());
        parts.headers.append(header::HOST, HeaderValue::from_static("x"));
        parts.headers.insert(header::COOKIE, value.clone());
        parts.uri = uri.clone();

        let credential = Credential::of(&parts);
        assert_eq!(credential.uri, uri);
        assert_eq!(credential.headers.get(header::AUTHORIZATION), Some(&value));
        assert_eq!(credential.headers.get(header::HOST).map(HeaderValue::as_bytes), Some(&b"x"[..]));
        assert!(!credential.headers.contains_key(header::COOKIE));
        drop((parts, value, uri));
        assert!(head.is_unique() && target.is_unique(), "the head's buffer is still referred to");
    }
}
