//! Egress through a proxy: what the packet filter takes from a container ([`crate::firewall::Egress::Proxy`]) is
//! routed to transparent sockets, which the relay program beside the agent (`hoody-proxy`) serves.
//!
//! The agent makes the sockets, because only it may, and hands them over with the container's upstream. It keeps
//! none: where the relay ends, its sockets end with it, and the packet filter drops what finds none. So nothing
//! leaves a container while its relay is away, and the relay goes on while the agent is.

mod error;
mod relay;
mod relayed;
mod routing;

pub use error::EgressError;
pub use relay::Relay;

use async_trait::async_trait;
use hoody_protocol::{
    egress::{EgressStatus, Upstream},
    id::ContainerId,
};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
};

/// Port of every container's listeners, on an address of its own.
const LISTENER_PORT: u16 = 20_129;

/// Where the listeners of the container with this address are: its address within the loopback network. It is the
/// same whichever process of the agent asks, so that what an earlier one handed over goes on.
pub fn listener_address(container: Ipv4Addr) -> SocketAddrV4 {
    let [_, a, b, c] = container.octets();
    SocketAddrV4::new(Ipv4Addr::new(127, a, b, c), LISTENER_PORT)
}

/// The relaying of containers' egress. Calls are idempotent.
#[async_trait]
pub trait Egress: Send + Sync + std::fmt::Debug {
    /// Routes packets that the packet filter has taken to this host's own sockets. At start, and to repair.
    async fn prepare(&self) -> Result<(), EgressError>;
    /// Relays the container's egress through `upstream`; `None`: not any more. What the relay cannot take now it is
    /// given later; [`Egress::status`] says how it is.
    async fn set(&self, id: ContainerId, address: Ipv4Addr, upstream: Option<&Upstream>);
    /// How the relaying of the container fares; `None` where none is asked for.
    fn status(&self, id: ContainerId) -> Option<EgressStatus>;
    /// Waits until the status of a container has changed and gives it. For one caller.
    async fn changed(&self) -> ContainerId;
    /// Ends the relaying of every container that is not `known`: what an agent that was killed has left.
    async fn retain(&self, known: BTreeSet<ContainerId>);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_of_one_network_have_listeners_of_their_own() {
        let at = |address: [u8; 4]| listener_address(address.into());
        assert_eq!(at([10, 88, 3, 7]), SocketAddrV4::new(Ipv4Addr::new(127, 88, 3, 7), LISTENER_PORT));
        assert_ne!(at([10, 88, 3, 7]), at([10, 88, 4, 7]));
    }
}
