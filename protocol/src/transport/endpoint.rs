//! The control plane's socket, and an agent's. The control plane's connection ids and reset tokens come from a secret that outlives the
//! process: a node whose packet reaches a process that does not know its connection is told so at once
//! (a stateless reset, RFC 9000 section 10.3), and does not have to wait for the idle timeout.

use super::{BULK, quic::LARGEST_PACKET, socket};
use aws_lc_rs::hmac;
use nix::sys::socket::{setsockopt, sockopt};
use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use quinn_proto::HashedConnectionIdGenerator;
use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

/// Bytes of the secret behind connection ids and reset tokens.
pub const RESET_SECRET_BYTES: usize = 40;
/// Those of them that are behind connection ids.
const ID_KEY_BYTES: usize = 8;

/// What the listener's socket holds while we are busy: some thousand first packets of agents that all come
/// back at once. With the kernel's default it is less than a hundred, and each one lost costs its agent a
/// second or more.
const LISTENER_BUFFER_BYTES: usize = 16 << 20;
/// What an agent's socket holds while others have the processor: what may be on its way of a transfer, with what the kernel
/// counts for each packet. What is lost is sent again, and slower.
const DIALLER_BUFFER_BYTES: usize = 16 << 20;

/// Listens on `address`.
pub fn listen(address: SocketAddr, config: ServerConfig, secret: &[u8; RESET_SECRET_BYTES]) -> io::Result<Endpoint> {
    let mut id_key = [0; ID_KEY_BYTES];
    id_key.copy_from_slice(&secret[..ID_KEY_BYTES]);
    let id_key = u64::from_be_bytes(id_key);
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &secret[ID_KEY_BYTES..]);
    let mut endpoint = EndpointConfig::new(Arc::new(reset_key));
    endpoint.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    open(address, LISTENER_BUFFER_BYTES, largest_packets(endpoint)?, Some(config))
}

/// A socket to dial from, at `address`, for connections with this protocol. Its packets are read where it is made.
pub fn dialler(address: SocketAddr, alpn: &[u8]) -> io::Result<Endpoint> {
    let endpoint = EndpointConfig::default();
    let endpoint = if alpn == BULK { largest_packets(endpoint)? } else { endpoint };
    open(address, DIALLER_BUFFER_BYTES, endpoint, None)
}

fn largest_packets(mut endpoint: EndpointConfig) -> io::Result<EndpointConfig> {
    endpoint.max_udp_payload_size(LARGEST_PACKET).map_err(io::Error::other)?;
    Ok(endpoint)
}

fn open(
    address: SocketAddr,
    buffer_bytes: usize,
    endpoint: EndpointConfig,
    server: Option<ServerConfig>,
) -> io::Result<Endpoint> {
    let socket = UdpSocket::bind(address)?;
    enlarge_receive_buffer(&socket, buffer_bytes)?;
    let socket = socket::wrap(socket, endpoint.get_max_udp_payload_size())?;
    Endpoint::new_with_abstract_socket(endpoint, server, socket, Arc::new(TokioRuntime))
}

/// Beyond net.core.rmem_max where we may (CAP_NET_ADMIN), up to it otherwise.
fn enlarge_receive_buffer(socket: &UdpSocket, bytes: usize) -> io::Result<()> {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_ok() {
        return Ok(());
    }
    Ok(setsockopt(socket, sockopt::RcvBuf, &bytes)?)
}
