//! Running a command: checked, written down, sent. It runs now or never: with the server offline nothing is
//! written, and what was not sent in time expires.

use super::{authorise, confirm, limits, read};
use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    store::{
        StoreError,
        command::{
            self as store, Command,
            execution::{self, Execution, NewExecution},
        },
    },
};
use hoody_protocol::{
    bounded::Text,
    command::{MAX_TIMEOUT_S, Order, Parameters, schema::Schema, template::Template},
    id::{CommandId, ExecutionId, ServerId},
    time::now_ms,
};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// What a request that waits has beyond the command's own time: for sending, ending and storing.
const GRACE: Duration = Duration::from_secs(15);
/// What must be left of the time of a request for its answer.
const MARGIN: Duration = Duration::from_secs(3);
const MILLIS: f64 = 1000.0;

/// What a client asks for.
#[derive(Debug, Default)]
pub struct Request {
    /// The command's id.
    pub id: Option<String>,
    /// The command's slug.
    pub slug: Option<String>,
    /// Either of them.
    pub named: Option<String>,
    /// Its parameters.
    pub parameters: Map<String, Value>,
    /// Seconds that it may run.
    pub timeout_s: Option<f64>,
    /// The answer waits until it is over.
    pub wait: bool,
    /// Proof that the caller was asked.
    pub confirmation: Option<String>,
}

/// Runs a command; gives the execution as it is when the answer is due.
pub async fn execute(app: &App, caller: &Caller, id: ServerId, request: Request) -> Result<Execution, ServiceError> {
    let server = authorise(app, caller, id).await?;
    let command = find(app, &request).await?;
    let (parameters, timeout_ms) = check(&command, &request)?;
    let order = order(&command, &parameters)?;
    if server.status != "enrolled" || !server.online {
        return Err(ServiceError::Unavailable(format!(
            "server {} is offline: nothing was run, and nothing will be; try again when it is back",
            server.name
        )));
    }
    let confirmed = command.requires_confirmation || command.risk.needs_confirmation();
    let token = request.confirmation.as_deref().filter(|_| confirmed);
    if confirmed && token.is_none() {
        return Err(confirm::ask(app, caller, &command, id, &parameters).await?);
    }
    let now = now_ms() as i64;
    let begin_within = i64::try_from(app.config.operation_deadline.as_millis()).unwrap_or(i64::MAX);
    let execution = NewExecution {
        id: ExecutionId::generate(),
        command: command.id,
        slug: command.slug.clone(),
        server: id,
        user: caller.user,
        parameters: shown(&parameters),
        order,
        timeout_ms,
        created_at: now,
        begin_before: now.saturating_add(begin_within),
    };
    let mut tx = app.store.begin().await?;
    if !execution::lock_server(&mut tx, id).await? {
        return Err(ServiceError::NotFound("server"));
    }
    if let Some(token) = token {
        confirm::take(&mut tx, caller, &command, id, &parameters, token).await?;
    }
    limits::check(&mut tx, &command, id, now).await?;
    execution::insert(&mut tx, &execution).await?;
    hoody_fault::point!("execution.writing");
    tx.commit().await.map_err(StoreError::from)?;
    hoody_fault::point!("execution.committed");
    app.nodes.wake(id);
    if request.wait { wait(app, id, execution.id, timeout_ms).await } else { read(app, id, execution.id).await }
}

async fn find(app: &App, request: &Request) -> Result<Command, ServiceError> {
    let mut problems = BTreeMap::new();
    let id = request.id.as_deref().or(request.named.as_deref().filter(|text| text.parse::<CommandId>().is_ok()));
    let slug = request.slug.as_deref().or(request.named.as_deref().filter(|text| text.parse::<CommandId>().is_err()));
    let id = match id.map(str::parse::<CommandId>) {
        Some(Err(error)) => {
            problems.insert("command_id".to_owned(), error.to_string());
            None
        }
        Some(Ok(id)) => Some(id),
        None => None,
    };
    if slug.is_some_and(|slug| !super::catalogue::is_slug(slug)) {
        problems.insert("command_slug".to_owned(), "must be lowercase letters, digits and -".to_owned());
    }
    if id.is_none() && slug.is_none() && problems.is_empty() {
        problems.insert("command_slug".to_owned(), "is required, or command_id".to_owned());
    }
    if !problems.is_empty() {
        return Err(ServiceError::Invalid(problems));
    }
    let reader = app.store.reader();
    let found = match (id, slug) {
        (Some(id), _) => store::by_id(reader, id).await?,
        (None, Some(slug)) => store::by_slug(reader, slug).await?,
        (None, None) => None,
    };
    let command = found.filter(|command| command.enabled).ok_or(ServiceError::NotFound("command"))?;
    if slug.is_some_and(|slug| slug != command.slug) {
        return Err(ServiceError::invalid("command_slug", "names another command than command_id"));
    }
    Ok(command)
}

