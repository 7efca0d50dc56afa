//! Commands on the server itself (`execute-command`).
//!
//! Each is written down before it runs ([`record`]) and once more when it is over; a request that is repeated finds
//! the first run, while it lasts and afterwards. The policy of the server ([`policy`]) decides what may be run, and
//! the command line is made, or checked, here once more. A command belongs to the agent's process: the next agent
//! ends what is left of one and tells it as interrupted, apart from those that end the agent or the server
//! themselves.

mod output;
pub mod policy;
mod process;
mod record;
mod run;
#[cfg(test)]
mod tests;

use crate::{
    desired::DesiredError,
    runtime::{
        RuntimeError,
        cgroup::{OwnGroup, OwnLimits},
    },
};
use hoody_protocol::{
    bounded::Text,
    command::{
        CommandOutcome, CommandRequest, Ending, MAX_RUNNING, MAX_TIMEOUT_S, Order, OutputChunk,
        built_in::{self, BuiltIn, Effect},
        template,
    },
    container::Cause,
    id::ExecutionId,
    time::now_ms,
};
use output::Output;
use policy::Policy;
use process::Program;
use record::{Record, Records};
use run::Run;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// Milliseconds that the record of a command is kept after the control plane has stored its outcome.
const KEEP_MS: u64 = 60 * 60 * 1000;
/// Records kept at once; more commands are refused.
const MAX_RECORDS: usize = 1024;
/// The time that whoever asked for a restart of the agent has to learn that it was accepted.
const RESTART_PAUSE: Duration = Duration::from_millis(300);

/// Where commands are kept and what they run under.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Folder of the records; 0700.
    pub folder: PathBuf,
    /// The policy's file.
    pub policy: PathBuf,
    /// The cgroup of all commands, absolute within its hierarchy.
    pub cgroup: PathBuf,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The storage pool's folder, for commands about it.
    pub pool: PathBuf,
}

/// Why a command could not be run.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Its group cannot be made.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// There is nothing to run.
    #[error("the command line is empty")]
    NoProgram,
    /// The program cannot be started.
    #[error("start {program}")]
    Spawn {
        /// Its path.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The program's end cannot be waited for.
    #[error("wait for the program")]
    Wait(#[source] std::io::Error),
    /// Records cannot be read or written.
    #[error(transparent)]
    Record(#[from] DesiredError),
}

impl CommandError {
    /// What a client may know of it.
    fn for_clients(&self) -> String {
        match self {
            Self::Spawn { program, source } => format!("{program} could not be started: {source}"),
            _ => "the server could not start it".to_owned(),
        }
    }
}

/// The commands of this server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Commands(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: Settings,
    group: OwnGroup,
    records: Records,
    executions: Mutex<HashMap<ExecutionId, Execution>>,
    /// Held while one is accepted, so that no id is accepted twice and no more run than may.
    accepting: tokio::sync::Mutex<()>,
    restart: Notify,
    /// The agent ends: what is killed now is told by the next one.
    ending: AtomicBool,
}

/// One command, running or over. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Execution {
    output: Arc<Output>,
    cancel: watch::Sender<bool>,
    /// When the control plane stored it.
    stored: Option<u64>,
}

impl Execution {
    fn new(output: Output) -> Self {
        Self { output: Arc::new(output), cancel: watch::Sender::new(false), stored: None }
    }

    /// The pieces of output from `index` on, and how it ended; waits until there is one or the other.
    pub async fn after(&self, index: u32) -> (Vec<OutputChunk>, Option<CommandOutcome>) {
        self.output.after(index).await
    }

    /// Asks it to end.
    pub fn cancel(&self) {
        self.cancel.send_replace(true);
    }
}

/// What is to be run for an order.
#[derive(Debug)]
struct Plan {
    program: Program,
    effect: Effect,
    longest: Duration,
}

impl Commands {
    /// Reads the records, ends what an earlier agent left, and gives each of those commands its outcome.
    pub async fn open(settings: Settings) -> Result<Self, CommandError> {
        let records = Records::new(settings.folder.clone());
        let group = OwnGroup::at(&settings.cgroup)?;
        process::clear(&group).await;
        let mut executions = HashMap::new();
        for mut record in records.load()? {
            let id = record.request.id;
            if record.stored.is_some_and(|at| now_ms().saturating_sub(at) > KEEP_MS) {
                records.remove(id)?;
                continue;
            }
            let chunks = if record.stored.is_none() { records.output(id) } else { Vec::new() };
            if record.outcome.is_none() {
                record.outcome = Some(left_behind(&record, &settings.boot_id));
                records.save(&record)?;
            }
            if let Some(outcome) = record.outcome {
                let execution = Execution { stored: record.stored, ..Execution::new(Output::ended(chunks, outcome)) };
                executions.insert(id, execution);
            }
        }
        let executions = Mutex::new(executions);
        let (accepting, restart, ending) = (tokio::sync::Mutex::default(), Notify::new(), AtomicBool::new(false));
        Ok(Self(Arc::new(Shared { settings, group, records, executions, accepting, restart, ending })))
    }

