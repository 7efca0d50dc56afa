//! The nodes' side: listener, enrolment, certificate authority, links, dispatch of specifications and
//! operations, and what came back.
//!
//! A server's link is with one replica; the others reach its node through that one ([`replicas`], [`route`]).
//!
//! Services never talk to a link, except for what is neither state nor operation: processes, terminals and logs of
//! clients ([`remote`]). They write to the store and [`Nodes::wake`] the server; the server's
//! dispatch task then re-reads from the store what the node does not have yet. What comes back is
//! written to the store and announced through [`Nodes::changes`].
//!
//! One task per connection owns everything of it; the listener's task owns those tasks. What a link needs
//! after a restart of either side is in the store, nothing in memory is missed.

pub mod authority;
mod blobs;
mod bulk;
mod changes;
mod commands;
mod dispatch;
mod enrol;
mod expected;
mod exports;
mod inspection;
mod known;
mod link;
mod listener;
mod measurements;
mod moves;
mod pace;
mod refusal;
mod registry;
pub mod remote;
mod replicas;
mod reports;
mod rotation;
mod route;
mod running;
#[cfg(test)]
pub mod simulated;
mod standing;
mod streams;
mod syncs;
mod transfers;
mod twin;
mod unknown;
mod watch;

pub use changes::Changes;
pub(crate) use enrol::secret_hash;
pub use exports::{Export, ExportError, NoExport};
pub use inspection::{Inspected, NoInspection};
pub use known::{Asked, Known};
pub use listener::{NodesError, NodesHandle, start};
pub use measurements::{Measured, Measurements};
pub use route::Reach;

use expected::Expected;
use hoody_protocol::{
    export::ExportOrder,
    id::{ContainerId, ExecutionId, ExportId, ServerId, TransferId},
    link::Heartbeat,
    tag::Message,
    transport::Close,
};
use registry::Registry;
use remote::{OpenError, RemoteStream};
use replicas::Replicas;
use transfers::{Ends, Offered};

/// Handle to everything about nodes. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Nodes {
    /// Announces stored changes of containers.
    pub changes: Changes,
    /// Announces stored changes of executions of commands.
    pub executions: Changes<ExecutionId>,
    /// The last measurements, in memory.
    pub measurements: Measurements,
    inspections: inspection::Inspections,
    transfers: running::Transfers,
    /// Transfers that other replicas pass on, whose sources are linked here.
    offers: Expected<TransferId, Offered>,
    exports: Expected<ExportId, Ends>,
    registry: Registry,
    replicas: Replicas,
}

impl Nodes {
    /// Tells the server's dispatch task, where this process has the link, that the store holds
    /// something new for it.
    pub fn wake(&self, server: ServerId) {
        self.registry.wake(server);
    }

    /// Tells the server's link, where this process has it, that one of its containers is to be synced.
    pub fn wake_for_syncs(&self, server: ServerId) {
        self.registry.wake_for_syncs(server);
    }

    /// Tells the server's link, where this process has it, that a container moves there, or no longer does.
    pub fn wake_for_moves(&self, server: ServerId) {
        self.registry.wake_for_moves(server);
    }

    /// True while this process has the server's link.
    pub fn is_linked(&self, server: ServerId) -> bool {
        self.registry.is_linked(server)
    }

    /// Closes every connection of a server that was revoked, disabled or deleted; the store must say so
    /// already, for the agent comes back at once. False where this process has none.
    pub fn close(&self, server: ServerId) -> bool {
        self.registry.close(server, Close::Revoked)
    }

    /// Tells the server's link, where this process has it, that an operator decided about containers that only
    /// its node knows.
    pub fn wake_for_decisions(&self, server: ServerId) {
        self.registry.wake_for_decisions(server);
    }

    /// Opens a stream to the server's node for a process, terminal or log, and asks for it.
    pub async fn open<Q: Message>(&self, server: ServerId, request: &Q) -> Result<RemoteStream, OpenError> {
        remote::open(self, server, request).await
    }

    /// What runs in a container of the server, as its node says now or said within the last two seconds.
    pub async fn inspect(&self, server: ServerId, container: ContainerId) -> Inspected {
        self.inspections.ask(self, server, container).await
    }

    /// Orders an archive of a container from the server's node.
    pub async fn export(&self, server: ServerId, order: &ExportOrder) -> Result<Export, NoExport> {
        exports::order(self, server, order).await
    }

    /// The last heartbeat of the server's link.
    pub fn heartbeat(&self, server: ServerId) -> Option<Heartbeat> {
        self.registry.heartbeat(server)
    }
}
