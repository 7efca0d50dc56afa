//! One node's link, from the hello to its end. This task owns everything of the link; when one part of it
//! ends, the link ends.
//!
//! The link is up after our answer to the hello, and down with the connection: by the peer, silence, the
//! certificate's expiry, revocation, a newer link, or our shutdown.

use super::{
    commands, dispatch,
    listener::Context,
    moves,
    pace::Pace,
    refusal::{self, DISABLED, MALFORMED_MESSAGE, REVOKED, UNKNOWN_SERVER, WRONG_KEY, unavailable},
    registry::Wakes,
    reports, rotation, streams, syncs,
    twin::{self, Instance},
    unknown,
};
use crate::store::{
    StoreError, dispatch as work, hello,
    node::{self, Arrival, Node, ServerStatus},
    server_pool::PoolHealth,
};
use hoody_protocol::{
    container::Cause,
    id::{ContainerId, ServerId},
    link::{Heartbeat, Hello, HelloReply},
    stream::{self, StreamError},
    time::now_ms,
    transport::{Close, PeerIdentity},
    version::{self, ProtocolRange},
};
use quinn::{Connection, RecvStream, SendStream};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Time for the hello, and for the peer to close after a refusal.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// Heartbeats that may be missing before the link ends.
const HEARTBEATS_MISSED: u32 = 4;
/// The link is not ended for missing heartbeats before this, however short their pause.
const LEAST_PATIENCE: Duration = Duration::from_secs(20);
/// Heartbeats are read no quicker than this.
const LEAST_HEARTBEAT_PAUSE: Duration = Duration::from_millis(100);
/// Pause between looks at the server's own row.
const ROW_CHECK: Duration = Duration::from_secs(60);
/// Messages that are not understood before the link ends.
const MAX_MISUNDERSTOOD: u32 = 64;

/// A link that is up.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) context: Context,
    pub(super) connection: Connection,
    pub(super) peer: PeerIdentity,
    pub(super) number: u64,
    pub(super) wakes: Arc<Wakes>,
    /// One batch of reports at a time, and how many are left for now.
    pub(super) reports: tokio::sync::Mutex<Pace>,
    /// One batch of measurements at a time, and how many are left for now.
    pub(super) measurements: tokio::sync::Mutex<Pace>,
    /// Renewals of the certificate that are left for now.
    pub(super) renewals: tokio::sync::Mutex<Pace>,
    /// The server's containers as last read, and when: whose measurements are believed.
    pub(super) containers: tokio::sync::Mutex<(HashSet<ContainerId>, Instant)>,
    /// What was last told of the server's storage pool, as far as this link knows.
    pub(super) pool: tokio::sync::Mutex<Option<PoolHealth>>,
    misunderstood: AtomicU32,
}

impl Link {
    pub(super) fn server(&self) -> ServerId {
        self.peer.server
    }

    /// Counts a message that was not understood; too many end the link.
    pub(super) fn misunderstood(&self, error: &StreamError) {
        metrics::counter!("hoody_link_misunderstood_total").increment(1);
        let count = self.misunderstood.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::warn!(server = %self.server(), count, error = error as &dyn std::error::Error,
            "a message of the node was refused");
        if count >= MAX_MISUNDERSTOOD {
            Close::Protocol.close(&self.connection);
        }
    }
}

