//! The running agent: opens the capabilities, starts the owners of persisted containers, then the link.
//! Containers come back before, and without, the control plane.

use crate::{
    commands::{self, Commands},
    config::Config,
    desired::{DesiredError, allocation::Allocation, journal::Journal, record::Records},
    dial::DialPolicy,
    egress::{Egress, Relay},
    exec::{ExecLimits, Execs},
    facts,
    firewall::{Firewall, NftConfig, NftFirewall},
    images::{ImageConfig, ImageStore, collect},
    link::{Link, LinkCloser, LinkState, SessionWork, blobs::ControlPlaneBlobs, bulk::Bulk, identity::IdentityStore},
    logs::{self, Logs},
    names::{Ask, Resolver},
    network::{AddressPool, Network, RoutedVeth, RoutedVethConfig},
    ramdisk::HostRamdisks,
    reconcile::{Capabilities, Reconciler, Settings, View},
    runtime::{DiskRates, OciRuntime, RuntimeConfig},
    shares::HostShares,
    stats::{Sampler, Sources},
    storage::{BtrfsPool, Exports, Lineages, PoolConfig, QuotaMode, Storage},
    transfer::BulkTransfers,
};
use hoody_protocol::id::ContainerId;
use ipnet::Ipv4Net;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
};
use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{io::AsyncWriteExt, net::UnixListener};

/// Pauses between tries of a container that failed.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The time somebody who asks for the status has to read it.
const STATUS_DEADLINE: Duration = Duration::from_secs(5);
/// This program, which is the unpacker of images too; right also after the file was replaced by an upgrade.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// Random bytes that tell this process from every other agent.
const INSTANCE_BYTES: usize = 16;
/// Mode of folders that only root enters.
const PRIVATE: u32 = 0o700;
/// Mode of the run folder: a container's root, which is nobody on the server, passes through it to its
/// root file system and sees nothing else.
const PASSABLE: u32 = 0o711;

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A folder or file of the agent cannot be used.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another agent works with the same state.
    #[error("another agent runs with the state folder {}", .0.display())]
    AlreadyRunning(PathBuf),
    /// Persisted state cannot be used.
    #[error(transparent)]
    Desired(#[from] DesiredError),
    /// A capability cannot be opened.
    #[error("{what}; `hoody-agent doctor` says what is missing")]
    Capability {
        /// Which.
        what: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn capability<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> AgentError {
    move |error| AgentError::Capability { what, source: Box::new(error) }
}

/// The running agent.
#[derive(Debug)]
pub struct Agent {
    reconciler: Reconciler,
    journal: Journal,
    commands: Commands,
    link: Link,
    closer: Option<LinkCloser>,
    status: UnixListener,
    _only_one: File,
}

/// What `hoody-agent status` is told.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct StatusAnswer {
    /// The link.
    pub link: LinkState,
    /// Reports that the control plane does not have yet.
    pub unacknowledged: usize,
    /// Every container held.
    pub containers: Vec<(ContainerId, View)>,
}

/// Makes the agent's folders, readable for nobody else.
pub fn make_folders(config: &Config) -> Result<(), AgentError> {
    let folders = [
        (config.state_dir.clone(), PRIVATE),
        (config.run_dir.clone(), PASSABLE),
        (config.identity_dir(), PRIVATE),
        (config.containers_dir(), PRIVATE),
        (config.blobs_dir(), PRIVATE),
        (config.commands_dir(), PRIVATE),
    ];
    for (path, mode) in folders {
        let failed = |source| AgentError::Io { action: "make the folder", path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(mode).create(&path).map_err(failed)?;
        // It may have been there with other rights.
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(failed)?;
    }
    Ok(())
}

/// What each container may read and write, and on which disks.
fn disk_rates(config: &Config) -> Result<DiskRates, AgentError> {
    let (read, write) = (config.container_disk_read_mib_s << 20, config.container_disk_write_mib_s << 20);
    let devices = match crate::storage::devices(&config.pool) {
        Ok(devices) => devices,
        // Nothing is to be limited; what was limited before stays so until a restart.
        Err(error) if (read, write) == (0, 0) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "the pool's disks are not known");
            Vec::new()
        }
        Err(error) => return Err(capability("container_disk_read_mib_s and container_disk_write_mib_s")(error)),
    };
    Ok(DiskRates { devices, read_bytes: read, write_bytes: write })
}

