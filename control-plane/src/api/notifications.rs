//! `/notifications`.

use super::{
    caller::Caller,
    envelope::{Failure, Reply, Success},
    path::Id,
    time::rfc3339,
};
use crate::{app::App, error::ServiceError, service::notification as service, store::notification::Notification};
use axum::extract::State;
use hoody_protocol::id::NotificationId;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(list_public))
        .routes(routes!(mark_all_read, patch_all_read))
        .routes(routes!(mark_read, patch_read))
}

/// A notification.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NotificationData {
    id: String,
    title: String,
    message: String,
    #[serde(rename = "type")]
    kind: String,
    severity: String,
    is_public: bool,
    is_global: bool,
    /// Operators only: the users it is for.
    target_user_ids: Option<Vec<String>>,
    expires_at: Option<String>,
    created_at: String,
    updated_at: String,
    /// For the user who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    is_read: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_at: Option<String>,
}

impl NotificationData {
    /// As everybody sees it.
    pub(super) fn new(notification: Notification, target_user_ids: Option<Vec<String>>) -> Self {
        Self {
            id: notification.id.to_string(),
            title: notification.title,
            message: notification.message,
            kind: notification.kind,
            severity: notification.severity,
            is_public: notification.is_public,
            is_global: notification.is_global,
            target_user_ids,
            expires_at: notification.expires_at.map(rfc3339),
            created_at: rfc3339(notification.created_at),
            updated_at: rfc3339(notification.updated_at),
            is_read: None,
            read_at: None,
        }
    }

    /// As a user sees it, with whether they read it.
    fn of_user(notification: Notification) -> Self {
        let read_at = notification.read_at;
        let seen = Self::new(notification, None);
        Self { is_read: Some(read_at.is_some()), read_at: read_at.map(rfc3339), ..seen }
    }
}

/// List your notifications, newest first
#[utoipa::path(get, path = "/api/v1/notifications", operation_id = "notifications.list", tag = "notifications",
    responses((status = 200, body = Success<Vec<NotificationData>>), (status = 401, body = Failure)))]
async fn list(State(app): State<App>, caller: Caller) -> Result<Reply<Vec<NotificationData>>, ServiceError> {
    let found = service::list(&app, &caller).await?;
    Ok(Reply::ok(found.into_iter().map(NotificationData::of_user).collect(), "here are your notifications"))
}

/// List what is for everybody, newest first
#[utoipa::path(get, path = "/api/v1/notifications/public", operation_id = "notifications.listPublic",
    tag = "notifications", security(()),
    responses((status = 200, body = Success<Vec<NotificationData>>)))]
async fn list_public(State(app): State<App>) -> Result<Reply<Vec<NotificationData>>, ServiceError> {
    let found = service::list_public(&app).await?;
    let data = found.into_iter().map(|notification| NotificationData::new(notification, None)).collect();
    Ok(Reply::ok(data, "here are the public notifications"))
}

#[derive(Serialize, ToSchema)]
struct ReadData {
    id: String,
    notification_id: String,
    is_read: bool,
    read_at: Option<String>,
}

/// Mark a notification as read
#[utoipa::path(put, path = "/api/v1/notifications/{id}/read", operation_id = "notifications.markRead",
    tag = "notifications", params(("id" = String, Path)),
    responses((status = 200, body = Success<ReadData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
async fn mark_read(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<NotificationId>,
) -> Result<Reply<ReadData>, ServiceError> {
    let read_at = service::mark_read(&app, &caller, id).await?;
    let (id, read_at) = (id.to_string(), Some(rfc3339(read_at)));
    Ok(Reply::ok(ReadData { notification_id: id.clone(), id, is_read: true, read_at }, "marked as read"))
}

/// Mark a notification as read
#[utoipa::path(patch, path = "/api/v1/notifications/{id}/read", operation_id = "notifications.patchRead",
    tag = "notifications", params(("id" = String, Path)),
    responses((status = 200, body = Success<ReadData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
async fn patch_read(
    state: State<App>,
    caller: Caller,
    id: Id<NotificationId>,
) -> Result<Reply<ReadData>, ServiceError> {
    mark_read(state, caller, id).await
}

#[derive(Serialize, ToSchema)]
struct CountData {
    count: u64,
}

/// Mark all notifications as read
#[utoipa::path(put, path = "/api/v1/notifications/read-all", operation_id = "notifications.markAllRead",
    tag = "notifications",
    responses((status = 200, body = Success<CountData>), (status = 401, body = Failure)))]
async fn mark_all_read(State(app): State<App>, caller: Caller) -> Result<Reply<CountData>, ServiceError> {
    let count = service::mark_all_read(&app, &caller).await?;
    Ok(Reply::ok(CountData { count }, format!("{count} notifications were marked as read")))
}

/// Mark all notifications as read
#[utoipa::path(patch, path = "/api/v1/notifications/read-all", operation_id = "notifications.patchAllRead",
    tag = "notifications",
    responses((status = 200, body = Success<CountData>), (status = 401, body = Failure)))]
async fn patch_all_read(state: State<App>, caller: Caller) -> Result<Reply<CountData>, ServiceError> {
    mark_all_read(state, caller).await
}
