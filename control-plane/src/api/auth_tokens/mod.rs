//! `/auth/tokens`.

mod data;
mod input;

use super::{
    caller::Caller,
    envelope::{Failure, Reply, Success},
    json::Json,
    path::Id,
};
use crate::{
    access::template::TEMPLATES,
    app::App,
    caller::Origin,
    error::ServiceError,
    service::{
        auth_token::{self as service, Realm},
        two_factor,
    },
};
use axum::extract::{Path, State};
pub(in crate::api) use data::CurrentData;
use data::{NewTokenData, ProfileData, TemplateData, TokenData};
use hoody_protocol::id::{AuthTokenId, RealmId};
use input::{CopyInput, ProfileInput, RealmInput, TokenInput};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(templates))
        .routes(routes!(current))
        .routes(routes!(update_profile, patch_profile))
        .routes(routes!(profile))
        .routes(routes!(get, update, patch, delete))
        .routes(routes!(copy))
        .routes(routes!(add_realm))
        .routes(routes!(remove_realm))
}

/// Demands a code of the second factor where the account wants one for its auth tokens.
async fn pass_gate(app: &App, caller: &Caller, code: &Option<String>, origin: &Origin) -> Result<(), ServiceError> {
    let code = code.as_deref().filter(|code| !code.trim().is_empty());
    two_factor::pass_token_gate(app, caller.user, code, origin).await
}

/// List your auth tokens
///
/// An auth token sees itself and those that come from it.
#[utoipa::path(get, path = "/api/v1/auth/tokens", operation_id = "authTokens.list", tag = "auth tokens",
    responses((status = 200, body = Success<Vec<TokenData>>), (status = 401, body = Failure), (status = 403, body = Failure)))]
async fn list(State(app): State<App>, caller: Caller) -> Result<Reply<Vec<TokenData>>, ServiceError> {
    let tokens = service::list(&app, &caller).await?;
    Ok(Reply::ok(tokens.into_iter().map(TokenData::from).collect(), "these are your auth tokens"))
}

/// Make an auth token
///
/// Its value is only in this answer.
#[utoipa::path(post, path = "/api/v1/auth/tokens", operation_id = "authTokens.create", tag = "auth tokens",
    request_body = TokenInput,
    responses((status = 201, body = Success<NewTokenData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 409, body = Failure), (status = 422, body = Failure)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    origin: Origin,
    Json(input): Json<TokenInput>,
) -> Result<Reply<NewTokenData>, ServiceError> {
    pass_gate(&app, &caller, &input.otp_code, &origin).await?;
    let (token, secret) = service::create(&app, &caller, input.into()).await?;
    Ok(Reply::created(NewTokenData::new(token, &secret), "auth token made: its value is not shown again"))
}

/// The permission templates
#[utoipa::path(get, path = "/api/v1/auth/tokens/templates",
    operation_id = "authTokens.listAuthTokenPermissionTemplates", tag = "auth tokens",
    responses((status = 200, body = Success<Vec<TemplateData>>), (status = 401, body = Failure)))]
async fn templates() -> Reply<Vec<TemplateData>> {
    Reply::ok(TEMPLATES.iter().map(TemplateData::from).collect(), "these are the templates")
}

/// The auth token of this request
#[utoipa::path(get, path = "/api/v1/auth/tokens/me", operation_id = "authTokens.getCurrent", tag = "auth tokens",
    responses((status = 200, body = Success<CurrentData>), (status = 401, body = Failure), (status = 403, body = Failure)))]
async fn current(State(app): State<App>, caller: Caller) -> Result<Reply<CurrentData>, ServiceError> {
    let token = service::get(&app, &caller, own(&caller)?).await?;
    Ok(Reply::ok(CurrentData::new(token, caller.realm), "this is your auth token"))
}

/// Change the public profile of this request's auth token
#[utoipa::path(put, path = "/api/v1/auth/tokens/me/public-profile", operation_id = "authTokens.updatePublicProfile",
    tag = "auth tokens", request_body = ProfileInput,
    responses((status = 200, body = Success<TokenData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 409, body = Failure)))]
async fn update_profile(
    State(app): State<App>,
    caller: Caller,
    Json(input): Json<ProfileInput>,
) -> Result<Reply<TokenData>, ServiceError> {
    let token = service::update_profile(&app, &caller, own(&caller)?, input.into()).await?;
    Ok(Reply::ok(token.into(), "public profile updated"))
}

/// Change the public profile of this request's auth token
#[utoipa::path(patch, path = "/api/v1/auth/tokens/me/public-profile", operation_id = "authTokens.patchPublicProfile",
    tag = "auth tokens", request_body = ProfileInput,
    responses((status = 200, body = Success<TokenData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 409, body = Failure)))]
async fn patch_profile(
    app: State<App>,
    caller: Caller,
    input: Json<ProfileInput>,
) -> Result<Reply<TokenData>, ServiceError> {
    update_profile(app, caller, input).await
}

