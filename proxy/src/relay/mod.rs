//! Both directions of a connection, until both are done. A side that finishes sending is told to the other one, which
//! may go on sending (half-close). Silence has a limit.

mod activity;
mod copy;
mod pipe;
mod splice;

use crate::{
    container::Container,
    tcp::reset,
    upstream::{Stream, Transport},
};
use activity::Activity;
pub(crate) use pipe::PipePool;
pub(crate) use splice::write_all;
use std::io;
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// Relays until both sides are done. On an error the upstream's side is reset; the caller resets the container's.
pub(crate) async fn run(container: &Container, client: &TcpStream, upstream: Stream) -> io::Result<()> {
    let activity = Activity::default();
    let idle = container.shared.config.idle_timeout();
    match upstream.transport {
        Transport::Plain(tcp) => {
            let work = splice::both(container, client, &tcp, &upstream.early, &activity);
            let done = tokio::select! {
                done = work => done,
                () = activity.silent_for(idle) => Err(io::ErrorKind::TimedOut.into()),
            };
            if done.is_err() {
                reset(&tcp);
            }
            done
        }
        Transport::Tls(mut tls) => {
            let work = copy::both(container, client, &mut tls, &upstream.early, &activity);
            let done = tokio::select! {
                done = work => done,
                () = activity.silent_for(idle) => Err(io::ErrorKind::TimedOut.into()),
            };
            match done {
                Ok(()) => tls.shutdown().await,
                Err(_) => {
                    reset(tls.get_ref().0);
                    done
                }
            }
        }
    }
}
