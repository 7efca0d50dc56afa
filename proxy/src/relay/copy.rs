//! Relaying between a TCP socket and a TLS connection, which has to pass through this process.

use super::{activity::Activity, splice::write_all};
use crate::container::Container;
use socket2::SockRef;
use std::{io, net::Shutdown, sync::atomic::Ordering::Relaxed};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// Bytes of each direction's buffer: half of the largest TLS record.
const BUFFER: usize = 8 << 10;

/// Both directions; `early` is the destination's and comes first.
pub(super) async fn both(
    container: &Container,
    client: &TcpStream,
    upstream: &mut TlsStream<TcpStream>,
    early: &[u8],
    activity: &Activity,
) -> io::Result<()> {
    let counts = &container.counts;
    let (mut reader, mut writer) = tokio::io::split(upstream);
    let inward = async {
        write_all(client, early).await?;
        counts.bytes_in.fetch_add(early.len() as u64, Relaxed);
        let mut buffer = vec![0; BUFFER];
        loop {
            // An end without TLS's own goodbye is an error: somebody in between may have cut it off.
            let read = reader.read(&mut buffer).await?;
            if read == 0 {
                return SockRef::from(client).shutdown(Shutdown::Write);
            }
            activity.note();
            counts.bytes_in.fetch_add(read as u64, Relaxed);
            write_all(client, &buffer[..read]).await?;
            activity.note();
        }
    };
    let outward = async {
        loop {
            client.readable().await?;
            let mut buffer = vec![0; BUFFER];
            loop {
                match client.try_read(&mut buffer) {
                    Ok(0) => return writer.shutdown().await,
                    Ok(read) => {
                        activity.note();
                        counts.bytes_out.fetch_add(read as u64, Relaxed);
                        writer.write_all(&buffer[..read]).await?;
                        activity.note();
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            writer.flush().await?;
        }
    };
    tokio::try_join!(inward, outward).map(drop)
}