fn check(command: &Command, request: &Request) -> Result<(Parameters, i64), ServiceError> {
    let mut problems = BTreeMap::new();
    let longest = command.max_timeout_s.clamp(1, MAX_TIMEOUT_S as i64);
    let timeout_s = request.timeout_s.unwrap_or(command.default_timeout_s.min(longest) as f64);
    if !(1.0..=longest as f64).contains(&timeout_s) {
        problems.insert("timeout".to_owned(), format!("must be from 1 to {longest} seconds"));
    }
    let schema = schema(command)?;
    let parameters = schema.read(&request.parameters).unwrap_or_else(|wrong| {
        let named = |(name, problem): (String, String)| (format!("parameters.{name}"), problem);
        problems.extend(wrong.into_iter().map(named));
        Parameters::default()
    });
    if problems.is_empty() {
        Ok((parameters, (timeout_s * MILLIS) as i64))
    } else {
        Err(ServiceError::Invalid(problems))
    }
}

fn schema(command: &Command) -> Result<Schema, ServiceError> {
    Schema::parse(&command.parameter_schema).map_err(|_| unusable(command, "parameter_schema"))
}

/// What was stored was checked; another build may think otherwise.
fn unusable(command: &Command, what: &str) -> ServiceError {
    ServiceError::Unavailable(format!(
        "the {what} of command {} cannot be used: an operator must mend it",
        command.slug
    ))
}

/// Of a built-in command only its name and parameters travel; of others the whole command line.
fn order(command: &Command, parameters: &Parameters) -> Result<Order, ServiceError> {
    let slug = Text::truncated(command.slug.clone());
    if command.built_in {
        return Ok(Order::BuiltIn { slug, parameters: parameters.clone() });
    }
    let template = Template::parse(&command.argv, &schema(command)?).map_err(|_| unusable(command, "argv"))?;
    let argv = template.render(parameters).map_err(|error| ServiceError::invalid("parameters", error.to_string()))?;
    let working_directory = Text::truncated(command.working_directory.clone().unwrap_or_default());
    Ok(Order::Custom { slug, argv, account: command.account, working_directory })
}

/// The parameters as JSON.
fn shown(parameters: &Parameters) -> Value {
    use hoody_protocol::command::schema::Value as Parameter;
    let shown = parameters.iter().map(|(name, value)| {
        let value = match value {
            Parameter::Text(text) => Value::from(text.as_str()),
            Parameter::Integer(number) => Value::from(*number),
            Parameter::Flag(flag) => Value::from(*flag),
        };
        (name.to_string(), value)
    });
    Value::Object(shown.collect())
}

/// Waits until it is over, or until the request must be answered: then it goes on.
async fn wait(app: &App, server: ServerId, id: ExecutionId, timeout_ms: i64) -> Result<Execution, ServiceError> {
    let own = Duration::from_millis(timeout_ms.unsigned_abs()) + GRACE;
    let deadline = Instant::now() + own.min(app.config.request_deadline.saturating_sub(MARGIN));
    let over = app
        .nodes
        .executions
        .wait_for(id, deadline, || async {
            let now = read(app, server, id).await?;
            Ok::<_, ServiceError>(now.is_over().then_some(now))
        })
        .await?;
    let execution = match over {
        Some(execution) => execution,
        None => read(app, server, id).await?,
    };
    match (&execution.failure, execution.state.as_str()) {
        (_, "expired") => Err(ServiceError::NodeTimeout),
        // It was never started.
        (Some(cause), "failed") if execution.started_at.is_none() => Err(ServiceError::NodeFailed(cause.clone())),
        _ => Ok(execution),
    }
}