/// The runtime of this configuration.
pub fn runtime(config: &Config) -> Result<OciRuntime, AgentError> {
    let runtime = RuntimeConfig {
        program: config.runtime.clone(),
        conmon: config.conmon.clone(),
        init: config.init.clone(),
        log_max_bytes: config.log_bytes_max,
        disk_rates: disk_rates(config)?,
        ..RuntimeConfig::new(config.run_dir.join("runtime"), config.logs_dir(), config.cgroup_path())
    };
    OciRuntime::new(runtime).map_err(capability("the container runtime cannot be used"))
}

impl Agent {
    /// Opens everything and starts the owners of persisted containers.
    pub async fn start(config: Config) -> Result<Self, AgentError> {
        make_folders(&config)?;
        let only_one = lock(&config.state_dir)?;
        crate::runtime::raise_shared_counts();
        let identity = IdentityStore::new(config.identity_dir());

        let network = RoutedVeth::new(RoutedVethConfig { gateway: config.gateway, mtu: config.mtu })
            .map_err(capability("the network settings cannot be used"))?;
        network.prepare().await.map_err(capability("the network cannot be prepared"))?;
        let firewall = NftConfig {
            table: config.nft_table.clone(),
            own_table: config.own_nft_table,
            closed_networks: config.closed_networks.iter().map(Ipv4Net::trunc).collect(),
            closed_endpoints: identity.control_planes().await,
            ..NftConfig::new(config.node_cidr)
        };
        let firewall = NftFirewall::open(firewall).map_err(capability("the firewall cannot be used"))?;
        firewall.prepare().await.map_err(capability("the firewall cannot be prepared"))?;
        let endpoints = identity.control_planes().await.into_iter().map(|endpoint| IpAddr::V4(*endpoint.ip()).into());
        let own = endpoints.chain([config.node_cidr.into(), Ipv4Net::from(config.gateway).into()]).collect();
        let dial = DialPolicy::open(config.allowed_networks_path(), own);
        let relay = Relay::start(config.proxy_socket.clone(), dial.clone());
        let firewall: Arc<dyn Firewall> = Arc::new(firewall);
        let names = Resolver::new(Ask::new(relay.clone()), dial.clone(), firewall.clone());
        relay.prepare().await.map_err(capability("the routing to the relay cannot be made"))?;
        let roots = config.run_dir.join("rootfs");
        let storage = PoolConfig { pool: config.pool.clone(), mounts: roots.clone(), quota: QuotaMode::Simple };
        let storage = BtrfsPool::open(storage).await.map_err(capability("the storage pool cannot be used"))?;
        let shares = HostShares::open(&config.pool, config.run_dir.join("shares"), roots);
        let shares = shares.await.map_err(capability("the folder of shares cannot be mounted"))?;
        let ramdisks = HostRamdisks::open(config.run_dir.join("ramdisks"), config.ramdisk_pool_mib << 20);
        let ramdisks = ramdisks.await.map_err(capability("the folder of RAM disks cannot be made"))?;
        let pool_bytes = storage.pool_usage().await.map_err(capability("the storage pool cannot be read"))?.total_bytes;
        let bulk = Bulk::start(identity.clone()).map_err(capability("a thread for bulk cannot be started"))?;
        let blobs = Arc::new(ControlPlaneBlobs::new(bulk.clone()));
        let lineages = Lineages::open(&config.pool, OWN_PROGRAM.into()).await;
        let lineages = lineages.map_err(capability("what copies are based on cannot be read"))?;
        let exports = Exports::open(&config.pool).await.map_err(capability("what is exported cannot be kept"))?;
        let transfers = BulkTransfers::new(lineages, exports, bulk, &config.pool);
        let images = ImageConfig {
            reserve_bytes: config.pool_reserve_bytes,
            keep: Duration::from_secs(config.image_keep_hours * 3600),
            ..ImageConfig::new(config.pool.clone(), config.blobs_dir(), OWN_PROGRAM.into())
        };
        let images = ImageStore::open(images, blobs).await.map_err(capability("the image store cannot be used"))?;
        let runtime = runtime(&config)?;
        let swept = runtime.sweep_execs().await.map_err(capability("processes of clients cannot be ended"))?;
        if swept > 0 {
            tracing::warn!(swept, "processes that clients had started with an agent before this one were ended");
        }
        let logs = Logs::new(config.logs_dir());
        let limits = ExecLimits {
            terminal_idle: Duration::from_secs(config.terminal_idle_s),
            terminal_age: Duration::from_secs(config.terminal_age_s),
            ..ExecLimits::default()
        };
        let runtime = Arc::new(runtime);
        let execs = Execs::new(runtime.clone(), limits);
        let pool = AddressPool::new(config.node_cidr).map_err(capability("node_cidr cannot be used"))?;
        let allocation = Allocation::new(pool, config.first_id);
        // What processes and links hold is not given to others, whether their record can be read or not.
        for (id, ids) in runtime.held_ids().await.map_err(capability("containers' processes cannot be listed"))? {
            allocation.reserve(id, None, Some(ids));
        }
        for (id, address) in network.held_addresses().await.map_err(capability("the links cannot be listed"))? {
            allocation.reserve(id, Some(address), None);
        }
        let capabilities = Capabilities {
            images: Arc::new(images),
            storage: Arc::new(storage),
            shares: Arc::new(shares),
            ramdisks: Arc::new(ramdisks),
            runtime,
            network: Arc::new(network),
            firewall,
            egress: Arc::new(relay),
            names: Arc::new(names),
            transfers: Arc::new(transfers.clone()),
        };

        let boot_id = facts::boot_id().map_err(capability("the kernel's boot id cannot be read"))?.to_string();
        let settings = Settings {
            boot_id: boot_id.clone(),
            dns: config.dns.clone(),
            stop_timeout: Duration::from_secs(config.stop_timeout_s),
            drift_interval: Duration::from_secs(config.drift_interval_s),
            retry_first: RETRY.0,
            retry_longest: RETRY.1,
        };
        let journal = Journal::open(&config.journal_path())?;
        hoody_fault::point!("journal.opened");
        let commands = commands::Settings {
            folder: config.commands_dir(),
            policy: config.commands_policy.clone(),
            cgroup: config.commands_cgroup(),
            boot_id: boot_id.clone(),
            pool: config.pool.clone(),
        };
        let commands = Commands::open(commands).await.map_err(capability("commands on the server cannot be run"))?;
        let records = Records::new(config.containers_dir());
        let reconciler = Reconciler::start(settings, capabilities.clone(), records, allocation, journal.clone())?;
        hoody_fault::point!("agent.adopted");
        report_unknown(&capabilities, &reconciler).await;
        capabilities.egress.retain(reconciler.views().into_iter().map(|(id, _)| id).collect()).await;
        let named = reconciler.clone();
        tokio::spawn(collect::run(capabilities.images.clone(), move || named.trees()));

        let sampler = Sampler::new(Sources {
            runtime: capabilities.runtime.clone(),
            storage: capabilities.storage.clone(),
            ramdisks: capabilities.ramdisks.clone(),
            network: capabilities.network.clone(),
            firewall: capabilities.firewall.clone(),
        });
        let facts = facts::gather(pool_bytes).map_err(capability("the server's facts cannot be read"))?;
        let work = SessionWork {
            reconciler: reconciler.clone(),
            journal: journal.clone(),
            commands: commands.clone(),
            sampler,
            execs,
            logs: logs.clone(),
            dial,
            transfers,
            facts,
            boot_id,
            instance: hex::encode(rand::random::<[u8; INSTANCE_BYTES]>()),
        };
        tokio::spawn(async move {
            let error = logs::keep(logs).await;
            tracing::error!(error = &error as &dyn std::error::Error, "previous parts of logs are no longer kept");
        });
        let (link, closer) = Link::new(identity, work, capabilities.firewall.clone());
        let status = listen(&config.status_socket())?;
        Ok(Self { reconciler, journal, commands, link, closer: Some(closer), status, _only_one: only_one })
    }

