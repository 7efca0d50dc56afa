//! UDP of a container: DNS is answered, everything else goes through the upstream's UDP relay, where it has one.

mod association;
mod associations;
mod packet;
mod reply;

use crate::{container::Container, counts::count, dns};
use associations::Associations;
use std::{io, os::fd::AsFd, sync::Arc, time::Duration};
use tokio::{net::UdpSocket, time::sleep};

pub(crate) use reply::ReplySockets;

/// Bytes of the largest UDP packet.
const MAX_PACKET: usize = 64 << 10;
/// How long nothing is read after the socket failed.
const PAUSE: Duration = Duration::from_millis(50);

/// Makes the socket tell where packets were sent to.
pub(crate) fn prepare(socket: &impl AsFd) -> io::Result<()> {
    packet::tell_destination(socket)
}

/// Takes packets until it is cancelled.
pub(crate) async fn listen(container: Arc<Container>, socket: UdpSocket) {
    let mut associations = Associations::new(container.clone());
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        let packet = match packet::receive(&socket, &mut buffer).await {
            Ok(Some(packet)) => packet,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(container = %container.route().egress.container, %error, "a packet cannot be read");
                sleep(PAUSE).await;
                continue;
            }
        };
        let (from, to, content) = (packet.from, packet.to, &buffer[..packet.length]);
        // Whoever else reaches the listener, a process of the server's too, gets nothing.
        if *from.ip() != container.route().egress.address {
            count(&container.counts.packets_dropped);
        } else if to.port() == dns::PORT {
            dns::serve_packet(&container, from, to, content);
        } else {
            associations.forward(from, to, content);
        }
    }
}
