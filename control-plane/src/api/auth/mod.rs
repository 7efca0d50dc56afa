//! `/users/auth` and `/auth`: sign-up, login, passwords, and the account itself.

mod claim;
pub(super) mod data;
mod device;
mod intent;
mod launch;
mod login;
mod password;
mod provider;
mod sign_up;

use crate::{
    app::App,
    service::{
        password as policy,
        sign_in::{self, Purpose},
    },
};
use std::collections::BTreeMap;
use utoipa_axum::router::OpenApiRouter;
use zeroize::Zeroizing;

/// Characters of the longest name that a client gives itself.
const MAX_CLIENT_CHARS: usize = 64;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    [
        claim::router(),
        device::router(),
        intent::router(),
        launch::router(),
        login::router(),
        password::router(),
        provider::router(),
        sign_up::router(),
    ]
    .into_iter()
    .fold(OpenApiRouter::new(), OpenApiRouter::merge)
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

/// Bytes of the longest name or address that is looked up.
const MAX_LOGIN_BYTES: usize = 255;

/// Who wants to log in, by whichever field says so.
pub(super) fn login_name(names: [Option<String>; 3], problems: &mut BTreeMap<String, String>) -> String {
    let name = names.into_iter().flatten().find(|name| !name.trim().is_empty()).unwrap_or_default();
    if name.is_empty() {
        problems.insert("username".to_owned(), "or email is required".to_owned());
    }
    if name.len() > MAX_LOGIN_BYTES {
        problems.insert("username".to_owned(), format!("must be at most {MAX_LOGIN_BYTES} characters"));
    }
    name
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

/// What a login is for: a session, or an intent, which needs a challenge.
pub(super) fn purpose(
    mode: Option<&str>,
    code_challenge: Option<String>,
    problems: &mut BTreeMap<String, String>,
) -> Purpose {
    if !wants_intent(mode, problems) {
        return Purpose::Session;
    }
    let code_challenge = code_challenge.unwrap_or_default();
    sign_in::check_challenge(&code_challenge, problems);
    Purpose::Intent { code_challenge }
}
