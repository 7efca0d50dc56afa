//! What proves the caller of a connection that outlives its request, to be looked at again while it lasts.

use super::layer::access;
use crate::{app::App, caller::Caller, error::ServiceError};
use axum::extract::ConnectInfo;
use http::{HeaderMap, HeaderName, Request, Uri, header, request::Parts};
use std::net::SocketAddr;

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
                headers.append(name.clone(), value.clone());
            }
        }
        Self { uri: parts.uri.clone(), headers, address: parts.extensions.get().copied() }
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
