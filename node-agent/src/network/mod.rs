//! Network: one routed veth pair per container, no bridge, no ARP.
//!
//! A container has a single address, alone on its network, and reaches everything over a gateway
//! address that no interface holds. Both ends of its link know the other's hardware address by a
//! permanent neighbour entry, so nobody ever asks and nobody can answer falsely. [`RoutedVeth`] keeps
//! no state: names, hardware addresses and the owner's mark on the link are derived from the
//! container's id, and the kernel is asked for the rest.

mod address;
mod error;
mod identity;
mod link;
mod namespace;
mod netlink;
mod rate;
mod route;
mod sysctl;
mod veth;

pub use address::{AddressError, AddressPool};
pub use error::NetworkError;
pub use identity::{CONTAINER_INTERFACE, container_mac, host_interface, host_mac, is_host_interface};
pub use veth::{RoutedVeth, RoutedVethConfig};

use async_trait::async_trait;
use hoody_protocol::{id::ContainerId, stats::NetworkStats};
use std::net::Ipv4Addr;

/// Links of containers. Calls are idempotent; what is already so counts as success.
#[async_trait]
pub trait Network: Send + Sync + std::fmt::Debug {
    /// Prepares the node: forwarding on, the namespace-wide settings. Called once at start.
    async fn prepare(&self) -> Result<(), NetworkError>;
    /// Gives the container of process `pid` its interface `eth0` with `address`, a default route and
    /// permanent neighbour entries; the host side gets the route back. The link is up on return, so the
    /// firewall must stand before.
    async fn attach(&self, id: ContainerId, pid: i32, address: Ipv4Addr) -> Result<(), NetworkError>;
    /// Limits what the attached link passes in each direction to `mbit` megabits per second; `None`: no
    /// limit. What passes meanwhile goes on.
    async fn limit_rate(&self, id: ContainerId, pid: i32, mbit: Option<u32>) -> Result<(), NetworkError>;
    /// True where both ends of the link limit what they send to this rate, as `limit_rate` leaves them.
    async fn is_rate_limited(&self, id: ContainerId, pid: i32, mbit: u32) -> Result<bool, NetworkError>;
    /// True where both ends of the link of process `pid`, its addresses, neighbours and routes stand as `attach`
    /// leaves them.
    async fn is_attached(&self, id: ContainerId, pid: i32, address: Ipv4Addr) -> Result<bool, NetworkError>;
    /// Removes the link, its routes and neighbour entries; success where there is none.
    async fn detach(&self, id: ContainerId) -> Result<(), NetworkError>;
    /// Counters, seen from inside; `None` where there is no link.
    async fn stats(&self, id: ContainerId) -> Result<Option<NetworkStats>, NetworkError>;
    /// Host interface names that look like ours, for finding leftovers.
    async fn inventory(&self) -> Result<Vec<String>, NetworkError>;
}
