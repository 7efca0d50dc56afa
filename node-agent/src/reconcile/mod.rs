//! One owner task per container converges it to its specification.
//!
//! The owner ([`owner`]) is the only one that changes a container's record. It takes specifications and
//! operations from the link, persists them, answers, and runs a pass ([`pass`]) that re-reads the whole
//! state from the kernel, so that start, retry, adoption after a restart and repair are one path. A new
//! specification interrupts the waits of a pass; every step is idempotent, so the next pass goes on from
//! wherever the last one ended.

mod cause;
mod context;
mod drift;
mod egress;
mod limits;
mod names;
mod operation;
mod owner;
mod pass;
mod restore;
mod shares;
mod snapshot;
mod ssh_key;
mod start;
mod stop;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use context::{Capabilities, Settings};
pub use owner::View;

use crate::{
    desired::{
        DesiredError,
        allocation::Allocation,
        journal::Journal,
        record::{self, Phase, Record, Records, Run},
    },
    images::chain,
};
use hoody_protocol::{
    container::{Cause, ContainerSpec, State},
    id::ContainerId,
    image::Digest,
    inspection::InspectionReply,
    link::{CommandReply, InventoryEntry},
    operation::{MAX_SNAPSHOTS, OperationRequest},
    snapshot::SnapshotReply,
};
use owner::{Owner, Request};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{mpsc, oneshot, watch};

/// Requests that wait for one container's owner.
const INBOX: usize = 64;
/// How often an owner that does not answer is asked.
const ASKED: usize = 3;

/// Every container of the node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reconciler(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    context: Arc<context::Context>,
    containers: Mutex<HashMap<ContainerId, Handle>>,
    /// Held while a new container's record is made, so that two requests cannot make two owners.
    creating: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Handle {
    inbox: mpsc::Sender<Request>,
    view: watch::Receiver<View>,
    /// The trees of its image. They never change.
    trees: Arc<[Digest]>,
}

impl Handle {
    /// Asks the owner; `None` where it has ended. Asked again, for a panic of the owner loses the answer: requests
    /// may be repeated.
    async fn ask(&self, request: impl Fn(oneshot::Sender<CommandReply>) -> Request) -> Option<CommandReply> {
        for _ in 0..ASKED {
            let (reply, answer) = oneshot::channel();
            self.inbox.send(request(reply)).await.ok()?;
            if let Ok(answer) = answer.await {
                return Some(answer);
            }
        }
        if self.inbox.is_closed() {
            return None;
        }
        Some(CommandReply::Refused(Cause::new("internal_error", "the server failed at this request")))
    }
}

