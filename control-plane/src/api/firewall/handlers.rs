//! The eight calls; ingress and egress differ in the direction only.

use super::view::{AddedRule, NoRules, Place, RemovedRules, ResetRules, RuleData, Rules, ToggledRule};
use crate::{
    api::{
        caller::Caller,
        containers::written,
        envelope::{Failure, Reply, Success},
        json::Json,
        path::Id,
    },
    app::App,
    error::ServiceError,
    service::firewall::{self as service, RuleInput},
};
use axum::extract::State;
use hoody_protocol::{firewall::Direction, id::ContainerId};

/// List a container's firewall rules, with counters
#[utoipa::path(get, path = "/api/v1/containers/{id}/firewall/rules", operation_id = "firewall.list", tag = "firewall",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<Rules>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure)))]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
) -> Result<Reply<Rules>, ServiceError> {
    let row = service::list(&app, &caller, id).await?;
    let measured = app.nodes.measured_container(row.server, id).await;
    let counters = measured.as_ref().map_or(&[][..], |measured| &measured.value.rules);
    Ok(Reply::ok(Rules::new(&row, counters), "here are the firewall rules"))
}

/// Remove every firewall rule
#[utoipa::path(post, path = "/api/v1/containers/{id}/firewall/reset", operation_id = "firewall.reset", tag = "firewall",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<ResetRules>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure), (status = 409, body = Failure), (status = 502, body = Failure)))]
pub(super) async fn reset(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
) -> Result<Reply<ResetRules>, ServiceError> {
    let progress = service::reset(&app, &caller, id).await?;
    Ok(Reply::ok(ResetRules { rules: NoRules::default() }, written(progress, "every firewall rule is removed")))
}

async fn add(
    app: App,
    caller: Caller,
    id: ContainerId,
    direction: Direction,
    input: RuleInput,
) -> Result<Reply<AddedRule>, ServiceError> {
    let added = service::add(&app, &caller, id, direction, &input).await?;
    let message = match added.duplicate_of {
        None => written(added.progress, "the rule is in force"),
        Some(_) => "there is such a rule already: nothing was added".to_owned(),
    };
    let data = AddedRule {
        rule: RuleData::new(direction, added.rule),
        duplicate: added.duplicate_of.is_some(),
        duplicate_of: added.duplicate_of.map(|index| Place { direction: direction.into(), index }),
    };
    Ok(Reply::ok(data, message))
}

async fn toggle(
    app: App,
    caller: Caller,
    id: ContainerId,
    direction: Direction,
    input: RuleInput,
) -> Result<Reply<ToggledRule>, ServiceError> {
    let (rules, enabled, progress) = service::toggle(&app, &caller, id, direction, &input).await?;
    let updated_count = rules.len();
    let new_state = if enabled { "enabled" } else { "disabled" };
    let first = rules.into_iter().next().ok_or(ServiceError::NotFound("firewall rule"))?;
    let data =
        ToggledRule { direction: direction.into(), new_state, updated: RuleData::new(direction, first), updated_count };
    let done = match updated_count {
        1 => format!("the rule is {new_state}"),
        count => format!("{count} rules match and are {new_state}; the first is shown"),
    };
    Ok(Reply::ok(data, written(progress, &done)))
}

async fn remove(
    app: App,
    caller: Caller,
    id: ContainerId,
    direction: Direction,
    input: RuleInput,
) -> Result<Reply<RemovedRules>, ServiceError> {
    let (rules, progress) = service::remove(&app, &caller, id, direction, &input).await?;
    let removed: Vec<RuleData> = rules.into_iter().map(|rule| RuleData::new(direction, rule)).collect();
    let message = written(progress, &format!("{} rules removed", removed.len()));
    Ok(Reply::ok(RemovedRules { direction: direction.into(), removed_count: removed.len(), removed }, message))
}

/// Add a rule for traffic to the container
#[utoipa::path(post, path = "/api/v1/containers/{id}/firewall/ingress", operation_id = "firewall.addIngressRule", tag = "firewall",
    params(("id" = String, Path)), request_body = RuleInput,
    responses((status = 200, body = Success<AddedRule>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure), (status = 409, body = Failure),
        (status = 502, body = Failure)))]
pub(super) async fn add_ingress(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
    Json(input): Json<RuleInput>,
) -> Result<Reply<AddedRule>, ServiceError> {
    add(app, caller, id, Direction::Ingress, input).await
}

/// Enable or disable the matching rules for traffic to the container
#[utoipa::path(patch, path = "/api/v1/containers/{id}/firewall/ingress", operation_id = "firewall.toggleIngressRule", tag = "firewall",
    params(("id" = String, Path)), request_body = RuleInput,
    responses((status = 200, body = Success<ToggledRule>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure), (status = 409, body = Failure),
        (status = 502, body = Failure)))]
pub(super) async fn toggle_ingress(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
    Json(input): Json<RuleInput>,
) -> Result<Reply<ToggledRule>, ServiceError> {
    toggle(app, caller, id, Direction::Ingress, input).await
}

/// Remove the matching rules for traffic to the container
#[utoipa::path(delete, path = "/api/v1/containers/{id}/firewall/ingress", operation_id = "firewall.removeIngressRule", tag = "firewall",
    params(("id" = String, Path)), request_body = RuleInput,
    responses((status = 200, body = Success<RemovedRules>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure), (status = 409, body = Failure),
        (status = 502, body = Failure)))]
pub(super) async fn remove_ingress(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
    Json(input): Json<RuleInput>,
) -> Result<Reply<RemovedRules>, ServiceError> {
    remove(app, caller, id, Direction::Ingress, input).await
}

/// Add a rule for traffic from the container
#[utoipa::path(post, path = "/api/v1/containers/{id}/firewall/egress", operation_id = "firewall.addEgressRule", tag = "firewall",
    params(("id" = String, Path)), request_body = RuleInput,
    responses((status = 200, body = Success<AddedRule>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure), (status = 409, body = Failure),
        (status = 502, body = Failure)))]
pub(super) async fn add_egress(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
    Json(input): Json<RuleInput>,
) -> Result<Reply<AddedRule>, ServiceError> {
    add(app, caller, id, Direction::Egress, input).await
}

/// Enable or disable the matching rules for traffic from the container
#[utoipa::path(patch, path = "/api/v1/containers/{id}/firewall/egress", operation_id = "firewall.toggleEgressRule", tag = "firewall",
    params(("id" = String, Path)), request_body = RuleInput,
    responses((status = 200, body = Success<ToggledRule>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure), (status = 409, body = Failure),
        (status = 502, body = Failure)))]
pub(super) async fn toggle_egress(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
    Json(input): Json<RuleInput>,
) -> Result<Reply<ToggledRule>, ServiceError> {
    toggle(app, caller, id, Direction::Egress, input).await
}

/// Remove the matching rules for traffic from the container
#[utoipa::path(delete, path = "/api/v1/containers/{id}/firewall/egress", operation_id = "firewall.removeEgressRule", tag = "firewall",
    params(("id" = String, Path)), request_body = RuleInput,
    responses((status = 200, body = Success<RemovedRules>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure), (status = 409, body = Failure),
        (status = 502, body = Failure)))]
pub(super) async fn remove_egress(
    State(app): State<App>,
    caller: Caller,
    Id(id): Id<ContainerId>,
    Json(input): Json<RuleInput>,
) -> Result<Reply<RemovedRules>, ServiceError> {
    remove(app, caller, id, Direction::Egress, input).await
}
