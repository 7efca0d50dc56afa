//! Realms: a request to `{realm}.<api host>` is scoped to that realm.

use crate::{config::Config, error::ServiceError};
use hoody_protocol::id::{ID_CHARS, RealmId};
use http::{header, request::Parts};

/// The realm in the request's host, if there is one.
pub(super) fn of_request(parts: &Parts, config: &Config) -> Result<Option<RealmId>, ServiceError> {
    let sent = parts.uri.host().or_else(|| parts.headers.get(header::HOST)?.to_str().ok());
    let Some((label, rest)) = sent.and_then(|host| host.split_once('.')) else { return Ok(None) };
    let api = host_of(&config.public_url);
    if rest.split(':').next().is_none_or(|rest| !rest.eq_ignore_ascii_case(api)) {
        return Ok(None);
    }
    if label.len() != ID_CHARS {
        return Ok(None);
    }
    label.to_ascii_lowercase().parse().map(Some).map_err(|_| {
        ServiceError::invalid("realm", "the host name must begin with a realm id: 24 hexadecimal characters")
    })
}

fn host_of(url: &str) -> &str {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    authority.split(['/', ':']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn realm(host: &str) -> Result<Option<RealmId>, ServiceError> {
        let mut config = Config::in_dir("/none".into());
        config.public_url = "https://api.example.org:8443/x".to_owned();
        let (parts, ()) = http::Request::get("/y").header(header::HOST, host).body(()).unwrap().into_parts();
        of_request(&parts, &config)
    }

    #[test]
    fn only_a_realm_id_before_our_own_host_scopes() {
        let id = "0123456789abcdef01234567";
        assert_eq!(realm(&format!("{id}.api.example.org:8443")).unwrap().unwrap().to_string(), id);
        for host in ["api.example.org", "www.api.example.org", &format!("{id}.example.com"), "127.0.0.1:8080"] {
            assert!(realm(host).unwrap().is_none(), "{host}");
        }
        assert!(realm("zzzz456789abcdef01234567.api.example.org").is_err());
    }
}
