//! Relaying between two TCP sockets with splice(2): the bytes stay in the kernel.

use super::{activity::Activity, pipe::PipePool};
use crate::container::Container;
use socket2::SockRef;
use std::{
    io,
    net::Shutdown,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};
use tokio::{io::Interest, net::TcpStream};

/// Both directions; `early` is the destination's and comes first.
pub(super) async fn both(
    container: &Container,
    client: &TcpStream,
    upstream: &TcpStream,
    early: &[u8],
    activity: &Activity,
) -> io::Result<()> {
    let (pipes, counts) = (&container.shared.pipes, &container.counts);
    let inward = async {
        write_all(client, early).await?;
        counts.bytes_in.fetch_add(early.len() as u64, Relaxed);
        pump(upstream, client, pipes, &counts.bytes_in, activity).await
    };
    let outward = pump(client, upstream, pipes, &counts.bytes_out, activity);
    tokio::try_join!(inward, outward).map(drop)
}

/// One direction until its end, which is passed on.
async fn pump(
    from: &TcpStream,
    to: &TcpStream,
    pipes: &PipePool,
    bytes: &AtomicU64,
    activity: &Activity,
) -> io::Result<()> {
    loop {
        from.readable().await?;
        let mut pipe = pipes.take()?;
        loop {
            match from.try_io(Interest::READABLE, || pipe.fill(from)) {
                Ok(0) => return SockRef::from(to).shutdown(Shutdown::Write),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            activity.note();
            bytes.fetch_add(pipe.held() as u64, Relaxed);
            while pipe.held() > 0 {
                to.async_io(Interest::WRITABLE, || pipe.drain(to)).await?;
                activity.note();
            }
        }
    }
}

pub(crate) async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
