//! The owner task of one container: takes requests at any time, also while a pass works; persists them
//! before it answers; runs passes; waits for the next reason to look.

use super::{
    cause,
    context::Context,
    egress, operation,
    pass::{self, PassError, Settled},
    shares,
    ssh_key::SshKey,
};
use crate::desired::{
    DesiredError,
    record::{Accepted, Phase, Record},
};
use crate::{firewall::Egress, transfer::TransferError};
use futures::FutureExt;
use hoody_protocol::{
    container::Limits,
    container::{Cause, ContainerSpec, Desired, State, StatusReport},
    firewall::FirewallSpec,
    link::{CommandReply, Report},
    operation::{OperationOutcome, OperationRequest},
    share::{ShareFailure, ShareMount},
    time::{UnixMs, now_ms},
    version::SpecVersion,
};
use std::{
    net::Ipv4Addr,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

/// Operations of one container that are accepted and not done.
const MAX_OPERATIONS: usize = 32;
/// Longest pause before a file system is asked for again that came in vain: all of it comes again.
const RETRY_OF_STREAM: Duration = Duration::from_secs(1800);

/// What an owner is asked.
#[derive(Debug)]
pub(super) enum Request {
    /// A specification, answered when it is persisted.
    Spec(Box<ContainerSpec>, oneshot::Sender<CommandReply>),
    /// An operation, answered when it is persisted.
    Operation(OperationRequest, oneshot::Sender<CommandReply>),
    /// Asks for the specification held.
    Held(oneshot::Sender<ContainerSpec>),
    /// Look now.
    Wake,
}

/// What others may see of a container.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct View {
    /// The version held.
    pub version: SpecVersion,
    /// The last position accepted.
    pub sequence: u64,
    /// The state.
    pub state: State,
    /// Its address.
    pub address: Ipv4Addr,
    /// Why, after a failure.
    pub cause: Option<Cause>,
}

impl View {
    pub(super) fn of(record: &Record) -> Self {
        let state = match (&record.run, record.spec.desired) {
            (_, Desired::Deleted) => State::Deleting,
            (None, _) => State::Creating,
            (Some(run), _) => match run.phase {
                Phase::Starting => State::Starting,
                Phase::Started { .. } => State::Running,
                Phase::Stopping => State::Stopping,
                Phase::Ended { .. } => State::Stopped,
            },
        };
        Self { version: record.spec.version, sequence: record.sequence, state, address: record.address, cause: None }
    }
}

/// What the owner's requests and its running pass share. Both run in one task, so the locks are never
/// contended; they are there because a pass is a future beside the inbox.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) context: Arc<Context>,
    record: Mutex<Record>,
    saving: tokio::sync::Mutex<()>,
    /// Counts accepted requests; waits of a pass end when it grows.
    requests: watch::Sender<u64>,
    publish: watch::Sender<View>,
    reported: Mutex<Option<StatusReport>>,
    /// Rules and limits that are in force, where this process put them there.
    enforced: Mutex<Enforced>,
    progress: Mutex<Progress>,
}

/// How far passes have come with what is not in the record: worthless after a crash, when it is done again.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// Requests accepted when the pass began.
    pub(super) seen: u64,
    /// The last pass failed too: the container stays reported as failed while it is tried again.
    pub(super) failing: bool,
    /// Why the last pass failed.
    pub(super) cause: Option<Cause>,
    /// When the first process was asked to end: an interrupted wait goes on where it was.
    pub(super) stop_asked: Option<Instant>,
    /// The outcome that is journaled, and held there until the record says so too.
    pub(super) concluded: Option<(OperationOutcome, u64)>,
    /// Position of the report that everything is deleted, and the version it was made for.
    pub(super) deleted: Option<(SpecVersion, u64)>,
    /// The disk limit in force.
    pub(super) disk_bytes: Option<u64>,
    /// Processes of this run that the kernel ended for lack of memory.
    pub(super) oom_kills: u64,
}

