//! Start, stop, force-stop, pause, resume: what each means for the desired state, given what is desired
//! already and what the node said. Restart is an operation, see [`super::restart`].

use super::{
    change::{Effect, Progress, change},
    restart,
};
use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    store::{
        container::{ContainerRow, Status},
        image_pull::PullState,
    },
};
use hoody_protocol::{
    container::{Desired, State},
    id::ContainerId,
};
use std::{fmt, str::FromStr};

/// What can be asked of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Run its first process.
    Start,
    /// Ask the first process to end.
    Stop,
    /// Kill the first process.
    ForceStop,
    /// Stop and start, at once or not at all.
    Restart,
    /// Freeze it.
    Pause,
    /// Thaw it.
    Resume,
}

const WORDS: [(Operation, &str); 6] = [
    (Operation::Start, "start"),
    (Operation::Stop, "stop"),
    (Operation::ForceStop, "force-stop"),
    (Operation::Restart, "restart"),
    (Operation::Pause, "pause"),
    (Operation::Resume, "resume"),
];

/// The word is none of the operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be start, stop, force-stop, restart, pause or resume")]
pub struct UnknownOperation;

impl FromStr for Operation {
    type Err = UnknownOperation;
    fn from_str(text: &str) -> Result<Self, UnknownOperation> {
        WORDS.iter().find(|(_, word)| *word == text).map(|(operation, _)| *operation).ok_or(UnknownOperation)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WORDS.iter().find(|(operation, _)| operation == self).map_or("", |(_, word)| word))
    }
}

/// Does what is asked and waits for the node; the text says how far it is.
pub async fn operate(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    operation: Operation,
) -> Result<(ContainerRow, String), ServiceError> {
    if operation == Operation::Restart {
        return restart::restart(app, caller, id).await.map(|row| (row, "the container was restarted".to_owned()));
    }
    let (row, progress, already) = change(app, caller, id, |row| {
        let decision = decide(operation, Situation::of(row))?;
        Ok(match decision {
            Decision::Already(what) => (Effect::Nothing, Some(what)),
            Decision::Desire(desired) => {
                row.spec.desired = desired;
                if let Desired::Running { run } = desired {
                    row.attributes.runs = row.attributes.runs.max(run);
                }
                (Effect::Desired, None)
            }
        })
    })
    .await?;
    let message = match (already, progress, &row.report) {
        (Some(what), Progress::Answered, _) => format!("the container is already {what}"),
        (None, Progress::Answered, Some(report)) if report.state == State::Failed => {
            let cause = report.cause.as_ref().map_or("no cause was given", |cause| cause.message.as_str());
            format!("{operation} was accepted, but the server cannot go on: {cause}")
        }
        (None, Progress::Answered, _) => format!("{operation} is done: the container is {}", row.status),
        (_, Progress::Pending, _) => format!("{operation} is accepted and goes on: read the container to follow it"),
        (_, Progress::Offline, _) => format!("{operation} is accepted: it is done when the server is back online"),
    };
    Ok((row, message))
}

/// What a decision rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Situation {
    desired: Desired,
    status: Status,
    /// What the node said about the newest version; `None`: nothing yet.
    reported: Option<State>,
    /// How often a start was asked for.
    runs: u64,
}