/// The public profile of a key
#[utoipa::path(get, path = "/api/v1/auth/tokens/public-profiles/{public_key}",
    operation_id = "authTokens.getPublicProfile", tag = "auth tokens", params(("public_key" = String, Path)),
    responses((status = 200, body = Success<ProfileData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
async fn profile(State(app): State<App>, Path(key): Path<String>) -> Result<Reply<ProfileData>, ServiceError> {
    let (public_key, public_storage) = service::public_profile(&app, &key).await?;
    Ok(Reply::ok(ProfileData { public_key, public_storage }, "here is the public profile"))
}

/// Get an auth token
#[utoipa::path(get, path = "/api/v1/auth/tokens/{id}", operation_id = "authTokens.get", tag = "auth tokens",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<TokenData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<AuthTokenId>,
) -> Result<Reply<TokenData>, ServiceError> {
    Ok(Reply::ok(service::get(&app, &caller, id).await?.into(), "here is the auth token"))
}

/// Change an auth token
///
/// Tokens that come from it lose what it loses.
#[utoipa::path(put, path = "/api/v1/auth/tokens/{id}", operation_id = "authTokens.update", tag = "auth tokens",
    params(("id" = String, Path)), request_body = TokenInput,
    responses((status = 200, body = Success<TokenData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    origin: Origin,
    Id(id): Id<AuthTokenId>,
    Json(input): Json<TokenInput>,
) -> Result<Reply<TokenData>, ServiceError> {
    if input.only_at_creation() {
        let problem = "can only be set when a token is made";
        return Err(ServiceError::invalid("deny_reauthorization", problem));
    }
    pass_gate(&app, &caller, &input.otp_code, &origin).await?;
    Ok(Reply::ok(service::update(&app, &caller, id, input.into()).await?.into(), "auth token updated"))
}

/// Change an auth token
#[utoipa::path(patch, path = "/api/v1/auth/tokens/{id}", operation_id = "authTokens.patch", tag = "auth tokens",
    params(("id" = String, Path)), request_body = TokenInput,
    responses((status = 200, body = Success<TokenData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)))]
async fn patch(
    app: State<App>,
    caller: Caller,
    origin: Origin,
    id: Id<AuthTokenId>,
    input: Json<TokenInput>,
) -> Result<Reply<TokenData>, ServiceError> {
    update(app, caller, origin, id, input).await
}

/// Delete an auth token, and all that come from it
#[utoipa::path(delete, path = "/api/v1/auth/tokens/{id}", operation_id = "authTokens.delete", tag = "auth tokens",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<Option<String>>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn delete(State(app): State<App>, caller: Caller, Id(id): Id<AuthTokenId>) -> Result<Reply<()>, ServiceError> {
    service::delete(&app, &caller, id).await?;
    Ok(Reply::ok((), "auth token deleted, with those that came from it"))
}

/// Make an auth token like another
///
/// Its value is only in this answer.
#[utoipa::path(post, path = "/api/v1/auth/tokens/{id}/copy", operation_id = "authTokens.copy", tag = "auth tokens",
    params(("id" = String, Path)), request_body = CopyInput,
    responses((status = 201, body = Success<NewTokenData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 422, body = Failure)))]
async fn copy(
    State(app): State<App>,
    caller: Caller,
    origin: Origin,
    Id(id): Id<AuthTokenId>,
    Json(input): Json<CopyInput>,
) -> Result<Reply<NewTokenData>, ServiceError> {
    pass_gate(&app, &caller, &input.otp_code, &origin).await?;
    let (token, secret) = service::copy(&app, &caller, id, input.into()).await?;
    Ok(Reply::created(NewTokenData::new(token, &secret), "auth token copied: the new value is not shown again"))
}

/// Add a realm to an auth token
#[utoipa::path(post, path = "/api/v1/auth/tokens/{id}/add-realm", operation_id = "authTokens.addRealm",
    tag = "auth tokens", params(("id" = String, Path)), request_body = RealmInput,
    responses((status = 200, body = Success<TokenData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn add_realm(
    State(app): State<App>,
    caller: Caller,
    origin: Origin,
    Id(id): Id<AuthTokenId>,
    Json(input): Json<RealmInput>,
) -> Result<Reply<TokenData>, ServiceError> {
    pass_gate(&app, &caller, &input.otp_code, &origin).await?;
    let token = service::change_realm(&app, &caller, id, Realm::Add(realm(&input)?)).await?;
    Ok(Reply::ok(token.into(), "the auth token is for this realm"))
}

/// Remove a realm from an auth token
#[utoipa::path(post, path = "/api/v1/auth/tokens/{id}/remove-realm", operation_id = "authTokens.removeRealm",
    tag = "auth tokens", params(("id" = String, Path)), request_body = RealmInput,
    responses((status = 200, body = Success<TokenData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)))]
async fn remove_realm(
    State(app): State<App>,
    caller: Caller,
    origin: Origin,
    Id(id): Id<AuthTokenId>,
    Json(input): Json<RealmInput>,
) -> Result<Reply<TokenData>, ServiceError> {
    pass_gate(&app, &caller, &input.otp_code, &origin).await?;
    let token = service::change_realm(&app, &caller, id, Realm::Remove(realm(&input)?)).await?;
    Ok(Reply::ok(token.into(), "the auth token is not for this realm"))
}

fn realm(input: &RealmInput) -> Result<RealmId, ServiceError> {
    input
        .realm_id
        .parse()
        .map_err(|error: hoody_protocol::id::InvalidId| ServiceError::invalid("realm_id", error.to_string()))
}

/// The request's own token; the table of operations lets nobody else come here.
fn own(caller: &Caller) -> Result<AuthTokenId, ServiceError> {
    let token = caller.token.as_ref().ok_or(ServiceError::NotFound("auth token"))?;
    Ok(token.id)
}
