//! `/admin/notifications`: writing notifications.

use super::Admin;
use crate::{
    api::{
        envelope::{Failure, Reply, Success},
        json::Json,
        notifications::NotificationData,
        pagination::{Page, Pagination},
        path::Id,
        time,
    },
    app::App,
    error::ServiceError,
    service::notification as service,
};
use axum::extract::State;
use hoody_protocol::id::NotificationId;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(delete))
}

#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NotificationCreateInput)]
struct CreateInput {
    #[schema(min_length = 1, max_length = 200)]
    title: String,
    #[schema(min_length = 1, max_length = 10000)]
    message: String,
    /// `MAINTENANCE`, `ANNOUNCEMENT` (the default) or `STATUS_UPDATE`.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// `INFO` (the default), `WARNING`, `ERROR` or `SUCCESS`.
    severity: Option<String>,
    /// For everybody, also without an account.
    #[serde(default)]
    is_public: bool,
    /// For every user.
    #[serde(default)]
    is_global: bool,
    /// For these users.
    target_user_ids: Option<Vec<String>>,
    /// Not shown from then on: RFC 3339, or a day.
    expires_at: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct NotificationList {
    notifications: Vec<NotificationData>,
    pagination: Pagination,
}

/// List all notifications, newest first
#[utoipa::path(get, path = "/api/v1/admin/notifications", operation_id = "admin.notifications.list", tag = "admin",
    params(Page),
    responses((status = 200, body = Success<NotificationList>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure)))]
async fn list(State(app): State<App>, _admin: Admin, page: Page) -> Result<Reply<NotificationList>, ServiceError> {
    let (found, total) = service::list_all(&app, page).await?;
    let pagination = page.of(total);
    let notifications =
        found.into_iter().map(|(notification, targets)| NotificationData::new(notification, Some(targets))).collect();
    Ok(Reply::list(NotificationList { notifications, pagination }, pagination))
}

/// Write a notification
#[utoipa::path(post, path = "/api/v1/admin/notifications", operation_id = "admin.notifications.create", tag = "admin",
    request_body = CreateInput,
    responses((status = 201, body = Success<NotificationData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure)))]
async fn create(
    State(app): State<App>,
    _admin: Admin,
    Json(input): Json<CreateInput>,
) -> Result<Reply<NotificationData>, ServiceError> {
    let expires_at = match input.expires_at.as_deref() {
        Some(text) => {
            let parsed = time::parse(text, time::Day::End);
            Some(parsed.ok_or_else(|| ServiceError::invalid("expires_at", time::PROBLEM))?)
        }
        None => None,
    };
    let input = service::Input {
        title: input.title,
        message: input.message,
        kind: input.kind,
        severity: input.severity,
        is_public: input.is_public,
        is_global: input.is_global,
        target_user_ids: input.target_user_ids.unwrap_or_default(),
        expires_at,
    };
    let (notification, targets) = service::create(&app, input).await?;
    let data = NotificationData::new(notification, Some(targets));
    Ok(Reply::new(StatusCode::CREATED, data, "the notification is shown from now on"))
}

/// Delete a notification
#[utoipa::path(delete, path = "/api/v1/admin/notifications/{id}", operation_id = "admin.notifications.delete",
    tag = "admin", params(("id" = String, Path)),
    responses((status = 200, body = Success<Option<bool>>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn delete(
    State(app): State<App>,
    _admin: Admin,
    Id(id): Id<NotificationId>,
) -> Result<Reply<Option<bool>>, ServiceError> {
    service::delete(&app, id).await?;
    Ok(Reply::ok(None, "the notification was deleted"))
}
