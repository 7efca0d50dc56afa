//! One UDP association (RFC 1928, 7): packets of one source port of a container, to wherever it sends them.

use super::{MAX_PACKET, associations::Outgoing};
use crate::{
    container::Container,
    counts::count,
    route::Route,
    upstream::{DialError, associate, dial::Association, socks5},
};
use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
};
use tokio::{io::AsyncReadExt, net::UdpSocket, sync::mpsc, time::sleep};

/// Destinations from which answers are taken: the ones that were sent to last. From others nothing passes, as in a
/// NAT: what the upstream says is the source of a packet would otherwise be any address, the platform's too.
const DESTINATIONS: usize = 64;

/// Associates, and relays until it is idle, the container's side is gone, or the upstream ends it.
pub(super) async fn run(
    container: Arc<Container>,
    route: Arc<Route>,
    client: SocketAddrV4,
    mut packets: mpsc::Receiver<Outgoing>,
) {
    let done = match associate(&route).await {
        Ok(association) => relay(&container, client, association, &mut packets).await,
        Err(error) => {
            if matches!(
                error,
                DialError::Destination(_) | DialError::DestinationEnded(_) | DialError::RefusedRelay { .. }
            ) {
                route.session.no_association();
            }
            Err(io::Error::other(error))
        }
    };
    if let Err(error) = done {
        tracing::debug!(container = %route.egress.container, %client, %error, "a UDP association ended");
    }
    packets.close();
    while packets.try_recv().is_ok() {
        count(&container.counts.packets_dropped);
    }
}

async fn relay(
    container: &Container,
    client: SocketAddrV4,
    mut association: Association,
    packets: &mut mpsc::Receiver<Outgoing>,
) -> io::Result<()> {
    let any: SocketAddr = match association.relay {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    // Connected, so that nobody but the relay is heard.
    socket.connect(association.relay).await?;
    let idle = container.shared.config.udp_idle_timeout();
    let mut destinations: VecDeque<SocketAddrV4> = VecDeque::new();
    let mut buffer = vec![0; MAX_PACKET];
    let mut said = [0; 16];
    loop {
        tokio::select! {
            packet = packets.recv() => {
                let Some(packet) = packet else { return Ok(()) };
                if destinations.back() != Some(&packet.to) {
                    destinations.retain(|known| *known != packet.to);
                    if destinations.len() == DESTINATIONS {
                        destinations.pop_front();
                    }
                    destinations.push_back(packet.to);
                }
                let wrapped = [socks5::packet_header(packet.to.into()), packet.content].concat();
                // Too large with its header, or the relay is gone: a packet lost, as it happens to UDP.
                count(match socket.send(&wrapped).await {
                    Ok(_) => &container.counts.packets,
                    Err(_) => &container.counts.packets_dropped,
                });
            }
            received = socket.recv(&mut buffer) => {
                // An error is a port that was not reachable a moment ago.
                let Ok(length) = received else { continue };
                let relayed = match socks5::parse_packet(&buffer[..length]) {
                    Some((SocketAddr::V4(source), content)) if destinations.contains(&source) => {
                        container.shared.replies.send(source, client, content).await
                    }
                    _ => false,
                };
                count(if relayed { &container.counts.packets } else { &container.counts.packets_dropped });
            }
            read = association.control.read(&mut said) => {
                // It has nothing to say; when it hangs up, the association is over.
                if read? == 0 {
                    return Ok(());
                }
            }
            () = sleep(idle) => return Ok(()),
        }
    }
}