/// Serves a connection with the node protocol to its end.
pub(super) async fn serve(context: Context, connection: Connection, peer: PeerIdentity) {
    let server = peer.server;
    let remote = connection.remote_address();
    let hello = Box::pin(tokio::time::timeout(HELLO_DEADLINE, read_hello(&connection))).await;
    let (hello, mut send, recv) = match hello {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => {
            tracing::info!(%server, %remote, error = &error as &dyn std::error::Error, "no hello");
            return Close::Protocol.close(&connection);
        }
        Err(_) => {
            tracing::info!(%server, %remote, "no hello in time");
            return Close::Protocol.close(&connection);
        }
    };
    // Boxed, as what follows is rarely or once done in the life of a link.
    match Box::pin(begin(&context, &connection, &peer, &hello)).await {
        Ok((link, protocol)) => {
            run(&link, send, recv, protocol).await;
            end(&link).await;
        }
        Err(Refused { cause, retry }) => {
            tracing::warn!(%server, %remote, code = %cause.code, "a hello was refused");
            if stream::write(&mut send, &HelloReply::Refused { cause, retry }).await.is_ok() {
                let _ = send.finish();
                let _ = tokio::time::timeout(HELLO_DEADLINE, connection.closed()).await;
            }
            Close::Refused.close(&connection);
        }
    }
}

async fn read_hello(connection: &Connection) -> Result<(Hello, SendStream, RecvStream), StreamError> {
    let (mut send, mut recv) = connection.accept_bi().await.map_err(quinn::ReadError::ConnectionLost)?;
    let hello = match stream::read_frame(&mut recv).await {
        Ok(frame) => frame.decode().map_err(StreamError::from),
        Err(error) => Err(error),
    };
    match hello {
        Ok(hello) => Ok((hello, send, recv)),
        Err(error) => {
            refusal::refuse(&mut send, &mut recv, &error).await;
            let _ = send.finish();
            // Let the refusal arrive before the close.
            let _ = tokio::time::timeout(Duration::from_secs(1), send.stopped()).await;
            Err(error)
        }
    }
}

/// A hello that is answered with a refusal.
#[derive(Debug)]
struct Refused {
    cause: Cause,
    retry: bool,
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "answer a hello");
        Self { cause: unavailable(), retry: true }
    }
}

/// Whether the server's row lets its node in.
pub(super) fn admission(node: Option<&Node>, peer: &PeerIdentity) -> Result<(), (Cause, bool)> {
    let refused = |code, message: &str, retry| Err((Cause::new(code, message), retry));
    match node {
        None => refused(UNKNOWN_SERVER, "the control plane does not know this server", false),
        Some(node) if node.status == ServerStatus::Revoked => refused(REVOKED, "the server was revoked", false),
        Some(node) if node.public_key != Some(peer.public_key) => {
            refused(WRONG_KEY, "another key has enrolled as this server since: join again", false)
        }
        Some(node) if node.status != ServerStatus::Enrolled => refused(DISABLED, "the server is disabled", true),
        Some(_) => Ok(()),
    }
}

fn negotiate(theirs: ProtocolRange) -> Result<u16, Refused> {
    version::SUPPORTED.negotiate(theirs).ok_or_else(|| {
        let ours = version::SUPPORTED;
        let message = format!(
            "the agent speaks protocol {} to {}, the control plane {} to {}",
            theirs.min, theirs.max, ours.min, ours.max
        );
        // An agent that is ahead waits for the control plane's upgrade; one that is behind needs its own.
        Refused { cause: Cause::new("protocol_unsupported", message), retry: theirs.min > ours.max }
    })
}

/// Words that are written down and logged as they come hold nothing that a line of a log, or a database,
/// takes for something else.
fn is_plain(hello: &Hello) -> bool {
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    let instance = hello.instance.as_ref().is_none_or(|instance| plain(instance));
    instance && plain(&hello.agent_version) && plain(&hello.boot_id) && plain(&hello.facts.architecture)
}

