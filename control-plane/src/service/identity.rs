//! Identity claims: signed statements of who a user is, for one audience. Whoever is named as the audience
//! verifies them with our public keys, without asking us.

use crate::{app::App, error::ServiceError, keys::SignedClaim, store::user::User};
use hoody_protocol::{id::RequestId, time::now_ms};
use serde_json::{Map, json};
use std::collections::BTreeMap;

/// Seconds that a claim is valid where nothing else is asked for.
pub const DEFAULT_LIFETIME_S: u64 = 3600;
const MIN_LIFETIME_S: u64 = 60;
const MAX_LIFETIME_S: u64 = 24 * 60 * 60;
const MAX_AUDIENCE_BYTES: usize = 256;

/// A claim, and until when it is valid.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The claim.
    pub claim: SignedClaim,
    /// Seconds that it is valid.
    pub lifetime_s: u64,
    /// When it ends, Unix seconds.
    pub expires_at: u64,
}

/// Issues a claim for `audience`.
pub fn issue(app: &App, user: &User, audience: &str, lifetime_s: Option<u64>) -> Result<Issued, ServiceError> {
    let lifetime_s = check(audience, lifetime_s)?;
    Ok(sign(app, user, audience, lifetime_s))
}

/// Checks what is asked of a claim; gives the seconds that it is to be valid.
pub(super) fn check(audience: &str, lifetime_s: Option<u64>) -> Result<u64, ServiceError> {
    let mut problems = BTreeMap::new();
    let printable = |byte: u8| byte == 0x21 || (0x23..=0x7e).contains(&byte);
    if !(1..=MAX_AUDIENCE_BYTES).contains(&audience.len()) || !audience.bytes().all(printable) {
        let problem = format!("must be 1 to {MAX_AUDIENCE_BYTES} printable ASCII characters without space and \"");
        problems.insert("audience".to_owned(), problem);
    }
    let lifetime_s = lifetime_s.unwrap_or(DEFAULT_LIFETIME_S);
    if !(MIN_LIFETIME_S..=MAX_LIFETIME_S).contains(&lifetime_s) {
        let problem = format!("must be {MIN_LIFETIME_S} to {MAX_LIFETIME_S} seconds");
        problems.insert("expires_in".to_owned(), problem);
    }
    if problems.is_empty() { Ok(lifetime_s) } else { Err(ServiceError::Invalid(problems)) }
}

/// The claim that a login carries: for this API itself.
pub fn of_login(app: &App, user: &User) -> SignedClaim {
    sign(app, user, &app.config.public_url, DEFAULT_LIFETIME_S).claim
}

fn sign(app: &App, user: &User, audience: &str, lifetime_s: u64) -> Issued {
    let now = now_ms() / 1000;
    let expires_at = now + lifetime_s;
    let payload = Map::from_iter([
        ("typ".to_owned(), json!("identity")),
        ("iss".to_owned(), json!(app.config.public_url)),
        ("aud".to_owned(), json!(audience)),
        ("sub".to_owned(), json!(user.id.to_string())),
        ("username".to_owned(), json!(user.username)),
        ("jti".to_owned(), json!(RequestId::generate().to_string())),
        ("iat".to_owned(), json!(now)),
        ("exp".to_owned(), json!(expires_at)),
    ]);
    Issued { claim: app.keys.responses.sign_claim(&payload), lifetime_s, expires_at }
}
