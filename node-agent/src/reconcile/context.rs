//! What every owner task shares.

use crate::{
    desired::{allocation::Allocation, journal::Journal, record::Records},
    egress::Egress,
    firewall::Firewall,
    images::Images,
    names::Names,
    network::Network,
    ramdisk::Ramdisks,
    runtime::Runtime,
    shares::Shares,
    storage::Storage,
    transfer::Transfers,
};
use std::{net::Ipv4Addr, sync::Arc, time::Duration};

/// The kernel-facing capabilities, each behind its trait.
#[derive(Debug, Clone)]
pub struct Capabilities {
    /// Images.
    pub images: Arc<dyn Images>,
    /// Root file systems.
    pub storage: Arc<dyn Storage>,
    /// Folders of other containers.
    pub shares: Arc<dyn Shares>,
    /// RAM disks.
    pub ramdisks: Arc<dyn Ramdisks>,
    /// Processes.
    pub runtime: Arc<dyn Runtime>,
    /// Links.
    pub network: Arc<dyn Network>,
    /// Packet filter.
    pub firewall: Arc<dyn Firewall>,
    /// Relaying of what the packet filter takes.
    pub egress: Arc<dyn Egress>,
    /// Host names in rules.
    pub names: Arc<dyn Names>,
    /// File systems from other servers.
    pub transfers: Arc<dyn Transfers>,
}

/// What reconciliation needs of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The kernel's boot id.
    pub boot_id: String,
    /// Name servers of containers whose specification names none.
    pub dns: Vec<Ipv4Addr>,
    /// The time a first process has to end before it is killed.
    pub stop_timeout: Duration,
    /// Pause between looks at a container that nothing happens to.
    pub drift_interval: Duration,
    /// Pause after the first failed pass; it doubles with each further one.
    pub retry_first: Duration,
    /// The longest pause after a failed pass.
    pub retry_longest: Duration,
}

#[derive(Debug)]
pub(super) struct Context {
    pub(super) settings: Settings,
    pub(super) capabilities: Capabilities,
    pub(super) records: Records,
    pub(super) allocation: Allocation,
    pub(super) journal: Journal,
}
