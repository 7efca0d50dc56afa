//! Transfers for containers that exist, ordered by the control plane. Each is brought to its end once, whichever links come
//! and go meanwhile: an order that comes again waits for the same end.

use super::{BulkTransfers, receive::Incoming, send};
use hoody_protocol::{
    container::{Cause, ContainerSpec, Desired},
    id::{ContainerId, TransferId},
    link::CommandReply,
    transfer::{DivergenceQuery, DivergenceReply, ReceiveOrder},
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

    /// Ends what is at work for the container.
    pub(super) fn end_all_of(&self, container: ContainerId) {
        self.lock().retain(|_, work| {
            if work.container == container {
                work.task.abort();
            }
            work.container != container
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
    /// Has the transfer of an order here, whole, for the container that `spec` is held of.
    pub async fn order(&self, order: ReceiveOrder, spec: Option<ContainerSpec>) -> CommandReply {
        let refused = |code: &str, message: &str| CommandReply::Refused(Cause::new(code, message));
        let Some(spec) = spec.filter(|spec| spec.desired != Desired::Deleted) else {
            return refused("unknown_container", "this server does not hold the container");
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
                        let reply = this.carry_out(order, &spec).await;
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

    async fn carry_out(&self, order: ReceiveOrder, spec: &ContainerSpec) -> CommandReply {
        let ReceiveOrder { transfer, container, base, origin, keep } = order;
        let mut keep = keep.into_inner();
        keep.extend(base.into_iter().chain([transfer]));
        let had = async {
            self.lineages.retain(container, keep).await.map_err(|error| send::cause(&error))?;
            match origin {
                Some(from) => {
                    let source = self.source(from.container, from.snapshot);
                    let kept = self.lineages.keep(container, transfer, &source).await;
                    kept.map_err(|error| send::cause(&error))
                }
                None => {
                    let received = self.pull(&Incoming::of(spec, transfer, base)).await;
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
