//! `/users/auth` and `/auth`: sign-up, login, passwords, and the account itself.

mod claim;
pub(super) mod data;
mod login;
mod password;
mod sign_up;

use crate::{app::App, error::ServiceError, service::password as policy};
use std::collections::BTreeMap;
use utoipa_axum::router::OpenApiRouter;
use zeroize::Zeroizing;

/// Characters of the longest name that a client gives itself.
const MAX_CLIENT_CHARS: usize = 64;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    claim::router().merge(login::router()).merge(password::router()).merge(sign_up::router())
}

/// A password that must be somebody's already: one too short to be is not worth a hash, one too long is an
/// attack on it.
pub(super) fn present_password(secret: Option<String>, problems: &mut BTreeMap<String, String>) -> Zeroizing<String> {
    let secret = Zeroizing::new(secret.unwrap_or_default());
    if !(policy::MIN_CHARS..=policy::MAX_CHARS).contains(&secret.chars().count()) {
        let problem = format!("must be {} to {} characters", policy::MIN_CHARS, policy::MAX_CHARS);
        problems.insert("password".to_owned(), problem);
    }
    secret
}

/// Checks the name that a client gives itself.
pub(super) fn check_client(client: Option<&str>, problems: &mut BTreeMap<String, String>) {
    if client.is_some_and(|client| client.chars().count() > MAX_CLIENT_CHARS || client.chars().any(char::is_control)) {
        problems.insert("client".to_owned(), format!("must be at most {MAX_CLIENT_CHARS} printable characters"));
    }
}

/// Checks how tokens shall be answered; true where a login intent is asked for.
pub(super) fn wants_intent(mode: Option<&str>, problems: &mut BTreeMap<String, String>) -> bool {
    if !matches!(mode, None | Some("tokens" | "intent")) {
        problems.insert("response_mode".to_owned(), "must be tokens or intent".to_owned());
    }
    mode == Some("intent")
}

/// What answers where a login intent is asked for.
pub(super) fn no_intent() -> ServiceError {
    let message = "response_mode intent is not built yet: leave it out, the answer then carries the tokens";
    ServiceError::NotImplemented(message.to_owned())
}