/// What this process has put in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Enforced {
    pub(super) firewall: Option<(FirewallSpec, Egress)>,
    /// Why the rules of this version could not be put in force.
    pub(super) firewall_error: Option<(SpecVersion, Cause)>,
    pub(super) limits: Option<Limits>,
    /// Why the limits of this version could not be put in force.
    pub(super) limits_error: Option<(SpecVersion, Cause)>,
    /// The SSH key that the container's file has; `None`: not known.
    pub(super) ssh_key: Option<SshKey>,
    /// Why the SSH key of this version could not be placed.
    pub(super) ssh_key_error: Option<(SpecVersion, Cause)>,
    /// The shares that are mounted, but for the failures; `None`: not known.
    pub(super) shares: Option<Vec<ShareMount>>,
    /// What of them is not mounted.
    pub(super) share_failures: Vec<ShareFailure>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cell {
    /// The record as it is now.
    pub(super) fn record(&self) -> Record {
        lock(&self.record).clone()
    }

    /// Changes the record: on disk first, then in memory.
    pub(super) async fn update(&self, change: impl FnOnce(&mut Record)) -> Result<Record, DesiredError> {
        let _saving = self.saving.lock().await;
        let mut record = self.record();
        change(&mut record);
        self.context.records.save(&record).await?;
        *lock(&self.record) = record.clone();
        self.publish.send_modify(|view| (view.version, view.sequence) = (record.spec.version, record.sequence));
        Ok(record)
    }

    /// [`Cell::update`] for a pass: gives the record with the specification that the pass works for. One that
    /// was accepted meanwhile is the next pass's; what this one reaches must not be reported as reached for it.
    pub(super) async fn advance(&self, of: &Record, change: impl FnOnce(&mut Record)) -> Result<Record, PassError> {
        let updated = self.update(change).await.map_err(pass::not_persisted)?;
        Ok(Record { spec: of.spec.clone(), ..updated })
    }

    /// Returns when a request was accepted after the pass began.
    pub(super) async fn requested(&self) {
        let seen = self.progress().seen;
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.requests.subscribe().wait_for(|count| *count != seen).await;
    }

    pub(super) fn progress(&self) -> Progress {
        lock(&self.progress).clone()
    }

    pub(super) fn set_progress(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut lock(&self.progress));
    }

    pub(super) fn enforced(&self) -> Enforced {
        lock(&self.enforced).clone()
    }

    pub(super) fn set_enforced(&self, change: impl FnOnce(&mut Enforced)) {
        change(&mut lock(&self.enforced));
    }

    /// Publishes a state and journals it, unless it is what was reported last.
    pub(super) async fn report(&self, record: &Record, state: State, converged: bool, cause: Option<Cause>) {
        let on_the_way = matches!(state, State::Creating | State::Starting | State::Stopping | State::Deleting);
        if on_the_way && self.progress().failing {
            return;
        }
        let (exit_code, started_at): (Option<i32>, Option<UnixMs>) = match record.run.as_ref().map(|run| &run.phase) {
            Some(Phase::Ended { code, .. }) => (*code, None),
            Some(Phase::Started { at }) => (None, Some(*at)),
            _ => (None, None),
        };
        let version = record.spec.version;
        let alive = matches!(state, State::Running | State::Paused);
        let enforced = self.enforced();
        let of_this = |error: Option<(SpecVersion, Cause)>| {
            error.filter(|(failed, _)| *failed == version).map(|(_, cause)| cause)
        };
        self.publish.send_modify(|view| (view.state, view.cause) = (state, cause.clone()));
        let report = StatusReport {
            container: record.spec.id,
            version,
            state,
            converged,
            cause,
            exit_code,
            address: Some(record.address),
            started_at,
            firewall_error: of_this(enforced.firewall_error),
            limits_error: of_this(enforced.limits_error).filter(|_| alive),
            ssh_key_error: of_this(enforced.ssh_key_error).filter(|_| alive),
            oom_kills: if alive { self.progress().oom_kills } else { 0 },
            egress: if alive { egress::status(self, record) } else { None },
            share_failures: match alive {
                true => enforced.share_failures.try_into().unwrap_or_default(),
                false => Default::default(),
            },
            at: now_ms(),
        };
        let news = {
            let mut reported = lock(&self.reported);
            let same = reported.as_ref().is_some_and(|last| StatusReport { at: report.at, ..last.clone() } == report);
            if !same {
                *reported = Some(report.clone());
            }
            !same
        };
        if news {
            tracing::info!(container = %report.container, state = state.as_str(), version = %version, converged, cause = ?report.cause, "state");
            self.context.journal.append(Report::Status(report)).await;
        }
    }
}

/// The owner task.
pub(super) struct Owner {
    cell: Arc<Cell>,
    inbox: mpsc::Receiver<Request>,
    failures: u32,
    /// How long to wait for a reason before the next pass.
    pause: Option<Duration>,
    /// The last turn ended in a panic that is not reported yet.
    panicked: bool,
    /// Asked to look again once the pass that works has ended.
    woken: bool,
}

