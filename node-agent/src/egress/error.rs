//! Errors of this capability.

/// The routing of captured packets could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// No socket to the kernel.
    #[error("open a route netlink socket")]
    Socket(#[source] std::io::Error),
    /// The kernel refused.
    #[error("{action}")]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: Box<rtnetlink::Error>,
    },
    /// The kernel did not answer in time.
    #[error("the kernel did not answer in time: route captured packets")]
    Deadline,
}
