//! How a registry lets us in (distribution specification, "Token Authentication"; RFC 7617 for Basic): it answers
//! 401 with a challenge, which names the realm that gives tokens.

use super::{client::Session, error::PullError};
use crate::config::Secret;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{
    Response, Url,
    header::{HeaderValue, WWW_AUTHENTICATE},
};
use serde::Deserialize;
use zeroize::Zeroizing;

/// Bytes of a realm's answer.
const MAX_TOKEN_BYTES: u64 = 64 << 10;
/// Bytes of a challenge.
const MAX_CHALLENGE_BYTES: usize = 4 << 10;

/// User name and password for a registry. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user, without a colon.
    pub username: String,
    /// The password or token.
    pub password: Zeroizing<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    fn basic(&self) -> Result<HeaderValue, PullError> {
        let pair = Zeroizing::new(format!("{}:{}", self.username, &*self.password));
        sensitive(&Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes()))))
    }
}

/// What a challenge asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

/// A realm's answer; both names are in use.
#[derive(Deserialize)]
struct Token {
    token: Option<Secret>,
    access_token: Option<Secret>,
}

/// The `Authorization` that the refusal asks for.
pub(super) async fn answer(session: &Session, refusal: &Response) -> Result<HeaderValue, PullError> {
    let values = refusal.headers().get_all(WWW_AUTHENTICATE).iter();
    let challenge = values.filter_map(|value| value.to_str().ok()).find_map(parse).ok_or(PullError::Challenge)?;
    let credentials = session.credentials.as_ref();
    match (challenge, credentials) {
        (Challenge::Basic, Some(credentials)) => credentials.basic(),
        (Challenge::Basic, None) => Err(PullError::Denied(session.reference.clone())),
        (Challenge::Bearer { realm, service }, _) => {
            let mut url = Url::parse(&realm).map_err(|_| PullError::Challenge)?;
            session.registry.dialing.check(&url)?;
            let scope = format!("repository:{}:pull", session.reference.repository());
            {
                let mut query = url.query_pairs_mut();
                if let Some(service) = &service {
                    query.append_pair("service", service);
                }
                query.append_pair("scope", &scope);
            }
            let authorization = credentials.map(Credentials::basic).transpose()?;
            let response = session.registry.send(url, authorization, None, None).await?;
            match response.status().as_u16() {
                200 => {}
                401 | 403 => return Err(PullError::Denied(session.reference.clone())),
                status => return Err(PullError::Status { what: "a request for a token".to_owned(), status }),
            }
            let body =
                Zeroizing::new(session.registry.body(response, "the answer with a token", MAX_TOKEN_BYTES).await?);
            bearer(&body)
        }
    }
}

/// What is sent with each request from now on, of the answer with a token.
pub(super) fn bearer(body: &[u8]) -> Result<HeaderValue, PullError> {
    let answer: Token = serde_json::from_slice(body).map_err(|_| PullError::Challenge)?;
    let token = answer.token.or(answer.access_token).ok_or(PullError::Challenge)?;
    sensitive(&Zeroizing::new(format!("Bearer {}", token.reveal())))
}

/// The first challenge of a kind that we know; Bearer goes before Basic.
pub(super) fn parse(header: &str) -> Option<Challenge> {
    if header.len() > MAX_CHALLENGE_BYTES {
        return None;
    }
    let challenges = http_auth::parse_challenges(header).ok()?;
    let of = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme));
    if let Some(bearer) = of("bearer") {
        let parameter = |name: &str| {
            let found = bearer.params.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        return Some(Challenge::Bearer { realm: parameter("realm")?, service: parameter("service") });
    }
    of("basic").map(|_| Challenge::Basic)
}

fn sensitive(text: &str) -> Result<HeaderValue, PullError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| PullError::Challenge)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_of_registries_are_read() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
        };
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="x""#;
        assert_eq!(parse(hub), bearer("https://auth.docker.io/token", Some("registry.docker.io")));
        assert_eq!(parse(r#"Basic realm="a", bearer realm="https://b/""#), bearer("https://b/", None));
        assert_eq!(parse(r#"basic realm="Registry""#), Some(Challenge::Basic));
        for nothing in ["", "Negotiate", "Bearer service=\"x\"", "Bearer realm=", &"a".repeat(MAX_CHALLENGE_BYTES + 1)]
        {
            assert_eq!(parse(nothing), None, "{nothing:.20}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        let credentials = Credentials { username: "ann".into(), password: Zeroizing::new("secret-word".into()) };
        assert!(!format!("{credentials:?} {:?}", credentials.basic().unwrap()).contains("secret"));
        assert_eq!(credentials.basic().unwrap(), "Basic YW5uOnNlY3JldC13b3Jk");
    }
}
