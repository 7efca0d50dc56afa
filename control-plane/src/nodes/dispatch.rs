//! Sends a node what it does not have yet. On every wake-up the store is read anew, so that start, retry
//! and a missed wake-up are one path.
//!
//! Containers are served side by side; of one container, specifications and operations go one by one, in
//! the order of their sequence.

use super::link::Link;
use crate::{
    service::network,
    store::{
        StoreError,
        dispatch::{self as work, Item, OpenOperation},
        report,
    },
    timing::step,
};
use hoody_protocol::{
    container::{Cause, ContainerSpec},
    id::{ContainerId, OperationId},
    link::CommandReply,
    operation::OperationOutcome,
    stream::{self, AskError},
    time::now_ms,
    version::SpecVersion,
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Containers served at once.
const CONCURRENCY: usize = 32;
/// Time for the node to persist a command and say so.
const COMMAND_DEADLINE: Duration = Duration::from_secs(20);
/// Pause before a container is tried again, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What a node answers whose disk is full.
const NOT_PERSISTED: &str = "not_persisted";
/// The store is read anew after this time even without a wake-up.
const REREAD: Duration = Duration::from_secs(60);

/// What this link has settled; a new link begins anew.
#[derive(Debug, Default)]
struct Settled {
    /// Operations that the node took over; their outcome comes with the reports.
    operations: HashSet<OperationId>,
    /// Specifications that the node refused; only another version is sent again.
    refused: HashMap<ContainerId, SpecVersion>,
}

/// A container that could not be served.
#[derive(Debug)]
struct Waiting {
    until: Instant,
    pause: Duration,
}

/// Why a container is to be tried again.
#[derive(Debug, thiserror::Error)]
enum Retry {
    #[error("database")]
    Store(#[from] StoreError),
    #[error("open the credentials of a container's upstream proxy")]
    Credentials(#[from] network::SealedCredentials),
    #[error("send a command")]
    Ask(#[from] AskError),
    #[error("the node could not persist the specification")]
    NotPersisted,
    #[error("the node holds {held}, which is older than what it was sent, {sent}")]
    Contradiction { held: SpecVersion, sent: SpecVersion },
}

/// Sends until the link drops this.
pub(super) async fn run(link: &Link) {
    let settled = Mutex::new(Settled::default());
    let mut serving = futures::stream::FuturesUnordered::new();
    let mut busy: HashSet<ContainerId> = HashSet::new();
    let mut again: HashSet<ContainerId> = HashSet::new();
    let mut waiting: HashMap<ContainerId, Waiting> = HashMap::new();
    let mut queue: Vec<ContainerId> = Vec::new();
    let mut read = true;
    loop {
        if read {
            read = false;
            match Box::pin(step("link: work read", work::containers_with_work(&link.context.app.store, link.server())))
                .await
            {
                Ok(found) => {
                    // What changed while its container was being served is looked at once more.
                    again.extend(found.iter().filter(|container| busy.contains(container)));
                    queue = found;
                    queue.reverse();
                }
                Err(error) => {
                    tracing::error!(server = %link.server(), error = &error as &dyn std::error::Error,
                        "read what a node does not have");
                }
            }
        }
        let now = Instant::now();
        while busy.len() < CONCURRENCY
            && let Some(container) = queue.pop()
        {
            let early = waiting.get(&container).is_some_and(|waiting| waiting.until > now);
            if !early && busy.insert(container) {
                let settled = &settled;
                serving.push(async move { (container, serve(link, settled, container).await) });
            }
        }
        let reread = now + REREAD;
        let next = waiting.values().map(|waiting| waiting.until).filter(|until| *until > now).min();
        tokio::select! {
            () = link.wakes.work.notified() => read = true,
            () = tokio::time::sleep_until(next.map_or(reread, |next| next.min(reread))) => read = true,
            Some((container, served)) = futures::StreamExt::next(&mut serving) => {
                busy.remove(&container);
                if again.remove(&container) {
                    queue.push(container);
                }
                match served {
                    Ok(()) => {
                        waiting.remove(&container);
                    }
                    Err(error) => {
                        let pause = waiting.get(&container).map_or(FIRST_PAUSE, |last| (last.pause * 2).min(LONGEST_PAUSE));
                        tracing::warn!(server = %link.server(), %container, pause_ms = pause.as_millis() as u64,
                            error = &error as &dyn std::error::Error, "a command was not answered; tried again");
                        waiting.insert(container, Waiting { until: Instant::now() + pause, pause });
                    }
                }
            }
        }
    }
}

fn with<T>(settled: &Mutex<Settled>, act: impl FnOnce(&mut Settled) -> T) -> T {
    // Nothing panics while it is held.
    act(&mut settled.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Sends everything that the node lacks of one container, in sequence.
async fn serve(link: &Link, settled: &Mutex<Settled>, container: ContainerId) -> Result<(), Retry> {
    loop {
        let items = step("link: item read", work::items(&link.context.app.store, link.server(), container)).await?;
        let next = items.into_iter().find(|item| {
            with(settled, |settled| match item {
                Item::Spec { spec, .. } => settled.refused.get(&container) != Some(&spec.version),
                Item::Operation(operation) => !settled.operations.contains(&operation.request.id),
            })
        });
        match next {
            None => return Ok(()),
            Some(Item::Spec { mut spec, sealed }) => {
                network::complete(&link.context.app.keys, &mut spec, &sealed)?;
                send_spec(link, settled, &spec).await?;
            }
            Some(Item::Operation(operation)) => send_operation(link, settled, operation).await?,
        }
    }
}

async fn send_spec(link: &Link, settled: &Mutex<Settled>, spec: &ContainerSpec) -> Result<(), Retry> {
    let server = link.server();
    let store = &link.context.app.store;
    hoody_fault::point!("spec.sending");
    let reply: CommandReply = step("link: accepted", stream::ask(&link.connection, spec, COMMAND_DEADLINE)).await?;
    hoody_fault::point!("spec.answered");
    let held = match reply {
        // Outcomes are of operations; a specification that is done was accepted.
        CommandReply::Accepted | CommandReply::Done(_) => spec.version,
        CommandReply::Superseded { held } if held < spec.version => {
            return Err(Retry::Contradiction { held, sent: spec.version });
        }
        CommandReply::Superseded { held } => {
            if held > spec.version {
                tracing::error!(%server, container = %spec.id, %held, sent = %spec.version,
                    "the node holds a newer specification than the database: was the database restored?");
            }
            held
        }
        CommandReply::Refused(cause) => {
            tracing::warn!(%server, container = %spec.id, version = %spec.version, code = %cause.code,
                "the node refused a specification");
            // A full disk becomes free again; whatever else the node refuses it refuses again.
            let later = &*cause.code == NOT_PERSISTED;
            if !later {
                with(settled, |settled| settled.refused.insert(spec.id, spec.version));
            }
            let mut tx = store.begin().await?;
            report::refuse(&mut tx, server, spec, cause, now_ms() as i64).await?;
            tx.commit().await.map_err(StoreError::from)?;
            link.context.app.nodes.changes.announce(spec.id);
            return if later { Err(Retry::NotPersisted) } else { Ok(()) };
        }
    };
    let container = spec.id;
    let acknowledged = store.write(move |connection| Box::pin(work::acknowledge(connection, server, container, held)));
    step("link: acceptance written", acknowledged).await?;
    hoody_fault::point!("spec.acknowledged");
    link.context.app.nodes.changes.announce(spec.id);
    Ok(())
}

async fn send_operation(link: &Link, settled: &Mutex<Settled>, operation: OpenOperation) -> Result<(), Retry> {
    let OpenOperation { mut request, begin_before, dispatched } = operation;
    let store = &link.context.app.store;
    let now = now_ms() as i64;
    hoody_fault::point!("operation.marking");
    if !dispatched && !work::mark_dispatched(store, request.id, now).await? {
        let late = Cause::new("operation_expired", "the server could not begin it in time; it will not run");
        if work::expire(store, request.id, &late, now).await? {
            link.context.app.nodes.changes.announce(request.container);
        }
        // Ended in another way meanwhile: the next read does not give it any more.
        return Ok(());
    }
    hoody_fault::point!("operation.marked");
    // One that was sent before may have got through: then the node knows it and says what became of it.
    // Otherwise it learns here that its time is over.
    request.begin_within_ms = u64::try_from(begin_before - now).unwrap_or(0);
    let reply = match stream::ask(&link.connection, &request, COMMAND_DEADLINE).await {
        Err(AskError::Refused(cause)) => {
            tracing::warn!(server = %link.server(), code = %cause.code, "the node does not know an operation");
            CommandReply::Refused(Cause::new(
                "agent_too_old",
                "the server's agent does not support this: it must be upgraded",
            ))
        }
        answered => answered?,
    };
    let mut bytes = None;
    let failure = match reply {
        CommandReply::Accepted => {
            hoody_fault::point!("operation.accepted");
            with(settled, |settled| settled.operations.insert(request.id));
            return Ok(());
        }
        CommandReply::Done(outcome) if outcome.id == request.id => {
            bytes = outcome.bytes;
            outcome.failure
        }
        CommandReply::Done(_) => Some(Cause::new("node_answer", "the server answered about another operation")),
        CommandReply::Superseded { .. } => Some(Cause::new("superseded", "a newer request took its place")),
        CommandReply::Refused(cause) => Some(cause),
    };
    let outcome = OperationOutcome { id: request.id, container: request.container, failure, bytes, at: now_ms() };
    let server = link.server();
    store
        .write(move |connection| {
            Box::pin(async move { work::record_outcome(connection, server, &outcome, now_ms() as i64).await })
        })
        .await?;
    link.context.app.nodes.changes.announce(request.container);
    Ok(())
}
