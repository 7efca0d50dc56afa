//! `/admin/commands`: the catalogue of commands that can be run on servers.

use super::Admin;
use crate::{
    api::{
        commands::CommandData,
        envelope::{Failure, Reply, Success},
        json::{Json, present},
        pagination::{Page, Pagination},
        path::Id,
    },
    app::App,
    error::ServiceError,
    service::command::catalogue::{self as service, Change},
};
use axum::extract::State;
use hoody_protocol::id::CommandId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get, update, patch, delete))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CatalogueList)]
struct CommandList {
    commands: Vec<CommandData>,
    pagination: Pagination,
}

/// A command of the operators'. Of built-in ones only `enabled`, `requires_confirmation`, limits and times can be
/// changed.
#[derive(Debug, Deserialize, ToSchema)]
struct CommandInput {
    /// Of a new command only; it never changes.
    #[schema(pattern = "^[a-z0-9-]+$", max_length = 64)]
    slug: Option<String>,
    name: Option<String>,
    description: Option<String>,
    category: Option<String>,
    /// `low`, `medium`, `high` or `critical`; from `high` on it must be confirmed.
    risk_level: Option<String>,
    /// The absolute path of a program and its arguments; `{name}` stands for a parameter. No shell is involved.
    argv: Option<Vec<String>>,
    /// JSON Schema; see the documentation for the keywords.
    #[schema(value_type = Option<Object>)]
    parameter_schema: Option<Value>,
    #[schema(value_type = Option<Object>)]
    example_parameters: Option<Value>,
    /// `nobody` or `root`.
    account: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    working_directory: Option<Option<String>>,
    requires_confirmation: Option<bool>,
    enabled: Option<bool>,
    /// Seconds between two runs on one server.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>)]
    cooldown_seconds: Option<Option<i64>>,
    /// Runs on one server.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>)]
    rate_limit_per_hour: Option<Option<i64>>,
    /// Runs on one server.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>)]
    rate_limit_per_day: Option<Option<i64>>,
    /// Seconds.
    default_timeout: Option<i64>,
    /// Seconds.
    #[schema(maximum = 7200)]
    max_timeout: Option<i64>,
}

impl From<CommandInput> for Change {
    fn from(input: CommandInput) -> Self {
        Self {
            slug: input.slug,
            name: input.name,
            description: input.description,
            category: input.category,
            risk_level: input.risk_level,
            argv: input.argv,
            parameter_schema: input.parameter_schema,
            example_parameters: input.example_parameters,
            account: input.account,
            working_directory: input.working_directory,
            requires_confirmation: input.requires_confirmation,
            enabled: input.enabled,
            cooldown_s: input.cooldown_seconds,
            per_hour: input.rate_limit_per_hour,
            per_day: input.rate_limit_per_day,
            default_timeout_s: input.default_timeout,
            max_timeout_s: input.max_timeout,
        }
    }
}

/// List all commands
#[utoipa::path(get, path = "/api/v1/admin/commands", operation_id = "admin.commands.list", tag = "admin", params(Page),
    responses((status = 200, body = Success<CommandList>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure)))]
async fn list(State(app): State<App>, _admin: Admin, page: Page) -> Result<Reply<CommandList>, ServiceError> {
    let (commands, total) = service::list(&app, page).await?;
    let pagination = page.of(total);
    Ok(Reply::list(CommandList { commands: commands.into_iter().map(Into::into).collect(), pagination }, pagination))
}

/// Make a command
///
/// A server runs it only where its own policy names the program.
#[utoipa::path(post, path = "/api/v1/admin/commands", operation_id = "admin.commands.create", tag = "admin",
    request_body = CommandInput,
    responses((status = 201, body = Success<CommandData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 409, body = Failure)))]
async fn create(
    State(app): State<App>,
    Admin(caller): Admin,
    Json(input): Json<CommandInput>,
) -> Result<Reply<CommandData>, ServiceError> {
    let command = service::create(&app, &caller, input.into()).await?;
    Ok(Reply::created(command.into(), "servers whose policy names its program can run it"))
}

/// Get a command
#[utoipa::path(get, path = "/api/v1/admin/commands/{id}", operation_id = "admin.commands.get", tag = "admin",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<CommandData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn get(State(app): State<App>, _admin: Admin, Id(id): Id<CommandId>) -> Result<Reply<CommandData>, ServiceError> {
    Ok(Reply::ok(service::get(&app, id).await?.into(), "here is the command"))
}

/// Change a command
#[utoipa::path(put, path = "/api/v1/admin/commands/{id}", operation_id = "admin.commands.update", tag = "admin",
    params(("id" = String, Path)), request_body = CommandInput,
    responses((status = 200, body = Success<CommandData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn update(
    State(app): State<App>,
    _admin: Admin,
    Id(id): Id<CommandId>,
    Json(input): Json<CommandInput>,
) -> Result<Reply<CommandData>, ServiceError> {
    Ok(Reply::ok(service::update(&app, id, input.into()).await?.into(), "the command was changed"))
}

/// Change a command
#[utoipa::path(patch, path = "/api/v1/admin/commands/{id}", operation_id = "admin.commands.patch", tag = "admin",
    params(("id" = String, Path)), request_body = CommandInput,
    responses((status = 200, body = Success<CommandData>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure)))]
async fn patch(
    app: State<App>,
    admin: Admin,
    id: Id<CommandId>,
    input: Json<CommandInput>,
) -> Result<Reply<CommandData>, ServiceError> {
    update(app, admin, id, input).await
}

/// Delete a command; what was run stays
#[utoipa::path(delete, path = "/api/v1/admin/commands/{id}", operation_id = "admin.commands.delete", tag = "admin",
    params(("id" = String, Path)),
    responses((status = 200, body = Success<Option<String>>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 403, body = Failure), (status = 404, body = Failure),
        (status = 409, body = Failure)))]
async fn delete(State(app): State<App>, _admin: Admin, Id(id): Id<CommandId>) -> Result<Reply<()>, ServiceError> {
    service::delete(&app, id).await?;
    Ok(Reply::ok((), "the command is gone"))
}
