//! The proxy's side of the control socket.

use super::{
    message::{Answer, FromAgent, FromProxy, Notice, PROTOCOL, Request},
    packet::{self, PacketError},
};
use crate::{
    containers::Containers,
    dns::{self, Query},
    route::Route,
    shared::Shared,
};
use hoody_protocol::bounded::Text;
use std::{
    fs, io,
    net::IpAddr,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};

/// Agents connected at once: one, and the one that takes its place.
const CONNECTIONS: usize = 4;
/// How long an agent may take to take a message.
const SEND_DEADLINE: Duration = Duration::from_secs(5);
/// How long nothing is accepted after accepting failed.
const PAUSE: Duration = Duration::from_millis(50);
/// Queries of the agent on their way; what is beyond gets no answer.
const QUERIES: usize = 256;
/// No descriptors.
const NONE: &[OwnedFd] = &[];

/// Opens the control socket. Refuses where another proxy answers on it.
pub(crate) async fn open(path: &Path) -> io::Result<UnixSeqpacketListener> {
    if UnixSeqpacket::connect(path).await.is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another proxy runs with this socket"));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixSeqpacketListener::bind(path)?;
    // Peers are checked all the same: this keeps others from even trying.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves agents for ever.
pub(crate) async fn serve(mut listener: UnixSeqpacketListener, shared: Arc<Shared>, containers: Arc<Containers>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let socket = match listener.accept().await {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, "a control connection cannot be accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            tracing::warn!("too many control connections");
            continue;
        };
        match socket.peer_cred() {
            Ok(peer) if peer.uid() == 0 || peer.uid() == shared.config.agent_uid => {}
            Ok(peer) => {
                tracing::warn!(uid = peer.uid(), pid = peer.pid(), "a stranger at the control socket is refused");
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "a control connection without credentials is refused");
                continue;
            }
        }
        let (shared, containers) = (shared.clone(), containers.clone());
        tokio::spawn(async move {
            let _permit = permit;
            tracing::info!("an agent is connected");
            match converse(Arc::new(socket), &shared, &containers).await {
                Ok(()) => tracing::info!("the agent went away; everything goes on"),
                Err(error) => tracing::warn!(%error, "the agent's connection failed; everything goes on"),
            }
        });
    }
}

async fn converse(socket: Arc<UnixSeqpacket>, shared: &Shared, containers: &Containers) -> Result<(), PacketError> {
    let changed = shared.listen();
    let version = Text::truncated(env!("CARGO_PKG_VERSION"));
    send(&socket, Notice::Welcome { protocol: PROTOCOL, version }).await?;
    // A task of its own, because half a packet must not be given up for a notice.
    let (sender, mut messages) = mpsc::channel(1);
    let reading = tokio::spawn(read(socket.clone(), sender));
    // Ports that this agent was asked for and has not opened yet.
    let mut asked = std::collections::BTreeSet::new();
    let queries = Arc::new(Semaphore::new(QUERIES));
    let result = loop {
        tokio::select! {
            message = messages.recv() => match message {
                None => break Ok(()),
                Some(Err(error)) => break Err(error),
                Some(Ok((FromAgent::ReplySocket { port }, descriptors))) => {
                    asked.remove(&port);
                    shared.replies.supply(port, descriptors.into_iter().next());
                }
                Some(Ok((FromAgent::Query { number, container, server, query }, _))) => {
                    let work = queried(containers.route(container), server, query.to_vec());
                    let (socket, turn) = (socket.clone(), queries.clone().try_acquire_owned());
                    tokio::spawn(async move {
                        let answer = match turn {
                            Ok(_turn) => work.await.and_then(|answer| answer.try_into().ok()),
                            Err(_) => None,
                        };
                        // Where the agent is gone, nobody waits.
                        let _ = send_one(&socket, FromProxy::Queried { number, answer }).await;
                    });
                }
                Some(Ok((FromAgent::Request { number, request }, descriptors))) => {
                    if let Err(error) = answer(&socket, containers, number, request, descriptors).await {
                        break Err(error.into());
                    }
                }
            },
            id = changed.next() => {
                let Some(status) = containers.status(id) else { continue };
                if let Err(error) = send(&socket, Notice::Changed(Box::new(status))).await {
                    break Err(error.into());
                }
            }
            port = shared.replies.wanted() => {
                asked.insert(port);
                if let Err(error) = send(&socket, Notice::ReplySocketWanted { port }).await {
                    break Err(error.into());
                }
            }
        }
    };
    reading.abort();
    // The next agent opens what this one did not.
    for port in asked {
        shared.replies.want_again(port);
    }
    result
}

/// What a query of the agent's was answered.
async fn queried(route: Option<Arc<Route>>, server: IpAddr, bytes: Vec<u8>) -> Option<Vec<u8>> {
    let (route, query) = (route?, Query::parse(&bytes)?);
    let answer = dns::resolve(&route, query.clone(), server).await;
    let usable = answer.as_deref().filter(|answer| query.addresses(answer).is_some());
    route.told.note(&query, usable);
    answer
}

type Received = Result<(FromAgent, Vec<OwnedFd>), PacketError>;

async fn read(socket: Arc<UnixSeqpacket>, messages: mpsc::Sender<Received>) {
    while let Some(message) = packet::receive(&socket).await.transpose() {
        let failed = message.is_err();
        if messages.send(message).await.is_err() || failed {
            return;
        }
    }
}

async fn answer(
    socket: &UnixSeqpacket,
    containers: &Containers,
    number: u64,
    request: Request,
    descriptors: Vec<OwnedFd>,
) -> io::Result<()> {
    let answer = match request {
        Request::Set(egress) => {
            let id = egress.container;
            match containers.set(*egress, descriptors) {
                Ok(()) => Answer::Done,
                Err(error) => {
                    tracing::warn!(container = %id, %error, "refused");
                    Answer::Refused(Text::truncated(error.to_string()))
                }
            }
        }
        Request::Remove(id) => {
            containers.remove(id).await;
            Answer::Done
        }
        Request::List => {
            for status in containers.list() {
                let answer = Answer::Listed(Box::new(status));
                send_one(socket, FromProxy::Answer { number, answer }).await?;
            }
            Answer::Done
        }
    };
    send_one(socket, FromProxy::Answer { number, answer }).await
}

async fn send(socket: &UnixSeqpacket, notice: Notice) -> io::Result<()> {
    send_one(socket, FromProxy::Notice(notice)).await
}

async fn send_one(socket: &UnixSeqpacket, message: FromProxy) -> io::Result<()> {
    timeout(SEND_DEADLINE, packet::send(socket, &message, NONE)).await?
}