    /// What ends the link in order; `None` the second time.
    pub fn link_closer(&mut self) -> Option<LinkCloser> {
        self.closer.take()
    }

    /// Commands on the server itself.
    pub fn commands(&self) -> Commands {
        self.commands.clone()
    }

    /// Keeps the link up and answers `status`; returns only where it cannot go on.
    pub async fn run(self) -> Box<dyn std::error::Error + Send + Sync> {
        let link = self.link.state();
        tokio::spawn(self.link.run());
        loop {
            let mut stream = match self.status.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => return error.into(),
            };
            let answer = StatusAnswer {
                link: link.borrow().clone(),
                unacknowledged: self.journal.unacknowledged(),
                containers: self.reconciler.views(),
            };
            let answer = serde_json::to_vec(&answer).expect("plain data always encodes");
            tokio::spawn(async move {
                // Somebody who does not read gets nothing.
                let _ = tokio::time::timeout(STATUS_DEADLINE, stream.write_all(&answer)).await;
            });
        }
    }
}

/// Reports what is on the node without a record. It is kept: nothing is destroyed on doubt.
async fn report_unknown(capabilities: &Capabilities, reconciler: &Reconciler) {
    let known = |id: &ContainerId| reconciler.views().iter().any(|(known, _)| known == id);
    let inventories = [
        (
            "root file system",
            capabilities.storage.inventory().await.map_err(Box::<dyn std::error::Error + Send + Sync>::from),
        ),
        ("processes", capabilities.runtime.inventory().await.map_err(Box::<dyn std::error::Error + Send + Sync>::from)),
        (
            "firewall chains",
            capabilities.firewall.inventory().await.map_err(Box::<dyn std::error::Error + Send + Sync>::from),
        ),
    ];
    for (what, ids) in inventories {
        let ids = ids.unwrap_or_else(|error| {
            tracing::warn!(
                what,
                error = error.as_ref() as &dyn std::error::Error,
                "what is on this server was not read"
            );
            Vec::new()
        });
        for id in ids.iter().filter(|id| !known(id)) {
            tracing::warn!(container = %id, what, "found on this server without a record; it is kept");
        }
    }
}

/// Held as long as the file is open. It must be opened nowhere else: closing any descriptor of it lets go.
fn lock(state_dir: &Path) -> Result<File, AgentError> {
    let path = state_dir.join("lock");
    let failed = |source| AgentError::Io { action: "open", path: path.clone(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    // A record lock belongs to the process. A flock belongs to the open file, which programs that are just being
    // started share until they exec: killed at such a moment, an agent could not be started again at once.
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(&file, FcntlArg::F_SETLK(&whole)) {
        Ok(_) => Ok(file),
        Err(Errno::EACCES | Errno::EAGAIN) => Err(AgentError::AlreadyRunning(state_dir.to_owned())),
        Err(error) => Err(AgentError::Io { action: "lock", path, source: error.into() }),
    }
}

fn listen(path: &Path) -> Result<UnixListener, AgentError> {
    let failed = |action| move |source| AgentError::Io { action, path: path.to_owned(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed("replace")(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed("listen on"))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed("close to others"))?;
    Ok(listener)
}
