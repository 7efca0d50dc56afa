//! The link to the control plane. The agent dials out; while the link is down everything goes on, and
//! what happens is journaled.
//!
//! [`supervisor`] keeps a session alive with jittered, growing pauses; [`session`] is one connection: the
//! hello, then commands, reports, measurements and heartbeats beside each other. [`bulk`] is a connection of its own,
//! for [`blobs`] and [`crate::transfer`], so that bulk cannot slow commands.

pub mod blobs;
pub mod bulk;
mod commands;
mod exec;
pub mod identity;
pub mod join;
mod logs;
mod renewal;
mod session;
mod supervisor;

pub use session::SessionWork;
pub use supervisor::{Link, LinkCloser, LinkState};

use hoody_protocol::transport;
use std::time::Duration;

/// The time to reach a control plane and finish the handshake.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// The time in which a refusal of the certificate arrives after the handshake.
const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// Why the control plane could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name does not resolve.
    #[error("resolve {address}")]
    Resolve {
        /// The control plane's address.
        address: String,
        /// What the resolver said.
        source: std::io::Error,
    },
    /// No local socket.
    #[error("open a socket")]
    Socket(#[source] std::io::Error),
    /// The address cannot be dialled.
    #[error("dial {address}")]
    Dial {
        /// The control plane's address.
        address: String,
        /// Why.
        source: quinn::ConnectError,
    },
    /// The handshake failed; a refusal of the certificate arrives here.
    #[error("connect to {address}")]
    Connect {
        /// The control plane's address.
        address: String,
        /// Why.
        source: quinn::ConnectionError,
    },
    /// No answer.
    #[error("no answer from {address} within {} s", DIAL_DEADLINE.as_secs())]
    Deadline {
        /// The control plane's address.
        address: String,
    },
    /// There is no address to try.
    #[error("no address of the control plane is known")]
    NoAddress,
}

/// Connects as the node would and hangs up; an error says why it could not link up. A certificate that
/// the control plane refuses is refused just after the handshake, so that is waited for.
pub async fn probe(
    node: &identity::NodeIdentity,
) -> Result<std::net::SocketAddr, Box<dyn std::error::Error + Send + Sync>> {
    let config = transport::client_config(Some(&node.identity), &node.authorities, transport::NODE)?;
    let (_, connection) = dial(&node.addresses, &config, transport::NODE).await?;
    if let Ok(closed) = tokio::time::timeout(REFUSAL_TIME, connection.closed()).await {
        return Err(closed.into());
    }
    let remote = connection.remote_address();
    transport::Close::Done.close(&connection);
    Ok(remote)
}

/// Connects to the first of `addresses` that answers, with this protocol. The endpoint lives as long as the connection.
async fn dial(
    addresses: &[String],
    config: &quinn::ClientConfig,
    alpn: &[u8],
) -> Result<(quinn::Endpoint, quinn::Connection), DialError> {
    let mut last = DialError::NoAddress;
    for address in addresses {
        match tokio::time::timeout(DIAL_DEADLINE, dial_one(address, config.clone(), alpn)).await {
            Ok(Ok(dialled)) => return Ok(dialled),
            Ok(Err(error)) => last = error,
            Err(_) => last = DialError::Deadline { address: address.clone() },
        }
    }
    Err(last)
}

async fn dial_one(
    address: &str,
    config: quinn::ClientConfig,
    alpn: &[u8],
) -> Result<(quinn::Endpoint, quinn::Connection), DialError> {
    let resolved = tokio::net::lookup_host(address).await;
    let mut resolved = resolved.map_err(|source| DialError::Resolve { address: address.to_owned(), source })?;
    let nothing = || std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    let remote =
        resolved.next().ok_or_else(|| DialError::Resolve { address: address.to_owned(), source: nothing() })?;
    let local = if remote.is_ipv4() {
        std::net::SocketAddr::from(([0, 0, 0, 0], 0))
    } else {
        std::net::SocketAddr::from(([0u16; 8], 0))
    };
    let endpoint = transport::dialler(local, alpn).map_err(DialError::Socket)?;
    let connecting = endpoint
        .connect_with(config, remote, hoody_protocol::transport::SERVER_NAME)
        .map_err(|source| DialError::Dial { address: address.to_owned(), source })?;
    let connection = connecting.await.map_err(|source| DialError::Connect { address: address.to_owned(), source })?;
    Ok((endpoint, connection))
}
