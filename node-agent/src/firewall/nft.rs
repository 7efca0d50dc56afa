//! [`Firewall`] over nf_tables.
//!
//! [`NftFirewall`] is the face: it hands each call to the [`Worker`], one at a time, on a thread where
//! waiting for the kernel blocks nobody. The worker's sockets belong to the network namespace of the
//! thread that called [`NftFirewall::open`].

use super::{
    Answer, Firewall, FirewallError, Policy,
    watch::Watch,
    worker::{ForeignChain, Worker},
};
use async_trait::async_trait;
use hoody_protocol::{firewall::RuleCounter, id::ContainerId};
use ipnet::Ipv4Net;
use std::{
    io,
    net::SocketAddrV4,
    os::fd::AsRawFd,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::io::{Interest, unix::AsyncFd};

/// The table's name where the configuration gives no other.
pub const DEFAULT_TABLE: &str = "hoody";
/// Connections that one container may have at a time where the configuration gives no other number.
pub const DEFAULT_CONNECTIONS_PER_CONTAINER: u32 = 4096;
/// Characters of a table's name.
const TABLE_NAME_CHARS: usize = 32;

/// What the firewall is told at start.
#[derive(Debug, Clone)]
pub struct NftConfig {
    /// Name of the table in the `inet` family; everything in it is ours.
    pub table: String,
    /// The table belongs to this process alone where the kernel can do so (Linux 6.9): others, `nft flush ruleset`
    /// among them, cannot change it, and it outlives the process.
    pub own_table: bool,
    /// The containers' network on this node: addresses of containers are in it, what leaves it is
    /// masqueraded.
    pub network: Ipv4Net,
    /// Connections that one container may have at a time, in both directions together. A container that
    /// has connections while this changes keeps the old limit until they have ended.
    pub connections_per_container: u32,
    /// Networks outside that no container reaches, whatever its rules: metadata services of clouds. Link-local
    /// addresses are closed always.
    pub closed_networks: Vec<Ipv4Net>,
    /// UDP endpoints that no container reaches: where control planes await nodes.
    pub closed_endpoints: Vec<SocketAddrV4>,
}

impl NftConfig {
    /// The defaults, for this network of containers.
    pub fn new(network: Ipv4Net) -> Self {
        Self {
            table: DEFAULT_TABLE.to_owned(),
            own_table: true,
            network: network.trunc(),
            connections_per_container: DEFAULT_CONNECTIONS_PER_CONTAINER,
            closed_networks: Vec::new(),
            closed_endpoints: Vec::new(),
        }
    }

    fn check(&self) -> Result<(), FirewallError> {
        let failed = |reason: String| Err(FirewallError::Configuration { reason });
        let well_formed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if self.table.is_empty() || self.table.len() > TABLE_NAME_CHARS || !self.table.bytes().all(well_formed) {
            return failed(format!("table name {:?}: 1 to {TABLE_NAME_CHARS} of a-z, 0-9 and _", self.table));
        }
        if self.network.addr() != self.network.network() {
            return failed(format!("network {}: has bits beyond its prefix", self.network));
        }
        if self.network.prefix_len() == 0 {
            return failed("network 0.0.0.0/0: nothing would be outside".to_owned());
        }
        if self.connections_per_container == 0 {
            return failed("connections per container: at least 1".to_owned());
        }
        Ok(())
    }
}

/// The node's packet filter in the kernel's nf_tables.
#[derive(Debug, Clone)]
pub struct NftFirewall {
    worker: Arc<Mutex<Worker>>,
    watch: Arc<tokio::sync::Mutex<Watch>>,
}

impl NftFirewall {
    /// Opens the sockets in the calling thread's network namespace; changes nothing yet.
    pub fn open(config: NftConfig) -> Result<Self, FirewallError> {
        config.check()?;
        let table = config.table.clone();
        let worker = Worker::open(config)?;
        let watch = Watch::open(&table, worker.port())?;
        Ok(Self { worker: Arc::new(Mutex::new(worker)), watch: Arc::new(tokio::sync::Mutex::new(watch)) })
    }

    /// Chains of other tables that drop what they do not explicitly let pass, and so may drop
    /// containers' traffic before or after ours was asked.
    pub async fn foreign_drops(&self) -> Result<Vec<ForeignChain>, FirewallError> {
        self.run(Worker::foreign_drops).await
    }

    async fn next_change(&self) -> io::Result<()> {
        let mut watch = self.watch.lock().await;
        // SAFETY: the socket stays open as long as `watch`, which was taken before and goes after.
        let readable = unsafe { AsyncFd::register_with_interest(watch.as_raw_fd(), Interest::READABLE) }?;
        loop {
            if watch.read()? {
                return Ok(());
            }
            readable.readable().await?.clear_ready();
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut Worker) -> Result<T, FirewallError> + Send + 'static,
    ) -> Result<T, FirewallError> {
        let worker = self.worker.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut worker = worker.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
                // A call that panicked may have left the worker's picture of the kernel half updated.
                let mut worker = poisoned.into_inner();
                worker.forget();
                worker
            });
            call(&mut worker)
        });
        task.await.map_err(|source| FirewallError::Worker { source })?
    }
}

#[async_trait]
impl Firewall for NftFirewall {
    async fn prepare(&self) -> Result<(), FirewallError> {
        self.run(Worker::prepare).await
    }

    async fn is_prepared(&self) -> Result<bool, FirewallError> {
        self.run(Worker::is_prepared).await
    }

    async fn close_endpoints(&self, endpoints: Vec<SocketAddrV4>) -> Result<(), FirewallError> {
        self.run(move |worker| worker.close_endpoints(endpoints)).await
    }

    async fn changed(&self) {
        if let Err(error) = self.next_change().await {
            // The table is looked at now and then all the same.
            tracing::warn!(%error, "the kernel's news about the firewall cannot be read");
            std::future::pending().await
        }
    }

    async fn apply(&self, policy: &Policy) -> Result<(), FirewallError> {
        let policy = policy.clone();
        self.run(move |worker| worker.apply(&policy)).await
    }

    async fn is_applied(&self, id: ContainerId) -> Result<bool, FirewallError> {
        self.run(move |worker| worker.is_applied(id)).await
    }

    async fn remove(&self, id: ContainerId) -> Result<(), FirewallError> {
        self.run(move |worker| worker.remove(id)).await
    }

    async fn resolved(&self, id: ContainerId, host: &str, answer: Answer) -> Result<(), FirewallError> {
        let host = host.to_owned();
        self.run(move |worker| worker.resolved(id, &host, &answer)).await
    }

    async fn counters(&self, id: ContainerId) -> Result<Vec<RuleCounter>, FirewallError> {
        self.run(move |worker| worker.counters(id)).await
    }

    async fn inventory(&self) -> Result<Vec<ContainerId>, FirewallError> {
        self.run(Worker::inventory).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_cannot_work_is_refused() {
        let good = NftConfig::new("10.64.0.0/16".parse().unwrap());
        assert!(good.check().is_ok());
        let bad = [
            NftConfig { table: String::new(), ..good.clone() },
            NftConfig { table: "a b".to_owned(), ..good.clone() },
            NftConfig { network: "10.64.0.1/16".parse().unwrap(), ..good.clone() },
            NftConfig { network: "0.0.0.0/0".parse().unwrap(), ..good.clone() },
            NftConfig { connections_per_container: 0, ..good },
        ];
        for config in bad {
            assert!(matches!(config.check(), Err(FirewallError::Configuration { .. })), "{config:?}");
        }
    }
}