impl Owner {
    pub(super) fn new(
        context: Arc<Context>,
        record: Record,
        inbox: mpsc::Receiver<Request>,
        publish: watch::Sender<View>,
    ) -> Self {
        let cell = Cell {
            context,
            record: Mutex::new(record),
            saving: tokio::sync::Mutex::default(),
            requests: watch::Sender::new(0),
            publish,
            reported: Mutex::default(),
            enforced: Mutex::default(),
            progress: Mutex::default(),
        };
        Self { cell: Arc::new(cell), inbox, failures: 0, pause: None, panicked: false, woken: false }
    }

    /// Runs until the container is gone or the agent ends. A panic is our mistake, and ends the turn, not the
    /// task: it is reported, and the container is looked at again after a growing pause.
    pub(super) async fn run(mut self) {
        loop {
            // What a turn shares is behind locks that are never held over an await, and changes as a whole.
            match AssertUnwindSafe(self.turn()).catch_unwind().await {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => {
                    let container = self.cell.record().spec.id;
                    self.failures = self.failures.saturating_add(1);
                    tracing::error!(%container, failures = self.failures, "a pass panicked; it is tried again");
                    self.panicked = true;
                    self.pause = Some(self.retry_pause(self.cell.context.settings.retry_longest));
                }
            }
        }
    }

    /// Waits for a reason, then a pass; false where the container is gone or the agent ends.
    async fn turn(&mut self) -> bool {
        if std::mem::take(&mut self.panicked) {
            let record = self.cell.record();
            let cause = Cause::new("internal_error", "the server failed at this container and tries again");
            self.cell.report(&record, State::Failed, false, Some(cause)).await;
        }
        if let Some(pause) = self.pause.take()
            && !self.wait(pause).await
        {
            return false;
        }
        let cell = self.cell.clone();
        let seen = *cell.requests.borrow();
        cell.set_progress(|progress| (progress.seen, progress.failing) = (seen, self.failures > 0));
        self.woken = false;
        let Some(settled) = self.pass(&cell).await else { return false };
        let pause = match settled {
            Ok(Settled::Gone) => return false,
            Ok(Settled::Again) => return true,
            Err(PassError::Interrupted) => {
                self.failures = 0;
                return true;
            }
            Ok(Settled::Stable) => {
                self.failures = 0;
                let interval = self.cell.context.settings.drift_interval;
                shares::next_expiry(&self.cell.record()).map_or(interval, |left| left.min(interval))
            }
            Err(PassError::Failed(failure)) => {
                let record = self.cell.record();
                tracing::warn!(
                    container = %record.spec.id, step = failure.step, failures = self.failures + 1,
                    error = failure.error.as_ref() as &dyn std::error::Error, "a pass failed"
                );
                self.failures = self.failures.saturating_add(1);
                self.cell.set_progress(|progress| progress.cause = Some(failure.cause.clone()));
                let settings = &self.cell.context.settings;
                let in_vain = failure.error.downcast_ref().is_some_and(TransferError::is_of_the_stream);
                let pause = self.retry_pause(if in_vain { RETRY_OF_STREAM } else { settings.retry_longest });
                // An operation whose time is over is ended then, not only after a long pause.
                let pause = operation::time_left(&record, settings).map_or(pause, |left| left.min(pause));
                self.cell.report(&record, State::Failed, false, Some(failure.cause)).await;
                pause
            }
        };
        if *self.cell.requests.borrow() != seen || self.woken {
            self.failures = 0;
        } else {
            self.pause = Some(pause);
        }
        true
    }

    /// One pass, beside which requests are accepted; `None` where the agent ends.
    async fn pass(&mut self, cell: &Cell) -> Option<Result<Settled, PassError>> {
        let pass = pass::converge(cell);
        tokio::pin!(pass);
        loop {
            tokio::select! {
                settled = &mut pass => return Some(settled),
                request = self.inbox.recv() => {
                    let accepting = self.accept(request?);
                    tokio::pin!(accepting);
                    // The pass goes on beside it: it may be writing the record, which accepting waits for.
                    tokio::select! {
                        () = &mut accepting => {}
                        settled = &mut pass => {
                            accepting.await;
                            return Some(settled);
                        }
                    }
                }
            }
        }
    }

