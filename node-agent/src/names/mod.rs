//! Host names in containers' rules: resolved, and again before the answer is too old, and given to the packet filter.
//!
//! Asked are the name servers of the container: through its proxy where it has one, otherwise by the agent itself, from
//! the server's own network. Never from within the container's network, where a container could answer for them.

mod ask;
mod resolver;
mod schedule;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]
mod tests;

pub use ask::Ask;
pub use resolver::Resolver;

use async_trait::async_trait;
use hoody_protocol::{egress::Upstream, id::ContainerId};
use std::{collections::BTreeSet, net::Ipv4Addr};

/// How the names of a container are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// By these servers.
    Direct(Vec<Ipv4Addr>),
    /// Through the container's proxy: by the servers that go with it, or this one where there are none.
    Proxy(Box<Upstream>, Option<Ipv4Addr>),
}

/// The resolving of names. Calls are idempotent.
#[async_trait]
pub trait Names: Send + Sync + std::fmt::Debug {
    /// Keeps these names resolved for the container from now on, and no others. Waits a moment for the first answers of
    /// new ones, so that who is told of a rule finds it in force.
    async fn set(&self, id: ContainerId, hosts: BTreeSet<String>, path: Path);
}
