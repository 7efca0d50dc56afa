//! The sockets that only the agent can open: it has `CAP_NET_ADMIN`, the proxy has nothing.

use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
};

/// Connections that wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Where reply sockets are bound. Nothing is sent from it and nobody knows it: each answer names its own source.
pub const REPLY_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 90, 83, 1);
/// Reply sockets are never read; the kernel keeps as little as it can.
const REPLY_RECEIVE_BYTES: usize = 1;

/// A container's listeners: sockets on one address to which the packet filter's `tproxy` directs what the container
/// sends.
#[derive(Debug)]
pub struct Listeners {
    /// A TCP socket that listens.
    pub tcp: OwnedFd,
    /// A UDP socket.
    pub udp: OwnedFd,
}

/// Opens both listeners of a container on `address` (a loopback address and a port of its own; port 0 takes a free
/// one). Needs `CAP_NET_ADMIN`. The sockets belong to the network namespace of the calling thread.
pub fn open_listeners(address: SocketAddrV4) -> io::Result<Listeners> {
    let tcp = transparent(Type::STREAM, Protocol::TCP)?;
    tcp.bind(&address.into())?;
    tcp.listen(BACKLOG)?;
    let bound = tcp.local_addr()?;
    let udp = transparent(Type::DGRAM, Protocol::UDP)?;
    udp.bind(&bound)?;
    Ok(Listeners { tcp: tcp.into(), udp: udp.into() })
}

/// Opens a socket whose packets leave from `port` and from any address that a packet's `IP_PKTINFO` names. Needs
/// `CAP_NET_ADMIN`, and `CAP_NET_BIND_SERVICE` for ports below 1024.
pub fn open_reply_socket(port: u16) -> io::Result<OwnedFd> {
    let socket = transparent(Type::DGRAM, Protocol::UDP)?;
    socket.set_recv_buffer_size(REPLY_RECEIVE_BYTES)?;
    socket.bind(&SocketAddrV4::new(REPLY_ADDRESS, port).into())?;
    Ok(socket.into())
}

fn transparent(kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_ip_transparent_v4(true)?;
    Ok(socket)
}
