//! A new password by mail.

use super::sign_up::EmailInput;
use crate::{
    api::{
        counted,
        envelope::{Failure, Reply, Success},
        json::Json,
    },
    app::App,
    caller::Origin,
    error::ServiceError,
    service::account::reset as service,
};
use axum::{extract::State, response::Response};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(forgot)).routes(routes!(reset))
}

/// Ask for a new password
///
/// The answer is the same whether the address has an account or not.
#[utoipa::path(post, path = "/api/v1/auth/forgot-password", operation_id = "authentication.forgotPassword",
    tag = "authentication", request_body = EmailInput, security(()),
    responses((status = 200, body = Success<Option<String>>), (status = 400, body = Failure),
        (status = 429, body = Failure)))]
async fn forgot(
    State(app): State<App>,
    origin: Origin,
    Json(input): Json<EmailInput>,
) -> Result<Response, ServiceError> {
    let work = async {
        service::forgot(&app, &input.email).await?;
        Ok(Reply::ok((), "if the address has an account, a mail with a token is on its way"))
    };
    counted::as_sign_up(&app, &origin, work).await
}

#[derive(Deserialize, ToSchema)]
struct ResetInput {
    /// From the mail.
    #[serde(default)]
    #[schema(min_length = 64, max_length = 64)]
    token: String,
    /// The new password.
    #[serde(default)]
    #[schema(min_length = 12, max_length = 128)]
    password: String,
}

/// Set a new password with the token of a mail
///
/// Ends every session of the account.
#[utoipa::path(post, path = "/api/v1/auth/reset-password", operation_id = "authentication.resetPassword",
    tag = "authentication", request_body = ResetInput, security(()),
    responses((status = 200, body = Success<Option<String>>), (status = 400, body = Failure),
        (status = 429, body = Failure)))]
async fn reset(
    State(app): State<App>,
    origin: Origin,
    Json(input): Json<ResetInput>,
) -> Result<Response, ServiceError> {
    let work = async {
        service::reset(&app, input.token.trim(), input.password.into(), &origin).await?;
        Ok(Reply::ok((), "the password is set: log in with it"))
    };
    counted::as_sign_up(&app, &origin, work).await
}