/// Checks the hello, registers the link and writes down what the hello says.
async fn begin(
    context: &Context,
    connection: &Connection,
    peer: &PeerIdentity,
    hello: &Hello,
) -> Result<(Link, u16), Refused> {
    let server = peer.server;
    let nodes = &context.app.nodes;
    let protocol = negotiate(hello.protocol)?;
    if !is_plain(hello) {
        let cause = Cause::new(MALFORMED_MESSAGE, "versions, boot id and architecture are plain words");
        return Err(Refused { cause, retry: false });
    }
    let turnstile = nodes.registry.turnstile(server).await;
    // First what the row says: whoever is shut out is told so, whether or not a twin of it is linked.
    let node = node::by_id(&context.app.store, server).await?;
    admission(node.as_ref(), peer).map_err(|(cause, retry)| Refused { cause, retry })?;
    if let Some(node) = &node {
        twin::check(context, node, connection, hello).await.map_err(|cause| Refused { cause, retry: false })?;
    }
    let wakes = Arc::new(Wakes::default());
    let number = nodes.registry.add(server, connection, Instance::of(hello), wakes.clone());
    // Registered first: a revocation from now on finds the link, one before stands in the row.
    hoody_fault::point!("hello.received");
    let begun = async {
        let node = node::by_id(&context.app.store, server).await?;
        admission(node.as_ref(), peer).map_err(|(cause, retry)| Refused { cause, retry })?;
        let arrival =
            Arrival { key: peer.public_key, issuer: peer.issuer.clone(), replica: context.replica.to_string() };
        Ok(hello::record(&context.app.store, server, &arrival, hello, now_ms() as i64).await?)
    };
    let recorded = match begun.await {
        Ok(recorded) => recorded,
        Err(refused) => {
            nodes.registry.remove(server, number);
            return Err(refused);
        }
    };
    hoody_fault::point!("hello.recorded");
    drop(turnstile);
    for (container, held) in &recorded.ahead {
        tracing::error!(%server, %container, %held,
            "the node holds a newer specification than the database: was the database restored?");
    }
    if !recorded.unknown.is_empty() {
        let containers: Vec<String> =
            recorded.unknown.iter().take(8).map(|entry| entry.container.to_string()).collect();
        tracing::warn!(%server, count = recorded.unknown.len(), ?containers,
            "the node holds containers that the control plane does not know; they are kept");
    }
    if recorded.lost > 0 {
        tracing::warn!(%server, count = recorded.lost, "the node lost specifications it had acknowledged");
    }
    if hello.journal_lost > 0 {
        metrics::counter!("hoody_journal_lines_lost_total").increment(u64::from(hello.journal_lost));
        tracing::error!(%server, lines = hello.journal_lost,
            "the node's journal was damaged: changes of state on the way are lost, the states of now come again");
    }
    let containers = work::containers_of(&context.app.store, server).await?.into_iter().collect();
    let link = Link {
        context: context.clone(),
        connection: connection.clone(),
        peer: peer.clone(),
        number,
        wakes,
        reports: tokio::sync::Mutex::new(reports::pace()),
        measurements: tokio::sync::Mutex::new(streams::measurements_pace()),
        renewals: tokio::sync::Mutex::new(streams::renewals_pace()),
        containers: tokio::sync::Mutex::new((containers, Instant::now())),
        pool: tokio::sync::Mutex::default(),
        misunderstood: AtomicU32::new(0),
    };
    tracing::info!(%server, remote = %connection.remote_address(), agent = %hello.agent_version, protocol,
        containers = hello.inventory.len(), "link up");
    Ok((link, protocol))
}

/// Runs the link until any part of it ends.
async fn run(link: &Link, mut send: SendStream, recv: RecvStream, protocol: u16) {
    let config = &link.context.app.config;
    let pause = config.heartbeat_interval;
    let accepted = HelloReply::Accepted {
        protocol,
        server: link.server(),
        now: now_ms(),
        heartbeat_ms: pause.as_millis() as u64,
        // More than these are refused with the configuration.
        allowed_networks: config.egress_allowed_networks.clone().try_into().unwrap_or_default(),
    };
    if stream::write(&mut send, &accepted).await.is_err() {
        return;
    }
    hoody_fault::point!("hello.answered");
    tokio::select! {
        reason = link.connection.closed() => {
            tracing::info!(server = %link.server(), %reason, "link down");
        }
        () = heartbeats(link, send, recv, pause) => Close::Protocol.close(&link.connection),
        () = expiry(link) => {
            tracing::info!(server = %link.server(), "the node's certificate has expired: the link is closed");
            Close::Expired.close(&link.connection);
        }
        () = own_row(link) => Close::Revoked.close(&link.connection),
        () = dispatch::run(link) => {}
        () = commands::run(link) => {}
        () = Box::pin(syncs::run(link)) => {}
        () = Box::pin(moves::run(link)) => {}
        () = rotation::follow(link) => {}
        () = unknown::carry_out(link) => {}
        () = streams::bidirectional(link) => {}
        () = streams::unidirectional(link) => {}
    }
}

