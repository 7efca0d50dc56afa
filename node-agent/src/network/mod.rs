//! Network: one routed veth pair per container, no bridge, no ARP.

mod error;

pub use error::NetworkError;

use async_trait::async_trait;
use hoody_protocol::{id::ContainerId, stats::NetworkStats};
use std::net::Ipv4Addr;

/// The host side's interface name: `hy` and 12 characters derived from the container's id, within the
/// kernel's 15.
pub fn host_interface(id: ContainerId) -> String {
    // The first 4 bytes are a time; the last 6 are random.
    format!("hy{}", &id.to_string()[12..])
}

/// Links of containers. Calls are idempotent; what is already so counts as success.
#[async_trait]
pub trait Network: Send + Sync + std::fmt::Debug {
    /// Prepares the node: forwarding on, the namespace-wide settings. Called once at start.
    async fn prepare(&self) -> Result<(), NetworkError>;
    /// Gives the container of process `pid` its interface `eth0` with `address`, a default route and
    /// permanent neighbour entries; the host side gets the route back. The link is up on return, so the
    /// firewall must stand before.
    async fn attach(&self, id: ContainerId, pid: i32, address: Ipv4Addr) -> Result<(), NetworkError>;
    /// True where the link and its host route stand as `attach` leaves them.
    async fn is_attached(&self, id: ContainerId, address: Ipv4Addr) -> Result<bool, NetworkError>;
    /// Removes the link, its routes and neighbour entries; success where there is none.
    async fn detach(&self, id: ContainerId) -> Result<(), NetworkError>;
    /// Counters, seen from inside; `None` where there is no link.
    async fn stats(&self, id: ContainerId) -> Result<Option<NetworkStats>, NetworkError>;
    /// Host interface names that look like ours, for finding leftovers.
    async fn inventory(&self) -> Result<Vec<String>, NetworkError>;
}
