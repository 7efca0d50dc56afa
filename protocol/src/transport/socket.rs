//! A socket whose buffers are as large as the kernel may need, and no larger. quinn reserves for as many packets of the
//! largest size as the kernel may hand over at once, which for large packets is six times what it ever does; with huge
//! pages all of that is memory.

use quinn::{
    AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// Bytes that the kernel hands over at once at most, however many packets they are.
const HANDED_OVER_BYTES: usize = 64 << 10;

/// `socket`, for packets of at most `largest_packet` bytes.
pub(super) fn wrap(socket: std::net::UdpSocket, largest_packet: u64) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let socket = TokioRuntime.wrap_udp_socket(socket)?;
    let segments = HANDED_OVER_BYTES.div_ceil(largest_packet as usize).min(socket.max_receive_segments());
    Ok(Arc::new(Socket { socket, segments }))
}

#[derive(Debug)]
struct Socket {
    socket: Arc<dyn AsyncUdpSocket>,
    /// Packets of the largest size that are handed over at once.
    segments: usize,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.socket.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        received: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(context, buffers, received)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.segments
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
