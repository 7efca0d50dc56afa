//! Packets with the addresses that they were sent to, and from.

use nix::{
    cmsg_space,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt,
        sockopt::Ipv4OrigDstAddr,
    },
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    net::SocketAddrV4,
    os::fd::{AsFd, AsRawFd},
};
use tokio::{io::Interest, net::UdpSocket};

/// A packet; its content is in the buffer it was read into.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) from: SocketAddrV4,
    pub(super) to: SocketAddrV4,
    pub(super) length: usize,
}

pub(super) fn tell_destination(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, Ipv4OrigDstAddr, &true)?)
}

/// The next packet; `None` for one whose addresses are not known.
pub(super) async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<Packet>> {
    socket
        .async_io(Interest::READABLE, || {
            let mut control = cmsg_space!(libc::sockaddr_in);
            let mut content = [IoSliceMut::new(&mut *buffer)];
            let received =
                recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut content, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
            let to = received.cmsgs()?.find_map(|message| match message {
                ControlMessageOwned::Ipv4OrigDstAddr(address) => Some(SocketAddrV4::from(SockaddrIn::from(address))),
                _ => None,
            });
            let from = received.address.map(SocketAddrV4::from);
            let length = received.bytes;
            Ok(from.zip(to).map(|(from, to)| Packet { from, to, length }))
        })
        .await
}

/// Sends a packet whose source is `from`'s address and the port that the socket is bound to. False where the kernel
/// has no room for it now.
pub(super) fn send_from(socket: &UdpSocket, from: SocketAddrV4, to: SocketAddrV4, content: &[u8]) -> io::Result<bool> {
    let source = libc::in_addr { s_addr: u32::from_ne_bytes(from.ip().octets()) };
    let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: libc::in_addr { s_addr: 0 } };
    let sent = sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(content)],
        &[ControlMessage::Ipv4PacketInfo(&info)],
        MsgFlags::MSG_DONTWAIT,
        Some(&SockaddrIn::from(to)),
    );
    match sent {
        Ok(_) => Ok(true),
        Err(nix::errno::Errno::EAGAIN) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