impl Situation {
    pub(super) fn of(row: &ContainerRow) -> Self {
        let report = row.report.as_ref().filter(|report| report.version >= row.spec.version);
        // An image that could not be pulled is asked for once more, as a start that failed is.
        let unpulled = row.pull.as_ref().is_some_and(|pull| pull.state == PullState::Failed);
        Self {
            desired: row.spec.desired,
            status: row.status,
            reported: report.map(|report| report.state).or_else(|| unpulled.then_some(State::Failed)),
            runs: row.attributes.runs,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// Nothing to change; the word says what the container is.
    Already(&'static str),
    Desire(Desired),
}

fn decide(operation: Operation, situation: Situation) -> Result<Decision, ServiceError> {
    use Decision::{Already, Desire};
    let Situation { desired, status, reported, runs } = situation;
    let conflict = |needed: &str| {
        Err(ServiceError::Conflict(format!("the container is {status}: {operation} needs it to be {needed}")))
    };
    Ok(match (operation, desired) {
        (_, Desired::Deleted) => {
            return Err(ServiceError::Conflict("the container is being deleted".to_owned()));
        }
        (Operation::Start, Desired::Running { .. }) => match reported {
            // Ended by itself, or cannot start: asked for once more.
            Some(State::Stopped | State::Failed) => Desire(Desired::Running { run: runs + 1 }),
            _ => Already("running"),
        },
        (Operation::Start | Operation::Resume, Desired::Paused { run }) => Desire(Desired::Running { run }),
        (Operation::Start, Desired::Stopped { .. }) => Desire(Desired::Running { run: runs + 1 }),
        (Operation::Stop, Desired::Stopped { .. }) => Already("stopped"),
        (Operation::Stop, _) => Desire(Desired::Stopped { force: false }),
        (Operation::ForceStop, Desired::Stopped { force: true }) => Already("stopped"),
        (Operation::ForceStop, Desired::Stopped { force: false }) if reported == Some(State::Stopped) => {
            Already("stopped")
        }
        (Operation::ForceStop, _) => Desire(Desired::Stopped { force: true }),
        (Operation::Pause, Desired::Paused { .. }) => Already("paused"),
        (Operation::Pause, Desired::Running { run }) if status == Status::Running => Desire(Desired::Paused { run }),
        (Operation::Pause, _) => return conflict("running"),
        (Operation::Resume, Desired::Running { .. }) if status == Status::Running => Already("running"),
        (Operation::Resume, _) => return conflict("paused"),
        (Operation::Restart, Desired::Running { .. }) if status == Status::Running => Already("running"),
        (Operation::Restart, _) => return conflict("running"),
    })
}

/// 409 where a restart makes no sense.
pub(super) fn check_restart(row: &ContainerRow) -> Result<(), ServiceError> {
    decide(Operation::Restart, Situation::of(row)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: Desired = Desired::Running { run: 3 };
    const PAUSED: Desired = Desired::Paused { run: 3 };
    const STOPPED: Desired = Desired::Stopped { force: false };
    const KILLED: Desired = Desired::Stopped { force: true };

    fn outcome(operation: Operation, desired: Desired, status: Status, reported: Option<State>) -> String {
        match decide(operation, Situation { desired, status, reported, runs: 3 }) {
            Ok(Decision::Already(what)) => format!("already {what}"),
            Ok(Decision::Desire(desired)) => format!("{desired:?}"),
            Err(ServiceError::Conflict(_)) => "conflict".to_owned(),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn start() {
        let start = |desired, status, reported| outcome(Operation::Start, desired, status, reported);
        assert_eq!(start(STOPPED, Status::Stopped, Some(State::Stopped)), "Running { run: 4 }");
        assert_eq!(start(KILLED, Status::Running, None), "Running { run: 4 }");
        assert_eq!(start(RUNNING, Status::Running, Some(State::Running)), "already running");
        assert_eq!(start(RUNNING, Status::Stopped, None), "already running");
        assert_eq!(start(RUNNING, Status::Stopped, Some(State::Starting)), "already running");
        assert_eq!(start(RUNNING, Status::Stopped, Some(State::Stopped)), "Running { run: 4 }");
        assert_eq!(start(RUNNING, Status::Failed, Some(State::Failed)), "Running { run: 4 }");
        assert_eq!(start(PAUSED, Status::Paused, Some(State::Paused)), "Running { run: 3 }");
    }

    #[test]
    fn stop_and_force_stop() {
        let stop = |desired, status, reported| outcome(Operation::Stop, desired, status, reported);
        assert_eq!(stop(RUNNING, Status::Running, Some(State::Running)), "Stopped { force: false }");
        assert_eq!(stop(PAUSED, Status::Paused, Some(State::Paused)), "Stopped { force: false }");
        assert_eq!(stop(KILLED, Status::Stopped, Some(State::Stopped)), "already stopped");
        let force = |desired, status, reported| outcome(Operation::ForceStop, desired, status, reported);
        assert_eq!(force(RUNNING, Status::Running, Some(State::Running)), "Stopped { force: true }");
        assert_eq!(force(STOPPED, Status::Running, Some(State::Stopping)), "Stopped { force: true }");
        assert_eq!(force(STOPPED, Status::Running, None), "Stopped { force: true }");
        assert_eq!(force(STOPPED, Status::Stopped, Some(State::Stopped)), "already stopped");
        assert_eq!(force(KILLED, Status::Running, None), "already stopped");
    }

    #[test]
    fn pause_resume_and_restart_need_a_process() {
        let (running, paused, stopped) = (Some(State::Running), Some(State::Paused), Some(State::Stopped));
        assert_eq!(outcome(Operation::Pause, RUNNING, Status::Running, running), "Paused { run: 3 }");
        assert_eq!(outcome(Operation::Pause, PAUSED, Status::Paused, paused), "already paused");
        assert_eq!(outcome(Operation::Pause, STOPPED, Status::Stopped, stopped), "conflict");
        assert_eq!(outcome(Operation::Pause, RUNNING, Status::Stopped, None), "conflict");
        assert_eq!(outcome(Operation::Resume, PAUSED, Status::Paused, paused), "Running { run: 3 }");
        assert_eq!(outcome(Operation::Resume, RUNNING, Status::Running, running), "already running");
        assert_eq!(outcome(Operation::Resume, STOPPED, Status::Stopped, stopped), "conflict");
        assert_eq!(outcome(Operation::Restart, STOPPED, Status::Stopped, stopped), "conflict");
        assert_eq!(outcome(Operation::Restart, PAUSED, Status::Paused, paused), "conflict");
    }

    #[test]
    fn what_is_being_deleted_takes_nothing() {
        for (operation, word) in WORDS {
            assert_eq!(outcome(operation, Desired::Deleted, Status::Deleting, None), "conflict", "{word}");
            assert_eq!(word.parse(), Ok(operation));
        }
        assert_eq!("kill".parse::<Operation>(), Err(UnknownOperation));
    }
}
