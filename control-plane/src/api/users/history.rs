//! The security history of one's own account.

use crate::{
    api::{
        caller::Identity,
        envelope::Failure,
        pagination::{self, Page},
        query::{self, Query},
        time::rfc3339,
    },
    app::App,
    error::ServiceError,
    service::account::history as service,
    store::security_event::{Event, Filter},
};
use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(history))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Include {
    /// Logins that failed as well.
    #[serde(default, deserialize_with = "query::flag")]
    #[param(required = false)]
    include_failed: bool,
    /// Changes of what protects the account as well.
    #[serde(default, deserialize_with = "query::flag")]
    #[param(required = false)]
    include_security: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = SecurityEventData)]
struct EventData {
    id: String,
    event: String,
    /// `success` or `failed`.
    outcome: &'static str,
    ip_address: String,
    /// Nothing is looked up about the address.
    country: Option<String>,
    client: Option<String>,
    created_at: String,
}

impl From<Event> for EventData {
    fn from(event: Event) -> Self {
        Self {
            outcome: if event.succeeded != 0 { "success" } else { "failed" },
            id: event.id,
            event: event.event,
            ip_address: event.ip_address,
            country: None,
            client: event.client,
            created_at: rfc3339(event.created_at),
        }
    }
}

#[derive(Serialize, ToSchema)]
struct PageNumbers {
    page: u64,
    limit: u64,
    total: u64,
    pages: u64,
}

/// The contract's form of this one list: the items are `data`, the numbers stand beside them.
#[derive(Serialize, ToSchema)]
struct HistoryAnswer {
    success: bool,
    #[serde(rename = "statusCode")]
    status_code: u16,
    message: &'static str,
    data: Vec<EventData>,
    metadata: PageNumbers,
}

/// Logins to your account, newest first
#[utoipa::path(get, path = "/api/v1/users/me/security-history", operation_id = "users.getSecurityHistory", tag = "users",
    params(Page, Include),
    responses((status = 200, body = HistoryAnswer), (status = 400, body = Failure), (status = 401, body = Failure)))]
async fn history(
    State(app): State<App>,
    identity: Identity,
    page: Result<Page, ServiceError>,
    include: Result<Query<Include>, ServiceError>,
) -> Result<Json<HistoryAnswer>, ServiceError> {
    let (page, (), Query(include)) = pagination::together(page, Ok(()), include)?;
    let filter = Filter { failed: include.include_failed, changes: include.include_security };
    let (events, total) = service::list(&app, identity.user.id, filter, page).await?;
    Ok(Json(HistoryAnswer {
        success: true,
        status_code: 200,
        message: "here is the page you asked for",
        data: events.into_iter().map(EventData::from).collect(),
        metadata: PageNumbers { page: page.page, limit: page.limit, total, pages: total.div_ceil(page.limit) },
    }))
}
