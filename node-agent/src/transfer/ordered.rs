//! Transfers for containers that exist, here or on the server that they move from, ordered by the control plane. Each is
//! brought to its end once, whichever links come and go meanwhile: an order that comes again waits for the same end.

use super::{BulkTransfers, receive::Incoming, send};
use crate::storage::Room;
use hoody_protocol::{
    container::{Cause, ContainerSpec, Desired},
    id::{ContainerId, TransferId},
    link::CommandReply,
    transfer::{DivergenceQuery, DivergenceReply, ReceiveOrder, RetainOrder},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{sync::watch, task::AbortHandle};

/// Transfers that are ordered at once.
const MAX_ORDERED: usize = 8;

/// What is at work, by its transfer.
#[derive(Debug, Default)]
pub(super) struct Ordered(Mutex<HashMap<TransferId, Work>>);

#[derive(Debug)]
struct Work {
    container: ContainerId,
    ended: watch::Receiver<Option<CommandReply>>,
    task: AbortHandle,
}

impl Ordered {
    fn lock(&self) -> MutexGuard<'_, HashMap<TransferId, Work>> {
        // Every change is a single insertion or removal: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what is at work for the container, but for the transfers in `keep`.
    pub(super) fn end_all_of(&self, container: ContainerId, keep: &[TransferId]) {
        self.lock().retain(|transfer, work| {
            let stays = work.container != container || keep.contains(transfer);
            if !stays {
                work.task.abort();
            }
            stays
        });
    }
}

/// Takes the work off the list when it ends, however that is.
struct Listed(Arc<Ordered>, TransferId);

impl Drop for Listed {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

impl BulkTransfers {
    /// Has the transfer of an order here, whole, for the container that `spec` is held of, or one that may move here.
    pub async fn order(&self, order: ReceiveOrder, spec: Option<ContainerSpec>) -> CommandReply {
        let refused = |code: &str, message: &str| CommandReply::Refused(Cause::new(code, message));
        let room_bytes = match (spec, order.room_bytes) {
            (Some(spec), None) if spec.desired != Desired::Deleted => spec.received_bytes(),
            (None, Some(room_bytes)) => room_bytes,
            (Some(_), Some(_)) => return refused("container_held", "this server holds the container already"),
            _ => return refused("unknown_container", "this server does not hold the container"),
        };
        let mut ended = {
            let mut all = self.ordered.lock();
            match all.get(&order.transfer) {
                Some(work) => work.ended.clone(),
                None if all.len() >= MAX_ORDERED => {
                    return refused(send::BUSY, "the server receives as many file systems as it can at once");
                }
                None => {
                    let (tell, ended) = watch::channel(None);
                    let (transfer, container) = (order.transfer, order.container);
                    let (this, listed) = (self.clone(), Listed(self.ordered.clone(), transfer));
                    let task = tokio::spawn(async move {
                        let reply = this.carry_out(order, room_bytes).await;
                        drop(listed);
                        // Nobody may be waiting just now: the order comes again.
                        let _ = tell.send(Some(reply));
                    });
                    all.insert(transfer, Work { container, ended: ended.clone(), task: task.abort_handle() });
                    ended
                }
            }
        };
        match ended.wait_for(Option::is_some).await.map(|reply| reply.clone()) {
            Ok(Some(reply)) => reply,
            _ => refused("transfer_ended", "the transfer was ended"),
        }
    }

    async fn carry_out(&self, order: ReceiveOrder, room_bytes: u64) -> CommandReply {
        let ReceiveOrder { transfer, container, base, origin, keep, held, snapshots, .. } = order;
        let mut keep = keep.into_inner();
        keep.extend(snapshots.iter().copied().chain(base).chain([transfer]));
        let had = async {
            self.lineages.retain(container, keep).await.map_err(|error| send::cause(&error))?;
            let taken = self.lineages.taken(container, &snapshots).await.map_err(|error| send::cause(&error))?;
            let Some(taken) = taken else {
                let message = "a snapshot that was sent before is no longer on the new server";
                return Err(Cause::new("transfer_snapshot_missing", message));
            };
            match origin {
                Some(from) => {
                    let source = self.source(from.container, from.snapshot);
                    let kept = self.lineages.keep(container, transfer, &source).await;
                    kept.map_err(|error| send::cause(&error))
                }
                None => {
                    let room = Room::of(room_bytes).beside(taken);
                    let incoming = Incoming { transfer, container, base, room, held };
                    let received = self.pull(&incoming).await;
                    received.map(drop).map_err(|error| error.cause())
                }
            }
        };
        match had.await {
            Ok(()) => CommandReply::Accepted,
            Err(cause) => {
                tracing::warn!(%transfer, %container, code = %cause.code, "a transfer that was ordered cannot be had");
                CommandReply::Refused(cause)
            }
        }
    }

    /// Lets go of what is kept of the container's transfers, but for those that the order names.
    pub async fn let_go(&self, order: RetainOrder) -> CommandReply {
        let (container, keep) = (order.container, order.keep.into_inner());
        self.ordered.end_all_of(container, &keep);
        self.outgoing.end_all_of(container, &keep);
        match self.lineages.retain(container, keep).await {
            Ok(()) => CommandReply::Accepted,
            Err(error) => {
                tracing::warn!(%container, error = &error as &dyn std::error::Error, "transfers were not let go of");
                CommandReply::Refused(send::cause(&error))
            }
        }
    }

    /// Whether a container was changed since it was made from a transfer.
    pub async fn diverged(&self, query: DivergenceQuery) -> DivergenceReply {
        let DivergenceQuery { container, base } = query;
        match self.lineages.diverged(container, base, &self.source(container, None)).await {
            Ok(true) => DivergenceReply::Diverged,
            Ok(false) => DivergenceReply::Same,
            Err(error) => {
                tracing::warn!(%container, %base, error = &error as &dyn std::error::Error, "a container was not compared");
                DivergenceReply::Failed(send::cause(&error))
            }
        }
    }
}
