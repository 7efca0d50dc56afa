//! The record of one container: the specification, the operations accepted and not done, and how far
//! the current run has come.

use super::{DesiredError, file};
use crate::{storage::IdRange, timing::step};
use hoody_protocol::{
    container::{Cause, ContainerSpec, Desired},
    id::{ContainerId, OperationId, SnapshotId},
    operation::{OperationOutcome, OperationRequest},
    time::UnixMs,
};
use serde::{Deserialize, Serialize};
use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

/// Outcomes kept for replays of operations.
const OUTCOMES_KEPT: usize = 32;

/// Everything the agent must remember of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What the container should be.
    pub spec: ContainerSpec,
    /// The last position of the container's order that was accepted.
    pub sequence: u64,
    /// Its ids.
    pub ids: IdRange,
    /// Its address.
    pub address: Ipv4Addr,
    /// Operations accepted and not done, in order.
    pub operations: Vec<Accepted>,
    /// Outcomes of the last operations, for replays.
    pub outcomes: Vec<OperationOutcome>,
    /// How far the last run came; `None` before the first.
    pub run: Option<Run>,
    /// Snapshots that were not taken as far as anybody knows: what there may be of them goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discarded: Vec<SnapshotId>,
}

/// An accepted operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// What was asked.
    pub request: OperationRequest,
    /// When it was accepted.
    pub at: UnixMs,
    /// True from the first step on: the operation is then always brought to its end.
    pub begun: bool,
    /// When it was begun; absent in records of agents that did not write it down.
    #[serde(default)]
    pub begun_at: Option<UnixMs>,
    /// For a restart: the first process was stopped, and it is the new one that is being started.
    pub stopped: bool,
    /// For the restoration of a snapshot: how far it has come; absent before the container is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restoration: Option<Restoration>,
}

/// How far the restoration of a snapshot has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restoration {
    /// Nothing runs; the root file system is being replaced.
    Swapping,
    /// The snapshot's content is in place, what was before is kept aside.
    Swapped,
    /// It cannot be completed: what was before is being brought back.
    Reverting {
        /// Why.
        cause: Cause,
    },
}

/// A run: one life of the first process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The start request that it answers (see [`Desired::Running`]).
    pub number: u64,
    /// Boot in which it was begun.
    pub boot_id: String,
    /// How far it came.
    pub phase: Phase,
}

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Being started: begun again where nothing of it is found.
    Starting,
    /// The first process was seen running.
    Started {
        /// When it was started.
        at: UnixMs,
    },
    /// The first process is being ended: whatever is asked meanwhile, this one is not adopted again.
    Stopping,
    /// The first process has ended.
    Ended {
        /// Its exit code; `None` where it was lost.
        code: Option<i32>,
        /// Why it ended, where that was not asked for.
        cause: Option<Cause>,
    },
}

impl Record {
    /// A record for a container not seen before.
    pub fn new(spec: ContainerSpec, ids: IdRange, address: Ipv4Addr) -> Self {
        let sequence = spec.sequence;
        Self {
            spec,
            sequence,
            ids,
            address,
            operations: Vec::new(),
            outcomes: Vec::new(),
            run: None,
            discarded: Vec::new(),
        }
    }

    /// The start request that asks for a first process; `None` where there should be none.
    pub fn wanted_run(&self) -> Option<u64> {
        match self.spec.desired {
            Desired::Running { run } | Desired::Paused { run } => Some(run),
            Desired::Stopped { .. } | Desired::Deleted => None,
        }
    }

    /// The first outcome of an operation, where it was done.
    pub fn outcome(&self, id: OperationId) -> Option<&OperationOutcome> {
        self.outcomes.iter().find(|outcome| outcome.id == id)
    }

    /// Moves an operation from the accepted ones to the outcomes.
    pub fn finish(&mut self, outcome: OperationOutcome) {
        self.operations.retain(|accepted| accepted.request.id != outcome.id);
        if self.outcome(outcome.id).is_none() {
            self.outcomes.push(outcome);
        }
        let excess = self.outcomes.len().saturating_sub(OUTCOMES_KEPT);
        self.outcomes.drain(..excess);
    }
}

/// The folder of records.
#[derive(Debug, Clone)]
pub struct Records {
    folder: PathBuf,
}

impl Records {
    /// Records below `folder`, which exists.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    fn path(&self, id: ContainerId) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    /// Every record. One damaged file does not hide the others: it comes as an error of its own.
    pub fn load(&self) -> Result<Vec<Result<Record, DesiredError>>, DesiredError> {
        let failed = |source| DesiredError::Io { action: "list", path: self.folder.clone(), source };
        let mut records = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                records.extend(load_one(&path).transpose());
            }
        }
        Ok(records)
    }

    /// Persists a record; durable on return.
    pub async fn save(&self, record: &Record) -> Result<(), DesiredError> {
        let path = self.path(record.spec.id);
        let content = serde_json::to_vec(record).expect("plain data always encodes");
        hoody_fault::point!("record.writing");
        step("agent: record", blocking(move || file::write(&path, &content))).await?;
        hoody_fault::point!("record.written");
        Ok(())
    }

    /// [`Records::save`] on the calling thread, for the agent's start.
    pub fn save_blocking(&self, record: &Record) -> Result<(), DesiredError> {
        let content = serde_json::to_vec(record).expect("plain data always encodes");
        file::write(&self.path(record.spec.id), &content)
    }

    /// Removes a record; success where there is none.
    pub async fn remove(&self, id: ContainerId) -> Result<(), DesiredError> {
        let path = self.path(id);
        hoody_fault::point!("record.removing");
        blocking(move || file::remove(&path)).await?;
        hoody_fault::point!("record.removed");
        Ok(())
    }
}

fn load_one(path: &Path) -> Result<Option<Record>, DesiredError> {
    let Some(content) = file::read(path)? else { return Ok(None) };
    let damaged = |reason: String| DesiredError::Damaged { path: path.to_owned(), reason };
    let record: Record = serde_json::from_slice(&content).map_err(|error| damaged(error.to_string()))?;
    if path.file_stem().is_none_or(|stem| stem != record.spec.id.to_string().as_str()) {
        return Err(damaged("it holds another container's record".into()));
    }
    Ok(Some(record))
}

/// Whose address and ids a damaged record holds, as far as they can still be read in it: they stay reserved for
/// its container, whatever becomes of the file.
pub fn salvage(path: &Path) -> Option<(ContainerId, Ipv4Addr, IdRange)> {
    let id = path.file_stem()?.to_str()?.parse().ok()?;
    let (address, ids) = salvage_bytes(&std::fs::read(path).ok()?)?;
    Some((id, address, ids))
}

pub(crate) fn salvage_bytes(bytes: &[u8]) -> Option<(Ipv4Addr, IdRange)> {
    let text = String::from_utf8_lossy(bytes);
    let after = |name: &str| text.rsplit_once(name).map(|(_, after)| after);
    let first = after("\"ids\":{\"first\":")?.split('}').next()?.parse().ok()?;
    let address = after("\"address\":\"")?.split('"').next()?.parse().ok()?;
    Some((address, IdRange { first }))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
