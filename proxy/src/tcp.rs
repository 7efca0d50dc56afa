//! Connections of a container: each is taken, dialled again through the upstream, and relayed. The address that the
//! container dialled is the local address of the accepted socket.

use crate::{
    container::Container,
    counts::count,
    dns, relay,
    upstream::{connect, dial::prepare},
};
use socket2::SockRef;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

/// How long nothing is accepted where the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts until it is cancelled.
pub(crate) async fn listen(container: Arc<Container>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((client, peer)) => accept(&container, client, peer),
            Err(error) => {
                tracing::warn!(container = %container.route().egress.container, %error, "a connection cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn accept(container: &Arc<Container>, client: TcpStream, peer: SocketAddr) {
    let own = container.connections.clone().try_acquire_owned();
    let total = container.shared.connections.clone().try_acquire_owned();
    let (Ok(own), Ok(total), Ok(destination)) = (own, total, client.local_addr()) else {
        count(&container.counts.refused);
        return reset(&client);
    };
    // Whoever else reaches the listener, a process of the server's too, gets nothing.
    let route = container.route();
    if peer.ip() != route.egress.address {
        count(&container.counts.refused);
        return reset(&client);
    }
    let container = container.clone();
    tokio::spawn(async move {
        let _permits = (own, total);
        let _open = container.counts.opened();
        let ended = route.session.ended.clone();
        let work = async {
            if destination.port() == dns::PORT {
                return dns::serve_connection(&container, &route, &client, destination).await;
            }
            let upstream = match connect(&route, destination).await {
                Ok(upstream) => upstream,
                Err(error) => {
                    tracing::debug!(container = %route.egress.container, %destination, error = error.explanation(), "refused");
                    count(&container.counts.refused);
                    return reset(&client);
                }
            };
            count(&container.counts.connections);
            let done = match prepare(&client) {
                Ok(()) => relay::run(&container, &client, upstream).await,
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                tracing::trace!(container = %route.egress.container, %destination, %error, "ended");
                reset(&client);
            }
        };
        // Another upstream, or none: what was on its way is lost, and must not look like its end.
        if ended.run_until_cancelled(work).await.is_none() {
            reset(&client);
        }
    });
}

/// Makes closing a reset, so that the other side does not take it for the end of the data.
pub(crate) fn reset(tcp: &TcpStream) {
    let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}
