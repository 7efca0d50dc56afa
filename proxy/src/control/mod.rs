//! What the agent and the proxy say to each other, and the agent's side of it.
//!
//! They speak over a unix socket of the kind SEQPACKET: a packet is a message (CBOR, at most
//! [`message::MAX_MESSAGE_BYTES`]), and descriptors travel with the packet that they belong to. The agent opens the
//! sockets, because only it may: listeners that take connections meant for others (`IP_TRANSPARENT`), and sockets
//! from which answers leave with the source that the container asked ([`socket`]).
//!
//! The proxy keeps what it was told as long as it runs. An agent that comes back connects, asks for the list, and
//! changes what differs. A proxy that comes back knows nothing: the agent's connection ends, and it sets everything
//! again, with new listeners.

mod changes;
pub mod client;
pub mod message;
mod packet;
pub mod policy;
mod queries;
pub(crate) mod server;
pub mod socket;
pub mod status;

pub use client::{Client, ControlError, Events};
pub use policy::{Credentials, Egress, Policy, Secret, Upstream, UpstreamKind};
pub use socket::{Listeners, open_listeners};
pub use status::{Cause, Counters, Health, Status};