impl Reconciler {
    /// Starts the owners of every persisted container. Records that do not load are logged and kept.
    pub fn start(
        settings: Settings,
        capabilities: Capabilities,
        records: Records,
        allocation: Allocation,
        journal: Journal,
    ) -> Result<Self, DesiredError> {
        let done = journal.outcomes();
        let mut loaded = Vec::new();
        for record in records.load()? {
            match record {
                Ok(mut record) => {
                    if !allocation.adopt(record.spec.id, record.address, record.ids) {
                        tracing::error!(container = %record.spec.id, address = %record.address, ids = record.ids.first,
                            "another container holds the same address or ids");
                    }
                    // An outcome is journaled before the record says so; a crash between the two ends here. It
                    // is saved now: once the outcome is acknowledged, the record is its only trace.
                    let known = record.clone();
                    for outcome in done.iter().filter(|outcome| outcome.container == known.spec.id) {
                        record.finish(outcome.clone());
                    }
                    if record != known {
                        records.save_blocking(&record)?;
                    }
                    loaded.push(record);
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "a container's record is unusable");
                    if let Some((id, address, ids)) = error.damaged().and_then(record::salvage) {
                        allocation.reserve(id, Some(address), Some(ids));
                    }
                }
            }
        }
        let context = Arc::new(context::Context { settings, capabilities, records, allocation, journal });
        let this =
            Self(Arc::new(Shared { context, containers: Mutex::default(), creating: tokio::sync::Mutex::default() }));
        for record in loaded {
            this.spawn(record);
        }
        tokio::spawn(drift::run(Arc::downgrade(&this.0)));
        tokio::spawn(egress::follow(Arc::downgrade(&this.0)));
        Ok(this)
    }

    /// Accepts a specification: persisted when this answers `Accepted`.
    pub async fn apply(&self, spec: ContainerSpec) -> CommandReply {
        // What the control plane checked is checked again: a specification that passes can be carried out.
        if let Err(problem) = spec.check() {
            return CommandReply::Refused(Cause::new("invalid_specification", problem));
        }
        let id = spec.id;
        loop {
            if let Some(handle) = self.handle(id) {
                if let Some(answer) = handle.ask(|reply| Request::Spec(Box::new(spec.clone()), reply)).await {
                    return answer;
                }
                // Its owner ended between the two: the container is gone and may be made again.
                self.forget(id, &handle);
                continue;
            }
            // In a task of its own: a link that breaks must not leave a record without its owner.
            let (this, spec) = (self.clone(), spec.clone());
            match tokio::spawn(async move { this.adopt(&spec).await }).await {
                Ok(Ok(true)) => return CommandReply::Accepted,
                Ok(Ok(false)) => continue,
                Ok(Err(error)) => {
                    tracing::error!(container = %id, error = &error as &dyn std::error::Error, "a specification was not persisted");
                }
                Err(error) => tracing::error!(container = %id, %error, "a specification was not persisted"),
            }
            return CommandReply::Refused(Cause::new(
                "not_persisted",
                "the server could not persist the specification",
            ));
        }
    }

    /// Makes record and owner of a container not held; false where it is held meanwhile.
    async fn adopt(&self, spec: &ContainerSpec) -> Result<bool, DesiredError> {
        let _creating = self.0.creating.lock().await;
        if self.handle(spec.id).is_some() {
            return Ok(false);
        }
        let record = self.create(spec).await?;
        self.spawn(record);
        Ok(true)
    }

    /// Accepts an operation: persisted when this answers `Accepted`.
    pub async fn operate(&self, request: OperationRequest) -> CommandReply {
        let answer = match self.handle(request.container) {
            Some(handle) => handle.ask(|reply| Request::Operation(request.clone(), reply)).await,
            None => None,
        };
        if let Some(answer) = answer {
            return answer;
        }
        // Without its record, which may be damaged: what was done and is not acknowledged is in the journal.
        match self.0.context.journal.outcomes().into_iter().find(|outcome| outcome.id == request.id) {
            Some(outcome) => CommandReply::Done(outcome),
            None => CommandReply::Refused(Cause::new("unknown_container", "this server does not hold the container")),
        }
    }

    /// The specification held of a container.
    pub async fn held(&self, id: ContainerId) -> Option<ContainerSpec> {
        let (reply, answer) = oneshot::channel();
        self.handle(id)?.inbox.send(Request::Held(reply)).await.ok()?;
        answer.await.ok()
    }

    /// What runs in a container.
    pub async fn inspect(&self, id: ContainerId) -> InspectionReply {
        if self.handle(id).is_none() {
            return InspectionReply::NotRunning;
        }
        match self.0.context.capabilities.runtime.inspect(id).await {
            Ok(Some(inspection)) => InspectionReply::Running(Box::new(inspection)),
            Ok(None) => InspectionReply::NotRunning,
            Err(error) => {
                tracing::warn!(container = %id, error = &error as &dyn std::error::Error, "a look into a container failed");
                InspectionReply::Failed(Cause::new("inspection_failed", "the server could not look into the container"))
            }
        }
    }

    /// Which snapshots there are of a container, whoever made them.
    pub async fn snapshots(&self, id: ContainerId) -> SnapshotReply {
        match self.0.context.capabilities.storage.snapshots(id).await {
            Ok(held) => SnapshotReply::Held(
                held.into_iter().take(MAX_SNAPSHOTS).collect::<Vec<_>>().try_into().unwrap_or_default(),
            ),
            Err(error) => {
                tracing::warn!(container = %id, error = &error as &dyn std::error::Error, "snapshots were not listed");
                SnapshotReply::Failed(Cause::new("storage_failed", "the server could not list the snapshots"))
            }
        }
    }

    /// What the agent holds, for the hello.
    pub fn inventory(&self) -> Vec<InventoryEntry> {
        let containers = self.0.containers.lock().unwrap_or_else(PoisonError::into_inner);
        containers
            .iter()
            .map(|(container, handle)| {
                let view = handle.view.borrow();
                InventoryEntry {
                    container: *container,
                    version: view.version,
                    state: view.state,
                    sequence: view.sequence,
                }
            })
            .collect()
    }

    /// Containers with a first process, for measurements.
    pub fn running(&self) -> Vec<ContainerId> {
        let active = |entry: &InventoryEntry| matches!(entry.state, State::Running | State::Paused | State::Stopping);
        self.inventory().iter().filter(|entry| active(entry)).map(|entry| entry.container).collect()
    }

    /// Every container held, with its address, for measurements of disk and for `status`.
    pub fn views(&self) -> Vec<(ContainerId, View)> {
        let containers = self.0.containers.lock().unwrap_or_else(PoisonError::into_inner);
        containers.iter().map(|(id, handle)| (*id, handle.view.borrow().clone())).collect()
    }

    /// The trees of the images that containers of this node name.
    pub fn trees(&self) -> HashSet<Digest> {
        let containers = self.0.containers.lock().unwrap_or_else(PoisonError::into_inner);
        containers.values().flat_map(|handle| handle.trees.iter().copied()).collect()
    }

    /// Makes the owner of a container look at it now.
    fn wake(&self, id: ContainerId) {
        if let Some(handle) = self.handle(id) {
            // An owner with a full inbox has enough to look for.
            let _ = handle.inbox.try_send(Request::Wake);
        }
    }

    /// Makes every owner look at its container now: after the link came back, for example.
    pub fn wake_all(&self) {
        let containers = self.0.containers.lock().unwrap_or_else(PoisonError::into_inner);
        for handle in containers.values() {
            // A full inbox wakes the owner anyway.
            let _ = handle.inbox.try_send(Request::Wake);
        }
    }

    fn handle(&self, id: ContainerId) -> Option<Handle> {
        self.0.containers.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn forget(&self, id: ContainerId, stale: &Handle) {
        let mut containers = self.0.containers.lock().unwrap_or_else(PoisonError::into_inner);
        if containers.get(&id).is_some_and(|handle| handle.inbox.same_channel(&stale.inbox)) {
            containers.remove(&id);
        }
    }

    /// Makes and persists the record of a new container.
    async fn create(&self, spec: &ContainerSpec) -> Result<Record, DesiredError> {
        let context = &self.0.context;
        let (address, ids) = context.allocation.take(spec.id)?;
        let mut record = Record::new(spec.clone(), ids, address);
        // Nothing of an earlier run can be there: the first one is written down with the specification.
        let boot_id = context.settings.boot_id.clone();
        record.run = record.wanted_run().map(|number| Run { number, boot_id, phase: Phase::Starting });
        // Where the record before it was damaged: what was done is not done again.
        let done = context.journal.outcomes().into_iter().filter(|outcome| outcome.container == spec.id);
        done.for_each(|outcome| record.finish(outcome));
        let saved = context.records.save(&record).await;
        if saved.is_err() {
            context.allocation.release(address, ids);
        }
        saved.map(|()| record)
    }

    fn spawn(&self, record: Record) {
        let id = record.spec.id;
        let (inbox, requests) = mpsc::channel(INBOX);
        let (publish, view) = watch::channel(View::of(&record));
        let trees = chain::ids(&record.spec.image.layers).into();
        let handle = Handle { inbox, view, trees };
        self.0.containers.lock().unwrap_or_else(PoisonError::into_inner).insert(id, handle.clone());
        let owner = Owner::new(self.0.context.clone(), record, requests, publish);
        let this = self.clone();
        tokio::spawn(async move {
            owner.run().await;
            this.forget(id, &handle);
        });
    }
}
