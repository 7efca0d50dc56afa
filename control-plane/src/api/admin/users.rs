//! `/admin/users`: every account. Bans and the admin flag are set at `/users/{id}`.

use super::Admin;
use crate::{
    api::{
        auth::data::UserData,
        envelope::{Failure, Reply, Success},
        pagination::{Page, Pagination},
        path::Id,
    },
    app::App,
    error::ServiceError,
    service::account::{profile, remove},
    store::user,
};
use axum::extract::State;
use hoody_protocol::id::UserId;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(delete))
}

#[derive(Serialize, ToSchema)]
struct UserList {
    users: Vec<UserData>,
    pagination: Pagination,
}

/// List accounts
#[utoipa::path(get, path = "/api/v1/admin/users", operation_id = "admin.users.list", tag = "admin", params(Page),
    responses((status = 200, body = Success<UserList>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure)))]
async fn list(State(app): State<App>, _admin: Admin, page: Page) -> Result<Reply<UserList>, ServiceError> {
    let (found, total) = user::list(&app.store, page).await?;
    let mut users = Vec::with_capacity(found.len());
    for user in found {
        let profile = profile::of(&app, user.id).await?;
        users.push(UserData::new(user, profile, &app));
    }
    let pagination = page.of(total);
    Ok(Reply::list(UserList { users, pagination }, pagination))
}

/// Remove an account with its projects
///
/// Its sessions and tokens end at once. One that still has containers stays: delete them first.
#[utoipa::path(delete, path = "/api/v1/admin/users/{id}", operation_id = "admin.users.remove", tag = "admin",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<Option<String>>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure),
        (status = 409, body = Failure)))]
async fn delete(State(app): State<App>, _admin: Admin, Id(id): Id<UserId>) -> Result<Reply<()>, ServiceError> {
    remove::remove(&app, id).await?;
    Ok(Reply::ok((), "the account is gone"))
}
