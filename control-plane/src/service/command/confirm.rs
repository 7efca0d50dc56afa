//! Confirmation of what can break much: the first request is answered with a token, the second brings it. A token
//! is good for one run of one command with the same parameters, by the same account on the same server.

use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    service::one_time,
    store::{
        StoreError,
        command::Command,
        grant::{self, GrantKind},
    },
};
use hoody_protocol::{command::Parameters, id::ServerId, time::now_ms};
use serde_json::json;
use sqlx::AnyConnection;

/// Milliseconds that a token is good for.
const LIFETIME_MS: i64 = 5 * 60 * 1000;

/// What a token stands for. Parameters are sorted by name.
fn content(command: &Command, server: ServerId, parameters: &Parameters) -> Result<String, ServiceError> {
    let parts = json!([command.id.to_string(), server.to_string(), command.argv, parameters]);
    serde_json::to_string(&parts).map_err(ServiceError::internal)
}

/// The answer to a request without a token: one to send.
pub(super) async fn ask(
    app: &App,
    caller: &Caller,
    command: &Command,
    server: ServerId,
    parameters: &Parameters,
) -> Result<ServiceError, ServiceError> {
    let token = one_time::token();
    let expires_at = now_ms() as i64 + LIFETIME_MS;
    let content = content(command, server, parameters)?;
    let mut tx = app.store.begin().await?;
    let hash = one_time::hash(&token);
    grant::insert(&mut tx, &hash, GrantKind::Command, Some(caller.user), &content, expires_at).await?;
    tx.commit().await.map_err(StoreError::from)?;
    let message = format!(
        "{} must be confirmed: send the same request once more with confirmation_token within 5 minutes",
        command.slug
    );
    Ok(ServiceError::ConfirmationRequired { message, token, expires_at: crate::api::time::rfc3339(expires_at) })
}

/// Takes the token; it is spent when the transaction commits.
pub(super) async fn take(
    connection: &mut AnyConnection,
    caller: &Caller,
    command: &Command,
    server: ServerId,
    parameters: &Parameters,
    token: &str,
) -> Result<(), ServiceError> {
    let grant = grant::take(connection, &one_time::hash(token), GrantKind::Command).await?;
    let content = content(command, server, parameters)?;
    if grant.is_some_and(|grant| grant.user == Some(caller.user) && grant.content == content) {
        return Ok(());
    }
    Err(ServiceError::Conflict(
        "confirmation_token is used, expired or for another command, server or other parameters: \
         send the request without it to get a new one"
            .to_owned(),
    ))
}