    fn executions(&self) -> MutexGuard<'_, HashMap<ExecutionId, Execution>> {
        // Every change is a single insertion or removal.
        self.0.executions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: ExecutionId) -> Option<Execution> {
        self.executions().get(&id).cloned()
    }

    /// Returns when the agent is to end, so that systemd starts it again.
    pub async fn restart_asked(&self) {
        self.0.restart.notified().await;
    }

    /// The agent ends: nothing runs on without somebody who minds its time. The next agent tells these commands as
    /// interrupted.
    pub async fn end_all(&self) {
        let _accepting = self.0.accepting.lock().await;
        self.0.ending.store(true, Ordering::SeqCst);
        process::clear(&self.0.group).await;
    }

    /// Accepts a command, or finds it where it was accepted before: persisted on return, and running.
    pub async fn accept(&self, request: CommandRequest) -> Result<Execution, Cause> {
        if let Some(known) = self.find(request.id) {
            return Ok(known);
        }
        // In a task of its own: a link that breaks must not leave a record that nothing runs.
        let this = self.clone();
        let accepted = tokio::spawn(async move { this.begin(request).await });
        accepted.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a command was not accepted");
            Err(Cause::new("internal_error", "the server failed at this command"))
        })
    }

    async fn begin(&self, request: CommandRequest) -> Result<Execution, Cause> {
        let _accepting = self.0.accepting.lock().await;
        let id = request.id;
        if let Some(known) = self.find(id) {
            return Ok(known);
        }
        hoody_fault::point!("execution.received");
        if request.begin_within_ms == 0 {
            return Err(Cause::new("too_late", "the server did not get it in time; it will not run"));
        }
        if self.0.ending.load(Ordering::SeqCst) {
            return Err(Cause::new("busy", "the agent of the server is ending: try again soon"));
        }
        let plan = self.plan(&request)?;
        self.prune();
        let (running, all) = {
            let executions = self.executions();
            (executions.values().filter(|execution| execution.output.outcome().is_none()).count(), executions.len())
        };
        if running >= MAX_RUNNING || all >= MAX_RECORDS {
            return Err(Cause::new("busy", format!("the server runs {running} commands already: try again later")));
        }
        let request = CommandRequest { from: 0, ..request };
        let boot_id = self.0.settings.boot_id.clone();
        let record = Record { request, boot_id, at: now_ms(), outcome: None, stored: None };
        let persisted = self.0.records.create_output(id).and_then(|file| self.0.records.save(&record).map(|()| file));
        let file = persisted.map_err(|error| {
            tracing::error!(execution = %id, error = &error as &dyn std::error::Error, "a command was not persisted");
            Cause::new("not_persisted", "the server could not write the command down")
        })?;
        hoody_fault::point!("execution.recorded");
        tracing::info!(execution = %id, command = record.request.order.slug(), "a command begins");
        let execution = Execution::new(Output::new(file));
        self.executions().insert(id, execution.clone());
        tokio::spawn(self.clone().carry_out(record, plan, execution.clone()));
        Ok(execution)
    }

    /// What would be run; refused where policy, parameters or limits do not allow it.
    fn plan(&self, request: &CommandRequest) -> Result<Plan, Cause> {
        let policy = Policy::load(&self.0.settings.policy).map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "no policy for commands: all are refused");
            Cause::new("not_allowed", "the server has no valid policy for commands, so none is allowed")
        })?;
        policy.check(&request.order).map_err(|problem| Cause::new("not_allowed", problem))?;
        let plan = plan(&request.order, policy.limits(), &self.0.settings.pool)?;
        if request.timeout_ms == 0 || Duration::from_millis(request.timeout_ms) > plan.longest {
            let problem = format!("the time limit must be from 1 ms to {} s", plan.longest.as_secs());
            return Err(Cause::new("invalid_timeout", problem));
        }
        Ok(plan)
    }

    async fn carry_out(self, mut record: Record, plan: Plan, execution: Execution) {
        if plan.effect == Effect::RestartsAgent {
            tokio::time::sleep(RESTART_PAUSE).await;
            tracing::info!(execution = %record.request.id, "the agent ends, to be started again");
            self.0.restart.notify_one();
            // The next agent tells the outcome.
            return;
        }
        let id = record.request.id;
        let run = Run {
            id,
            program: plan.program,
            effect: plan.effect,
            timeout: Duration::from_millis(record.request.timeout_ms),
            group: self.0.group.child(&id.to_string()),
            output: &execution.output,
            cancel: execution.cancel.subscribe(),
        };
        let outcome = run.finish().await;
        if self.0.ending.load(Ordering::SeqCst) {
            return;
        }
        tracing::info!(execution = %id, ending = ?outcome.ending, exit_code = outcome.exit_code, "a command is over");
        record.outcome = Some(outcome.clone());
        self.save(&record);
        hoody_fault::point!("execution.ended");
        execution.output.end(outcome);
    }

    /// Where it cannot be saved, the next agent would tell it as interrupted; this one goes on telling how it ended.
    fn save(&self, record: &Record) {
        if let Err(error) = self.0.records.save(record) {
            tracing::error!(execution = %record.request.id, error = &error as &dyn std::error::Error,
                "a command's outcome was not written down");
        }
    }

    /// The control plane has stored output and outcome: neither is kept. The record stays for a while, so that a
    /// request that is repeated does not run again.
    pub fn stored(&self, id: ExecutionId) {
        let Some(execution) = self.find(id) else { return };
        let Some(outcome) = execution.output.outcome() else { return };
        execution.output.forget();
        let now = now_ms();
        match self.0.records.get(id) {
            Ok(record) => self.save(&Record { outcome: Some(outcome), stored: Some(now), ..record }),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "a command's record is gone"),
        }
        if let Err(error) = self.0.records.remove_output(id) {
            tracing::warn!(execution = %id, error = &error as &dyn std::error::Error, "a command's output stays");
        }
        self.executions().insert(id, Execution { stored: Some(now), ..execution });
        hoody_fault::point!("execution.stored");
    }

    /// Removes what was stored long ago.
    fn prune(&self) {
        let now = now_ms();
        let old = |execution: &Execution| execution.stored.is_some_and(|at| now.saturating_sub(at) > KEEP_MS);
        let mut executions = self.executions();
        let gone: Vec<ExecutionId> =
            executions.iter().filter(|(_, execution)| old(execution)).map(|(id, _)| *id).collect();
        for id in gone {
            executions.remove(&id);
            if let Err(error) = self.0.records.remove(id) {
                tracing::warn!(execution = %id, error = &error as &dyn std::error::Error, "a command's record stays");
            }
        }
    }
}

