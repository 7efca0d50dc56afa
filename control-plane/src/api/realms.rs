//! `/realms`.

use super::{
    caller::Caller,
    envelope::{Failure, Reply, Success},
    query::{self, Query},
};
use crate::{app::App, error::ServiceError, service::realm as service, store::realm::Usage};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListOptions {
    /// Adds `usage`.
    #[serde(default, deserialize_with = "query::flag")]
    #[param(required = false)]
    include_usage: bool,
}

/// How much carries a realm.
#[derive(Debug, Serialize, ToSchema)]
struct UsageData {
    projects: u64,
    containers: u64,
    auth_tokens: u64,
    total: u64,
}

impl From<Usage> for UsageData {
    fn from(usage: Usage) -> Self {
        let Usage { projects, containers, auth_tokens } = usage;
        Self { projects, containers, auth_tokens, total: projects + containers + auth_tokens }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct RealmList {
    realm_ids: Vec<String>,
    total: u64,
    /// By realm; only with `include_usage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<BTreeMap<String, UsageData>>,
}

/// The realms of your projects, containers and auth tokens
#[utoipa::path(get, path = "/api/v1/realms", operation_id = "realms.list", tag = "realms", params(ListOptions),
    responses((status = 200, body = Success<RealmList>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(options): Query<ListOptions>,
) -> Result<Reply<RealmList>, ServiceError> {
    let realms = service::list(&app, &caller).await?;
    let realm_ids: Vec<_> = realms.keys().map(ToString::to_string).collect();
    let usage = || realms.into_iter().map(|(realm, usage)| (realm.to_string(), usage.into())).collect();
    let total = realm_ids.len() as u64;
    let data = RealmList { realm_ids, total, usage: options.include_usage.then(usage) };
    Ok(Reply::ok(data, "these are your realms"))
}
