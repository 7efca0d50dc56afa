//! `/users/auth/activity`: the caller's API requests.

use super::{
    caller::Caller,
    envelope::{Failure, Reply, Success},
    pagination::{self, Page},
    time::{self, rfc3339},
};
use crate::{
    app::App,
    error::ServiceError,
    service::activity as service,
    store::activity::{Activity, Filter},
};
use axum::{
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
/// The smallest status of a failure.
const FIRST_ERROR: u16 = 400;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(stats))
}

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documentation; the values are read by name")]
struct ListQuery {
    /// RFC 3339, or a day.
    start_date: Option<String>,
    /// RFC 3339, or a day, which is still part of it.
    end_date: Option<String>,
    /// `true`: only what failed.
    errors_only: Option<String>,
    min_status: Option<u16>,
    max_status: Option<u16>,
    /// GET, POST, PUT, PATCH or DELETE.
    method: Option<String>,
    realm_id: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct ActivityData {
    id: String,
    user_id: String,
    method: String,
    path: String,
    status_code: u16,
    ip_address: String,
    user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    realm_id: Option<String>,
    created_at: String,
}

impl From<Activity> for ActivityData {
    fn from(activity: Activity) -> Self {
        Self {
            id: activity.id.to_string(),
            user_id: activity.user.to_string(),
            method: activity.method,
            path: activity.path,
            status_code: activity.status,
            ip_address: activity.address,
            user_agent: activity.user_agent,
            realm_id: activity.realm.map(|realm| realm.to_string()),
            created_at: rfc3339(activity.created_at),
        }
    }
}

/// The numbers of the page.
#[derive(Serialize, ToSchema)]
struct ActivityMetadata {
    total: u64,
    page: u64,
    limit: u64,
    pages: u64,
}

/// The page, with its numbers beside it.
#[derive(Serialize, ToSchema)]
struct ActivityPage {
    #[serde(flatten)]
    success: Success<Vec<ActivityData>>,
    metadata: ActivityMetadata,
}

fn filter(caller: &Caller, query: Option<&str>) -> Result<Filter, ServiceError> {
    let values: BTreeMap<String, String> =
        form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
    let mut problems = BTreeMap::new();
    let mut refuse = |name: &str, problem: &str| {
        problems.insert(name.to_owned(), problem.to_owned());
    };
    let given = |name: &str| values.get(name).map(String::as_str).filter(|text| !text.is_empty());
    let mut filter = Filter {
        user: caller.user,
        from: None,
        before: None,
        min_status: None,
        max_status: None,
        method: None,
        realm: None,
    };
    for (name, day, target) in
        [("start_date", time::Day::Begin, &mut filter.from), ("end_date", time::Day::End, &mut filter.before)]
    {
        if let Some(text) = given(name) {
            *target = time::parse(text, day);
            if target.is_none() {
                refuse(name, time::PROBLEM);
            }
        }
    }
    for (name, target) in [("min_status", &mut filter.min_status), ("max_status", &mut filter.max_status)] {
        if let Some(text) = given(name) {
            *target = text.parse().ok().filter(|status| (100..=599).contains(status));
            if target.is_none() {
                refuse(name, "must be a status from 100 to 599");
            }
        }
    }
    match given("errors_only") {
        None | Some("false") => {}
        Some("true") => filter.min_status = Some(filter.min_status.unwrap_or_default().max(FIRST_ERROR)),
        Some(_) => refuse("errors_only", "must be true or false"),
    }
    if let Some(text) = given("method") {
        filter.method = METHODS.into_iter().find(|method| *method == text);
        if filter.method.is_none() {
            refuse("method", "must be GET, POST, PUT, PATCH or DELETE");
        }
    }
    if let Some(text) = given("realm_id") {
        match text.parse() {
            Ok(realm) => filter.realm = Some(realm),
            Err(error) => refuse("realm_id", &format!("{error}")),
        }
    }
    if problems.is_empty() { Ok(filter) } else { Err(ServiceError::Invalid(problems)) }
}

/// List your API requests, newest first
#[utoipa::path(get, path = "/api/v1/users/auth/activity", operation_id = "activity.list", tag = "activity",
    params(Page, ListQuery),
    responses((status = 200, body = ActivityPage), (status = 400, body = Failure), (status = 401, body = Failure)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    page: Result<Page, ServiceError>,
    RawQuery(query): RawQuery,
) -> Result<Response, ServiceError> {
    let (page, (), filter) = pagination::together(page, Ok(()), filter(&caller, query.as_deref()))?;
    let (activities, total) = service::list(&app, &caller, filter, page).await?;
    let pagination = page.of(total);
    let metadata = ActivityMetadata { total, page: page.page, limit: page.limit, pages: pagination.total_pages };
    let success = Success {
        success: true,
        status_code: 200,
        message: "here are your requests".to_owned(),
        data: activities.into_iter().map(Into::into).collect(),
        pagination: Some(pagination.into()),
    };
    Ok(axum::Json(ActivityPage { success, metadata }).into_response())
}

#[derive(Serialize, ToSchema)]
#[schema(as = ActivityStatsData)]
struct StatsData {
    total_records: i64,
    total_size_bytes: i64,
    retention_days: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_record: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    newest_record: Option<String>,
}

/// What is kept of your API requests
#[utoipa::path(get, path = "/api/v1/users/auth/activity/stats", operation_id = "activity.getStats", tag = "activity",
    responses((status = 200, body = Success<StatsData>), (status = 401, body = Failure)))]
async fn stats(State(app): State<App>, caller: Caller) -> Result<Reply<StatsData>, ServiceError> {
    let stats = service::stats(&app, &caller).await?;
    let data = StatsData {
        total_records: stats.records,
        total_size_bytes: stats.bytes,
        retention_days: app.config.activity_retention_days,
        oldest_record: stats.oldest.map(rfc3339),
        newest_record: stats.newest.map(rfc3339),
    };
    Ok(Reply::ok(data, "here is what is kept of your requests"))
}