    /// Waits for a request, the end of the first process, or the pause; false where the agent ends.
    async fn wait(&mut self, pause: Duration) -> bool {
        let runtime = self.cell.context.capabilities.runtime.clone();
        let id = self.cell.record().spec.id;
        let alive = matches!(self.cell.publish.borrow().state, State::Running | State::Paused);
        let ended = async {
            if !alive {
                return std::future::pending().await;
            }
            if let Err(error) = runtime.wait(id).await {
                tracing::warn!(container = %id, error = &error as &dyn std::error::Error, "waiting for the first process failed");
                std::future::pending().await
            }
        };
        tokio::select! {
            request = self.inbox.recv() => match request {
                Some(request) => {
                    self.failures = 0;
                    self.accept(request).await;
                    true
                }
                None => false,
            },
            () = ended => true,
            () = tokio::time::sleep(pause) => true,
        }
    }

    fn retry_pause(&self, longest: Duration) -> Duration {
        let settings = &self.cell.context.settings;
        let doubled = settings.retry_first.saturating_mul(1 << self.failures.saturating_sub(1).min(16));
        // Half of it random, so that many containers that failed together do not retry together.
        doubled.min(longest).mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }

    async fn accept(&mut self, request: Request) {
        match request {
            // Not a request: what a pass waits for goes on.
            Request::Wake => self.woken = true,
            Request::Held(reply) => {
                // Whoever stopped waiting needs no answer.
                let _ = reply.send(self.cell.record().spec);
            }
            Request::Spec(spec, reply) => {
                let answer = self.accept_spec(*spec).await;
                // A link that broke meanwhile asks again.
                let _ = reply.send(answer);
            }
            Request::Operation(request, reply) => {
                let answer = self.accept_operation(request).await;
                let _ = reply.send(answer);
            }
        }
    }

    async fn accept_spec(&mut self, spec: ContainerSpec) -> CommandReply {
        let record = self.cell.record();
        let held = &record.spec;
        if spec.version < held.version {
            return CommandReply::Superseded { held: held.version };
        }
        if spec.version == held.version {
            if spec == *held {
                return CommandReply::Accepted;
            }
            tracing::error!(container = %spec.id, version = %spec.version, "the same version came with other content");
            return refused("version_conflict", "the server holds other content under this version");
        }
        if held.desired == Desired::Deleted && spec.desired != Desired::Deleted {
            return refused("deleted", "the container is being deleted");
        }
        // After a restore an operator may have given the container to another project, and the order of
        // specifications and operations begins anew: what the lost state had numbered does not count.
        let new_epoch = spec.version.epoch > held.version.epoch;
        let moved = (spec.owner, spec.project) != (held.owner, held.project);
        let made_from = |spec: &ContainerSpec| (spec.image.digest, spec.origin, spec.transfer, spec.moved);
        let made_anew = made_from(&spec) != made_from(held) || spec.snapshots != held.snapshots;
        if made_anew || (moved && !new_epoch) {
            return refused("immutable", "image, origin, owner and project of a container do not change");
        }
        if moved {
            // Rules say who the owner is: they are put in force again.
            self.cell.set_enforced(|enforced| *enforced = Enforced::default());
        }
        self.persisted(|record| {
            record.sequence = if new_epoch { spec.sequence } else { record.sequence.max(spec.sequence) };
            record.spec = spec;
        })
        .await
    }

    async fn accept_operation(&mut self, request: OperationRequest) -> CommandReply {
        let record = self.cell.record();
        if let Some(outcome) = record.outcome(request.id) {
            return CommandReply::Done(outcome.clone());
        }
        if record.operations.iter().any(|accepted| accepted.request.id == request.id) {
            return CommandReply::Accepted;
        }
        if record.spec.desired == Desired::Deleted {
            return refused("deleted", "the container is being deleted");
        }
        if request.sequence <= record.sequence {
            return refused("out_of_order", "the server has accepted something later than this operation");
        }
        if record.operations.len() >= MAX_OPERATIONS {
            return refused("too_many_operations", "the container has too many operations that are not done");
        }
        self.persisted(|record| {
            record.sequence = request.sequence;
            record.operations.push(Accepted {
                request,
                at: now_ms(),
                begun: false,
                begun_at: None,
                stopped: false,
                restoration: None,
            });
        })
        .await
    }

    async fn persisted(&self, change: impl FnOnce(&mut Record)) -> CommandReply {
        match self.cell.update(change).await {
            Ok(_) => {
                self.cell.requests.send_modify(|count| *count += 1);
                CommandReply::Accepted
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a request was not persisted");
                match cause::known(&error) {
                    Some(cause) => refused("not_persisted", &cause.message),
                    None => refused("not_persisted", "the server could not persist the request"),
                }
            }
        }
    }
}

fn refused(code: &str, message: &str) -> CommandReply {
    CommandReply::Refused(Cause::new(code, message))
}
