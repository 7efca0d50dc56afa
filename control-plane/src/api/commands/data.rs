//! Commands and executions on the wire.

use crate::{
    api::{pagination::Pagination, time::rfc3339},
    service::command::execute::Request,
    store::{
        command::{Command, execution::Execution},
        server::Server,
    },
};
use hoody_protocol::time::now_ms;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

const MILLIS: f64 = 1000.0;

/// A command of the catalogue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServerCommand)]
pub(in crate::api) struct CommandData {
    id: String,
    slug: String,
    name: String,
    description: String,
    category: String,
    /// `low`, `medium`, `high` or `critical`.
    risk_level: String,
    /// `built_in` or `custom`.
    mode: String,
    /// The command line, with places for parameters.
    command: String,
    /// JSON Schema.
    #[schema(value_type = Object)]
    parameter_schema: Value,
    #[schema(value_type = Object)]
    example_parameters: Value,
    requires_confirmation: bool,
    /// Seconds between two runs on one server.
    cooldown_seconds: Option<i64>,
    /// Runs on one server.
    rate_limit_per_hour: Option<i64>,
    /// Runs on one server.
    rate_limit_per_day: Option<i64>,
    /// Seconds.
    default_timeout: i64,
    /// Seconds.
    max_timeout: i64,
    working_directory: Option<String>,
    execution_count: i64,
    created_by: Option<String>,
    /// The program and its arguments.
    argv: Vec<String>,
    /// `nobody` or `root`.
    account: String,
    enabled: bool,
    created_at: String,
    updated_at: String,
}

impl From<Command> for CommandData {
    fn from(command: Command) -> Self {
        Self {
            id: command.id.to_string(),
            slug: command.slug,
            name: command.name,
            description: command.description,
            category: command.category,
            risk_level: command.risk.as_str().to_owned(),
            mode: if command.built_in { "built_in" } else { "custom" }.to_owned(),
            command: command.argv.join(" "),
            parameter_schema: command.parameter_schema,
            example_parameters: command.example_parameters,
            requires_confirmation: command.requires_confirmation || command.risk.needs_confirmation(),
            cooldown_seconds: command.cooldown_s,
            rate_limit_per_hour: command.per_hour,
            rate_limit_per_day: command.per_day,
            default_timeout: command.default_timeout_s,
            max_timeout: command.max_timeout_s,
            working_directory: command.working_directory,
            execution_count: command.execution_count,
            created_by: command.created_by.map(|id| id.to_string()),
            argv: command.argv,
            account: command.account.as_str().to_owned(),
            enabled: command.enabled,
            created_at: rfc3339(command.created_at),
            updated_at: rfc3339(command.updated_at),
        }
    }
}

/// The server that commands are listed for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ServerInfo {
    id: String,
    name: String,
    /// Its link is up: commands can be run now.
    is_ready: bool,
    /// `active`, `expired` or `none`.
    rental_status: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CommandList {
    commands: Vec<CommandData>,
    server_info: ServerInfo,
}

impl CommandList {
    pub(super) fn new(server: &Server, commands: Vec<Command>) -> Self {
        let ended = server.rental_end.is_some_and(|end| end <= now_ms() as i64);
        let rental_status = match server.owner {
            None => "none",
            Some(_) if ended => "expired",
            Some(_) => "active",
        };
        let server_info = ServerInfo {
            id: server.id.to_string(),
            name: server.name.clone(),
            is_ready: server.online && server.status == "enrolled",
            rental_status: rental_status.to_owned(),
        };
        Self { commands: commands.into_iter().map(CommandData::from).collect(), server_info }
    }
}

/// What to run. One of `command_id`, `command_slug` and `command` is needed.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ExecuteInput {
    #[schema(pattern = "^[0-9a-f]{24}$")]
    command_id: Option<String>,
    #[schema(pattern = "^[a-z0-9-]+$")]
    command_slug: Option<String>,
    /// An id or a slug.
    command: Option<String>,
    #[schema(value_type = Option<Object>)]
    parameters: Option<Map<String, Value>>,
    /// Seconds that it may run; the command's own default where it is left out.
    #[schema(minimum = 1, maximum = 7200)]
    timeout: Option<f64>,
    /// Answer when it is over.
    wait: Option<bool>,
    confirmation_token: Option<String>,
}

impl From<ExecuteInput> for Request {
    fn from(input: ExecuteInput) -> Self {
        Self {
            id: input.command_id,
            slug: input.command_slug,
            named: input.command,
            parameters: input.parameters.unwrap_or_default(),
            timeout_s: input.timeout,
            wait: input.wait.unwrap_or(false),
            confirmation: input.confirmation_token,
        }
    }
}

/// One run of a command.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExecutionData {
    /// Its id.
    command_log_id: String,
    command_id: String,
    command_slug: String,
    server_id: String,
    user_id: String,
    #[schema(value_type = Object)]
    parameters: Value,
    /// `pending`, `running`, `completed` (exit code 0), `failed`, `timeout`, `cancelled`, `interrupted` (the agent or
    /// the server went down) or `expired` (it never ran).
    status: String,
    /// What it wrote so far, standard output and error as they came; null in lists.
    output: Option<String>,
    /// There was more output than is kept (1 MiB).
    output_truncated: bool,
    /// 128 and more: ended by a signal.
    exit_code: Option<i64>,
    /// Why it did not run, or not to its end: `code` and `message`.
    #[schema(value_type = Option<Object>)]
    error: Option<Value>,
    /// Somebody asked it to end.
    cancel_requested: bool,
    /// Seconds that it may run.
    timeout: f64,
    created_at: String,
    start_time: Option<String>,
    end_time: Option<String>,
    /// Seconds.
    execution_time: Option<f64>,
}

impl ExecutionData {
    pub(super) fn new(execution: Execution, output: Option<String>) -> Self {
        let took = execution.started_at.zip(execution.finished_at).map(|(start, end)| (end - start).max(0) as f64);
        let status = match execution.state.as_str() {
            "dispatched" => "running".to_owned(),
            word => word.to_owned(),
        };
        Self {
            command_log_id: execution.id.to_string(),
            command_id: execution.command.to_string(),
            command_slug: execution.slug,
            server_id: execution.server.to_string(),
            user_id: execution.user.to_string(),
            parameters: execution.parameters,
            status,
            output,
            output_truncated: execution.truncated,
            exit_code: execution.exit_code,
            error: execution.failure.map(|cause| serde_json::json!({"code": *cause.code, "message": *cause.message})),
            cancel_requested: execution.cancel_requested,
            timeout: execution.timeout_ms as f64 / MILLIS,
            created_at: rfc3339(execution.created_at),
            start_time: execution.started_at.map(rfc3339),
            end_time: execution.finished_at.map(rfc3339),
            execution_time: took.map(|took| took / MILLIS),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExecutionList {
    pub(super) executions: Vec<ExecutionData>,
    pub(super) pagination: Pagination,
}
