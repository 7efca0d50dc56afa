//! Why a server cannot take a container, in words for its owner.

const MIB: u64 = 1 << 20;

/// Why a server cannot take a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// No agent has enrolled yet.
    #[error("no agent has enrolled on it yet")]
    NotEnrolled,
    /// An operator took it out of service.
    #[error("it is out of service")]
    Disabled,
    /// Its containers are being moved to other servers.
    #[error("it is being emptied")]
    Draining,
    /// Its agent is not let in any more.
    #[error("it was revoked")]
    Revoked,
    /// Its node is not connected.
    #[error("it is offline")]
    Offline,
    /// The image is for other machines.
    #[error("the image is for {image}, the server is {server}")]
    Architecture {
        /// The image's architecture.
        image: String,
        /// The server's.
        server: String,
    },
    /// KVM is given on servers that one rents oneself.
    #[error("it is rented by somebody else, and KVM is only for who rents the server")]
    KvmNotOwned,
    /// It has no KVM.
    #[error("it has no KVM")]
    NoKvm,
    /// It has as many containers as it may have.
    #[error("it has as many containers as it may have")]
    Full,
    /// What its containers have written has filled its storage pool.
    #[error("its storage is full: delete snapshots, files or containers on it first")]
    PoolFull,
    /// Not enough memory.
    #[error("{wanted} MiB of memory are needed, {free} MiB are free", wanted = wanted / MIB, free = (*free as u64) / MIB)]
    Memory {
        /// Bytes free; not negative.
        free: i64,
        /// Bytes needed.
        wanted: u64,
    },
    /// Not enough processor time.
    #[error("{wanted} thousandths of a core are needed, {free} are free")]
    Cpu {
        /// Thousandths of a core free.
        free: i64,
        /// Thousandths of a core needed.
        wanted: u32,
    },
    /// Not enough disk.
    #[error("{wanted} MiB of disk are needed, {free} MiB are free", wanted = wanted / MIB, free = (*free as u64) / MIB)]
    Disk {
        /// Bytes free; not negative.
        free: i64,
        /// Bytes needed.
        wanted: u64,
    },
}
