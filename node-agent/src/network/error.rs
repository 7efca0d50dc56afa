//! What can go wrong here.

use hoody_protocol::id::ContainerId;
use std::{io, net::Ipv4Addr, path::PathBuf};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A file or folder operation failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried, for example "open".
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refused a route netlink request.
    #[error("{action} of {interface}")]
    Kernel {
        /// What was tried, for example "set link".
        action: &'static str,
        /// On which interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// No netlink socket.
    #[error("open a netlink socket for {interface}")]
    Socket {
        /// The interface it was meant for.
        interface: String,
        /// What the system said.
        source: io::Error,
    },
    /// The netlink socket broke before the kernel acknowledged the request.
    #[error("netlink connection lost during {action} of {interface}")]
    ConnectionLost {
        /// What was tried.
        action: &'static str,
        /// On which interface.
        interface: String,
    },
    /// The kernel's list changed while it was read, every time it was tried.
    #[error("{action} was interrupted again and again")]
    Interrupted {
        /// What was tried.
        action: &'static str,
    },
    /// Not done in time; calling again continues.
    #[error("{action} of {interface} took too long")]
    Deadline {
        /// What was tried.
        action: &'static str,
        /// On which interface.
        interface: String,
    },
    /// The kernel says that it was made, and does not show it.
    #[error("{interface} vanished while it was attached")]
    Vanished {
        /// The interface.
        interface: String,
    },
    /// The process is gone, or is none of ours.
    #[error("open the network namespace of process {pid}")]
    OpenNamespace {
        /// The process.
        pid: i32,
        /// What the system said.
        source: io::Error,
    },
    /// The process lives in the node's own network namespace: configuring that would cut the node off.
    #[error("process {pid} has no network namespace of its own")]
    NodeNamespace {
        /// The process.
        pid: i32,
    },
    /// The kernel refused to let a thread in.
    #[error("enter the network namespace of process {pid}")]
    EnterNamespace {
        /// The process.
        pid: i32,
        /// What the system said.
        source: io::Error,
    },
    /// No thread for work in a namespace.
    #[error("start a thread for {interface}")]
    Thread {
        /// The interface it was meant for.
        interface: String,
        /// What the system said.
        source: io::Error,
    },
    /// An interface of that name exists and is not a veth: it is not ours, and is left alone.
    #[error("{interface} exists and is not a veth")]
    NotVeth {
        /// The interface.
        interface: String,
    },
    /// The interface belongs to another container whose id ends alike.
    #[error("{interface} belongs to container {holder}")]
    NameTaken {
        /// The interface.
        interface: String,
        /// Whose it is.
        holder: ContainerId,
    },
    /// The gateway cannot be one.
    #[error("{0} cannot be a gateway address")]
    InvalidGateway(Ipv4Addr),
    /// The MTU is out of range.
    #[error("an MTU of {0} bytes is out of range")]
    InvalidMtu(u32),
    /// The address cannot be a container's.
    #[error("{0} cannot be a container's address")]
    InvalidAddress(Ipv4Addr),
}

impl NetworkError {
    /// True where the kernel answered with this error number.
    pub(super) fn is_errno(&self, errno: i32) -> bool {
        matches!(self, Self::Kernel { source, .. } if source.raw_os_error() == Some(errno))
    }
}
