//! Dialling: resolve, check, connect, greet, ask for the destination. Every step has a deadline.

use super::{
    DialError, http,
    session::Attempt,
    socks5,
    stream::{Stream, Transport},
};
use crate::{
    control::{Upstream, UpstreamKind},
    route::Route,
};
use socket2::{SockRef, TcpKeepalive};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{net::TcpStream, time::timeout};

/// Silence after which a peer is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(120);

/// A UDP association, good as long as its control connection is open.
#[derive(Debug)]
pub(crate) struct Association {
    pub(crate) control: Transport,
    pub(crate) relay: SocketAddr,
}

/// A connection to `destination` through the route's upstream.
pub(crate) async fn connect(route: &Route, destination: SocketAddr) -> Result<Stream, DialError> {
    let attempt = Attempt::begin(route)?;
    let result = async {
        let mut transport = open(route).await?;
        let early = answer(route, ask(&mut transport, &route.session.upstream, destination)).await?;
        Ok(Stream { transport, early })
    };
    attempt.end(result.await)
}

/// Connects to the upstream and greets it, and no more.
pub(super) async fn probe(route: &Route) -> Result<(), DialError> {
    let attempt = Attempt::begin(route)?;
    attempt.end(open(route).await.map(drop))
}

/// Asks the upstream to relay UDP.
pub(crate) async fn associate(route: &Route) -> Result<Association, DialError> {
    let attempt = Attempt::begin(route)?;
    let result = async {
        let mut control = open(route).await?;
        let anywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let command = socks5::command(&mut control, socks5::Command::Associate, anywhere);
        let bound = answer(route, command).await?.ok_or(DialError::Protocol("a relay without an address"))?;
        let upstream = control.tcp().peer_addr().map_err(DialError::Ended)?.ip().to_canonical();
        let mut relay = SocketAddr::new(bound.ip().to_canonical(), bound.port());
        if relay.ip().is_unspecified() {
            relay.set_ip(upstream);
        }
        // The upstream chooses it, so it is as foreign as the upstream's own address.
        let (address, check) = (relay.ip(), route.rules.check(relay.ip()));
        check.map_err(|why| DialError::RefusedRelay { address, why })?;
        Ok(Association { control, relay })
    };
    attempt.end(result.await)
}

/// Connects to the upstream, up to where it can be told a destination.
async fn open(route: &Route) -> Result<Transport, DialError> {
    let steps = async {
        let upstream = &route.session.upstream;
        let addresses = route.session.resolver.resolve(&upstream.host, upstream.port, &route.rules).await?;
        let tcp = connect_to_one(route, &addresses).await?;
        match upstream.kind {
            UpstreamKind::Http => Ok(Transport::Plain(tcp)),
            UpstreamKind::Https => {
                let name = upstream.server_name.as_ref().unwrap_or(&upstream.host);
                let tls = route.shared.tls.connect(name, tcp).await.map_err(DialError::Tls)?;
                Ok(Transport::Tls(Box::new(tls)))
            }
            UpstreamKind::Socks5 => {
                let mut tcp = tcp;
                socks5::greet(&mut tcp, upstream.credentials.as_ref()).await?;
                Ok(Transport::Plain(tcp))
            }
        }
    };
    timeout(route.shared.config.connect_timeout(), steps).await.map_err(|_| DialError::TimedOut)?
}

/// The first address that answers. Each gets its part of the time, so that one that is silent does not take it all.
async fn connect_to_one(route: &Route, addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
    let part = route.shared.config.connect_timeout() / (addresses.len() as u32).max(1);
    let mut last = DialError::TimedOut;
    for address in addresses {
        route.session.dialling(address.ip());
        match timeout(part, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return prepare(&tcp).map(|()| tcp).map_err(DialError::Unreachable),
            Ok(Err(error)) => last = DialError::Unreachable(error),
            Err(_) => last = DialError::TimedOut,
        }
    }
    Err(last)
}

async fn ask(transport: &mut Transport, upstream: &Upstream, destination: SocketAddr) -> Result<Vec<u8>, DialError> {
    match upstream.kind {
        UpstreamKind::Socks5 => {
            socks5::command(transport, socks5::Command::Connect, destination).await.map(|_| Vec::new())
        }
        UpstreamKind::Http | UpstreamKind::Https => {
            http::connect(transport, destination, upstream.credentials.as_ref()).await
        }
    }
}

async fn answer<T>(route: &Route, asked: impl Future<Output = Result<T, DialError>>) -> Result<T, DialError> {
    match timeout(route.shared.config.answer_timeout(), asked).await {
        // Many hang up where a destination cannot be reached; the upstream itself was fine a moment ago.
        Ok(Err(DialError::Ended(error))) => Err(DialError::DestinationEnded(error)),
        Ok(result) => result,
        Err(_) => Err(DialError::DestinationTimedOut),
    }
}

/// What every TCP connection gets, on both sides.
pub(crate) fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    SockRef::from(tcp).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
}
