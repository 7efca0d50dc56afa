//! Taking queries from a container, over UDP and TCP.

use super::{exchange::resolve, message::Query};
use crate::{container::Container, counts::count, relay::write_all, route::Route, tcp::reset};
use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};

/// Bytes of a query over TCP.
const MAX_QUERY: usize = 4096;
/// How long a container's connection without queries is kept, and how long a query's bytes may take.
const IDLE: Duration = Duration::from_secs(20);
/// Queries of one connection being answered.
const PIPELINED: usize = 16;

/// One query over UDP. The answer leaves as if it came from the server that was asked.
pub(crate) fn serve_packet(container: &Arc<Container>, from: SocketAddrV4, to: SocketAddrV4, packet: &[u8]) {
    count(&container.counts.dns_queries);
    let (Some(query), Ok(permit)) = (Query::parse(packet), container.queries.clone().try_acquire_owned()) else {
        // Nothing that could be answered, or too much at once: UDP's way is to drop it.
        return count(&container.counts.dns_failures);
    };
    let container = container.clone();
    tokio::spawn(async move {
        let _permit = permit;
        let route = container.route();
        let work = async {
            let answer = answer(&container, &route, query.clone(), IpAddr::V4(*to.ip())).await;
            container.shared.replies.send(to, from, &query.for_udp(answer)).await
        };
        if route.session.ended.clone().run_until_cancelled(work).await != Some(true) {
            count(&container.counts.dns_failures);
        }
    });
}

/// A connection to port 53: queries one after the other or several at once, answered in the order that answers come.
pub(crate) async fn serve_connection(
    container: &Arc<Container>,
    route: &Arc<Route>,
    client: &TcpStream,
    server: SocketAddr,
) {
    let done = converse(container, route, client, server.ip()).await;
    if done.is_err() {
        reset(client);
    }
}

async fn converse(
    container: &Arc<Container>,
    route: &Arc<Route>,
    client: &TcpStream,
    server: IpAddr,
) -> io::Result<()> {
    let (sender, mut answers) = mpsc::channel::<Vec<u8>>(PIPELINED);
    let asking = async {
        let mut buffer = Vec::new();
        // Dropped at the end, with it the writer ends once all answers are out.
        let sender = sender;
        while let Some(packet) = timeout(IDLE, read(client, &mut buffer)).await?? {
            count(&container.counts.dns_queries);
            let query = Query::parse(&packet).ok_or(io::ErrorKind::InvalidData)?;
            let Ok(permit) = container.queries.clone().try_acquire_owned() else {
                count(&container.counts.dns_failures);
                let _ = sender.send(query.failure()).await;
                continue;
            };
            let (container, route) = (container.clone(), route.clone());
            // Waits here while there are as many answers on the way as the connection may have.
            let Ok(place) = sender.clone().reserve_owned().await else { break };
            tokio::spawn(async move {
                let _permit = permit;
                let ended = route.session.ended.clone();
                if let Some(answer) = ended.run_until_cancelled(answer(&container, &route, query, server)).await {
                    place.send(answer);
                }
            });
        }
        Ok(())
    };
    let answering = async {
        while let Some(answer) = answers.recv().await {
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            let message = [&length.to_be_bytes(), answer.as_slice()].concat();
            timeout(IDLE, write_all(client, &message)).await??;
        }
        Ok(())
    };
    tokio::try_join!(asking, answering).map(drop)
}

/// The next query; `None` at the end. What was read beyond it stays in `buffer`.
async fn read(client: &TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    loop {
        if let Some((length, rest)) = buffer.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            if length > MAX_QUERY {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if let Some(query) = rest.get(..length) {
                let query = query.to_vec();
                buffer.drain(..2 + length);
                return Ok(Some(query));
            }
        }
        client.readable().await?;
        buffer.reserve(1 << 10);
        match client.try_read_buf(buffer) {
            Ok(0) if buffer.is_empty() => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// The answer, or that there is none.
async fn answer(container: &Container, route: &Arc<Route>, query: Query, server: IpAddr) -> Vec<u8> {
    if let Some(answer) = route.told.answer(&query) {
        return answer;
    }
    match resolve(route, query.clone(), server).await {
        Some(answer) => answer,
        None => {
            count(&container.counts.dns_failures);
            query.failure()
        }
    }
}
