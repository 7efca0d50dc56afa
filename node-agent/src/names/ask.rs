//! One question: to a name server over UDP, over TCP where the answer does not fit, or through a container's proxy.

use super::Path;
use crate::egress::Relay;
use hoody_protocol::id::ContainerId;
use hoody_proxy::dns::{Addresses, Query};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// How long a server has for an answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// Questions to one server over UDP, which may get lost.
const TRIES: usize = 2;
/// Bytes of an answer over UDP.
const MAX_ANSWER: usize = 4096;
/// Where name servers are.
const PORT: u16 = 53;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The way through containers' proxies.
    pub relay: Relay,
    /// Port of name servers that are asked without a proxy.
    pub port: u16,
}

impl Ask {
    /// The usual port.
    pub fn new(relay: Relay) -> Self {
        Self { relay, port: PORT }
    }

    /// Where the name leads and how long the answer holds, from the first server that gives an answer.
    pub(super) async fn resolve(
        &self,
        id: ContainerId,
        host: &str,
        path: &Path,
    ) -> Option<(Vec<Ipv4Addr>, Option<Duration>)> {
        let query = Query::for_addresses(host, rand::random())?;
        let answer = match path {
            Path::Proxy(_, server) => {
                // Without a server of its own the relay asks those of the container's policy.
                let server = server.unwrap_or(Ipv4Addr::UNSPECIFIED);
                query.addresses(&self.relay.query(id, server.into(), query.bytes()).await?)
            }
            Path::Direct(servers) => self.first(servers, &query).await,
        };
        match answer? {
            Addresses::Known { addresses, ttl } => Some((addresses, ttl)),
            Addresses::Truncated => None,
        }
    }

    async fn first(&self, servers: &[Ipv4Addr], query: &Query) -> Option<Addresses> {
        for server in servers {
            let server = SocketAddr::new(IpAddr::V4(*server), self.port);
            for _ in 0..TRIES {
                match timeout(DEADLINE, ask(server, query)).await {
                    Ok(Ok(Some(answer))) => return Some(answer),
                    // It said that it cannot, or is not there: the next one.
                    Ok(_) => break,
                    Err(_) => {}
                }
            }
        }
        None
    }
}

async fn ask(server: SocketAddr, query: &Query) -> io::Result<Option<Addresses>> {
    // A port of its own for each question, connected: an answer from elsewhere does not arrive.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(server).await?;
    socket.send(query.bytes()).await?;
    let mut buffer = [0; MAX_ANSWER];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = &buffer[..length];
        if !query.is_answered_by(answer) {
            continue;
        }
        return match query.addresses(answer) {
            Some(Addresses::Truncated) => ask_over_tcp(server, query).await,
            answer => Ok(answer),
        };
    }
}

async fn ask_over_tcp(server: SocketAddr, query: &Query) -> io::Result<Option<Addresses>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.bytes().len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query.bytes()].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(query.addresses(&answer))
}