/// Reads heartbeats until they stay away or the control stream breaks.
async fn heartbeats(link: &Link, mut send: SendStream, mut recv: RecvStream, pause: Duration) {
    let patience = (pause * HEARTBEATS_MISSED).max(LEAST_PATIENCE);
    loop {
        let read = tokio::time::timeout(patience, stream::read::<Heartbeat>(&mut recv)).await;
        match read {
            Ok(Ok(heartbeat)) => {
                link.context.app.nodes.registry.set_heartbeat(link.server(), link.number, heartbeat);
                // Whoever sends more than is asked for waits.
                tokio::time::sleep(pause.min(LEAST_HEARTBEAT_PAUSE)).await;
            }
            Ok(Err(error)) => {
                if matches!(error, StreamError::Read(quinn::ReadError::ConnectionLost(_))) {
                    // The connection's end says why.
                    std::future::pending::<()>().await;
                }
                link.misunderstood(&error);
                if !refusal::refuse(&mut send, &mut recv, &error).await {
                    return;
                }
            }
            Err(_) => {
                tracing::warn!(server = %link.server(), patience_s = patience.as_secs(), "no heartbeat");
                return;
            }
        }
    }
}

/// Ends when the certificate does.
async fn expiry(link: &Link) {
    let remaining = link.peer.not_after.saturating_sub(now_ms());
    tokio::time::sleep(Duration::from_millis(remaining)).await;
}

/// Looks at the server's row now and then: another replica may have disabled or re-enrolled the server, or
/// taken over its link. Ends where the node would not be let in any more.
async fn own_row(link: &Link) {
    let store = &link.context.app.store;
    loop {
        tokio::time::sleep(ROW_CHECK).await;
        match Box::pin(node::by_id(store, link.server())).await {
            Ok(node) => {
                if let Err((cause, _)) = admission(node.as_ref(), &link.peer) {
                    tracing::warn!(server = %link.server(), code = %cause.code, "the link is not let on");
                    return;
                }
                let elsewhere = node.and_then(|node| node.linked_to).filter(|to| **to != *link.context.replica);
                if elsewhere.is_some() {
                    return Close::Replaced.close(&link.connection);
                }
            }
            Err(error) => {
                tracing::warn!(server = %link.server(), error = &error as &dyn std::error::Error, "check a link");
            }
        }
    }
}

/// Takes the link down: offline in the store, unless a newer link has taken over.
async fn end(link: &Link) {
    Close::Done.close(&link.connection);
    let nodes = &link.context.app.nodes;
    let _turnstile = nodes.registry.turnstile(link.server()).await;
    if nodes.registry.remove(link.server(), link.number)
        && let Err(error) =
            node::set_offline(&link.context.app.store, link.server(), &link.context.replica, now_ms() as i64).await
    {
        tracing::error!(server = %link.server(), error = &error as &dyn std::error::Error, "mark a server offline");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The room that a function's future takes.
    fn room<A, B, C, F: Future>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn ten_thousand_links_wait_in_little_memory() {
        let bytes = room(serve);
        assert!(bytes < 10 << 10, "each link's task takes {bytes} bytes: box what is rarely done");
    }
}
