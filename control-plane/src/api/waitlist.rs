//! `/waitlist`.

use super::{
    counted,
    envelope::{Failure, Reply, Success},
    json::Json,
};
use crate::{app::App, caller::Origin, error::ServiceError, service::waitlist as service, store::waitlist::Details};
use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(join, enrich))
}

#[derive(Deserialize, ToSchema)]
struct JoinInput {
    #[schema(max_length = 255)]
    #[serde(default)]
    email: String,
}

#[derive(Deserialize, ToSchema)]
struct EnrichInput {
    #[schema(max_length = 255)]
    #[serde(default)]
    email: String,
    context: Option<String>,
    industry: Option<String>,
    interest: Option<String>,
    role: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct WaitlistData {
    email: String,
}

/// Wait to be let in
#[utoipa::path(post, path = "/api/v1/waitlist", operation_id = "waitlist.waitlistJoin", tag = "waitlist",
    request_body = JoinInput, security(()),
    responses((status = 200, body = Success<WaitlistData>), (status = 400, body = Failure),
        (status = 429, body = Failure)))]
async fn join(State(app): State<App>, origin: Origin, Json(input): Json<JoinInput>) -> Result<Response, ServiceError> {
    let work = async {
        let email = service::join(&app, &input.email).await?;
        Ok(Reply::ok(WaitlistData { email }, "you are on the waitlist"))
    };
    counted::as_sign_up(&app, &origin, work).await
}

/// Say more about yourself
///
/// The answer is the same whether the address waits or not.
#[utoipa::path(patch, path = "/api/v1/waitlist", operation_id = "waitlist.waitlistEnrich", tag = "waitlist",
    request_body = EnrichInput, security(()),
    responses((status = 200, body = Success<WaitlistData>), (status = 400, body = Failure),
        (status = 429, body = Failure)))]
async fn enrich(
    State(app): State<App>,
    origin: Origin,
    Json(input): Json<EnrichInput>,
) -> Result<Response, ServiceError> {
    let EnrichInput { email, context, industry, interest, role } = input;
    let work = async {
        let email = service::enrich(&app, &email, Details { context, industry, interest, role }).await?;
        Ok(Reply::ok(WaitlistData { email }, "thank you"))
    };
    counted::as_sign_up(&app, &origin, work).await
}