/// The program of an order, checked as if nobody had done so before.
fn plan(order: &Order, limits: OwnLimits, pool: &Path) -> Result<Plan, Cause> {
    match order {
        Order::BuiltIn { slug, parameters } => {
            let unknown = || Cause::new("unknown_command", "the server does not know this command: upgrade its agent");
            let command: BuiltIn = built_in::find(slug).ok_or_else(unknown)?;
            let arguments =
                command.arguments(parameters).map_err(|error| Cause::new("invalid_parameters", error.to_string()))?;
            let arguments = arguments.into_inner().into_iter();
            let placed = arguments.map(|argument| match argument.as_str() {
                built_in::POOL => Text::truncated(pool.to_string_lossy()),
                _ => argument,
            });
            let arguments = placed.collect::<Vec<_>>().try_into().unwrap_or_default();
            let program = Program { arguments, account: command.account, folder: String::new(), limits };
            let longest = Duration::from_secs(command.max_timeout_s.into());
            Ok(Plan { program, effect: command.effect, longest })
        }
        Order::Custom { argv, account, working_directory, .. } => {
            let plain = |argument: &&hoody_protocol::bounded::Text<{ hoody_protocol::command::MAX_ARGUMENT_BYTES }>| {
                !argument.chars().any(char::is_control)
            };
            let folder = working_directory.as_str();
            let is_folder = folder.is_empty() || folder == "/" || template::is_program(folder);
            if !argv.first().is_some_and(|program| template::is_program(program))
                || argv.iter().filter(plain).count() != argv.len()
                || !is_folder
            {
                return Err(Cause::new(
                    "invalid_command",
                    "program and folder are absolute paths, without control characters",
                ));
            }
            let program = Program { arguments: argv.clone(), account: *account, folder: folder.to_owned(), limits };
            Ok(Plan { program, effect: Effect::None, longest: Duration::from_secs(MAX_TIMEOUT_S) })
        }
    }
}

/// How a command ended that an earlier agent left without an outcome.
fn left_behind(record: &Record, boot_id: &str) -> CommandOutcome {
    let effect = match &record.request.order {
        Order::BuiltIn { slug, .. } => built_in::find(slug).map_or(Effect::None, |command| command.effect),
        Order::Custom { .. } => Effect::None,
    };
    let done = match effect {
        Effect::None => false,
        // This is another process.
        Effect::RestartsAgent => true,
        Effect::Reboots => record.boot_id != boot_id,
    };
    CommandOutcome {
        id: record.request.id,
        ending: if done { Ending::Exited } else { Ending::Interrupted },
        exit_code: done.then_some(0),
        truncated: false,
        started_at: Some(record.at),
        ended_at: now_ms(),
        cause: None,
    }
}
