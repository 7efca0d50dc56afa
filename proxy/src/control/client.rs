//! The agent's side of the control socket.

use super::{
    changes::Changes,
    message::{Answer, FromAgent, FromProxy, Notice, OLDEST, PROTOCOL, QUERIES, Request},
    packet::{self, PacketError},
    policy::Egress,
    queries::Queries,
    socket::{self, Listeners},
    status::Status,
};
use hoody_protocol::id::ContainerId;
use std::{io, net::IpAddr, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_seqpacket::UnixSeqpacket;

/// The longest time for connecting, and for the answer to a request.
const DEADLINE: Duration = Duration::from_secs(5);
/// The longest time for the answer to a query: the proxy asks up to four servers, twice.
const QUERY_DEADLINE: Duration = Duration::from_secs(35);
/// No descriptors.
const NONE: &[OwnedFd] = &[];
/// Parts of answers that wait to be read: a request reads them as they come.
const ANSWERS_WAITING: usize = 64;

/// Why the proxy did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The proxy does not run, or not here.
    #[error("no proxy answers at its control socket")]
    Connect(#[source] io::Error),
    /// The connection ended: the proxy ended. Connect again and set everything anew.
    #[error("the connection to the proxy ended")]
    Ended,
    /// The connection failed.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// No answer in time; the connection is not used any more.
    #[error("the proxy did not answer within {DEADLINE:?}")]
    TimedOut,
    /// The proxy speaks another protocol.
    #[error("the proxy speaks version {0} of the control protocol, this agent {PROTOCOL}")]
    Protocol(u16),
    /// The proxy is older than what it is asked for.
    #[error("the proxy is older than this agent and cannot do this: restart it")]
    TooOld,
    /// The proxy refused, and nothing changed.
    #[error("the proxy refused: {0}")]
    Refused(String),
}

/// A connection to the proxy. Requests are carried out one after the other; clones are not needed, `&self` does.
///
/// While it is open, sockets that the proxy needs are opened for it in the background, in the network namespace in
/// which the async runtime's threads are.
#[derive(Debug)]
pub struct Client {
    socket: Arc<UnixSeqpacket>,
    turn: Mutex<Turn>,
    reader: JoinHandle<()>,
    protocol: u16,
    version: String,
    queries: Arc<Queries>,
}

#[derive(Debug)]
struct Turn {
    answers: mpsc::Receiver<(u64, Answer)>,
    last: u64,
    broken: bool,
}

/// What the proxy reports on its own.
#[derive(Debug)]
pub struct Events(Arc<Changes>);

impl Events {
    /// The next change of a container's health, the newest one of each container; `None` when the connection ended.
    pub async fn next(&mut self) -> Option<Status> {
        self.0.next().await
    }
}

impl Client {
    /// Connects to the proxy's control socket.
    pub async fn connect(path: &Path) -> Result<(Self, Events), ControlError> {
        let connect = async {
            let socket = UnixSeqpacket::connect(path).await.map_err(ControlError::Connect)?;
            match packet::receive::<FromProxy>(&socket).await? {
                Some((FromProxy::Notice(Notice::Welcome { protocol: protocol @ OLDEST..=PROTOCOL, version }), _)) => {
                    Ok((socket, protocol, version.to_string()))
                }
                Some((FromProxy::Notice(Notice::Welcome { protocol, .. }), _)) => Err(ControlError::Protocol(protocol)),
                _ => Err(ControlError::Ended),
            }
        };
        let (socket, protocol, version) = timeout(DEADLINE, connect).await.map_err(|_| ControlError::TimedOut)??;
        let (socket, queries) = (Arc::new(socket), Arc::new(Queries::default()));
        let changes = Arc::new(Changes::default());
        let (sender, answers) = mpsc::channel(ANSWERS_WAITING);
        let reader = tokio::spawn(read(socket.clone(), changes.clone(), sender, queries.clone()));
        let turn = Mutex::new(Turn { answers, last: 0, broken: false });
        Ok((Self { socket, turn, reader, protocol, version, queries }, Events(changes)))
    }

    /// The version of the proxy's program.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Makes `egress` hold for its container. With `listeners` those are used from now on; without, the ones that the
    /// proxy has for the container, and it is refused where it has none. Connections whose upstream stays the same
    /// go on; those through another upstream are closed.
    pub async fn set(&self, egress: Egress, listeners: Option<Listeners>) -> Result<(), ControlError> {
        let descriptors = listeners.map(|listeners| [listeners.tcp, listeners.udp]);
        self.ask(Request::Set(Box::new(egress)), descriptors.as_ref().map_or(&[], |both| both)).await.map(drop)
    }

    /// Closes a container's listeners and connections. Ok also where there is none.
    pub async fn remove(&self, container: ContainerId) -> Result<(), ControlError> {
        self.ask(Request::Remove(container), &[]).await.map(drop)
    }

    /// Every container that the proxy holds.
    pub async fn list(&self) -> Result<Vec<Status>, ControlError> {
        self.ask(Request::List, &[]).await
    }

    /// Asks for something in the container's place, through its upstream: `server`, where its policy names none. The
    /// container is told the same where it asks the same. `None` where no server answered. Several at once are well.
    pub async fn query(
        &self,
        container: ContainerId,
        server: IpAddr,
        query: &[u8],
    ) -> Result<Option<Vec<u8>>, ControlError> {
        if self.protocol < QUERIES {
            return Err(ControlError::TooOld);
        }
        let query =
            query.to_vec().try_into().map_err(|_| ControlError::Refused("a query over its limit".to_owned()))?;
        let (number, answer) = self.queries.begin();
        packet::send(&self.socket, &FromAgent::Query { number, container, server, query }, NONE)
            .await
            .map_err(PacketError::from)?;
        let answered = timeout(QUERY_DEADLINE, answer).await;
        self.queries.forget(number);
        answered.map_err(|_| ControlError::TimedOut)?.map_err(|_| ControlError::Ended)
    }

    async fn ask(&self, request: Request, descriptors: &[OwnedFd]) -> Result<Vec<Status>, ControlError> {
        let mut turn = self.turn.lock().await;
        if turn.broken {
            return Err(ControlError::Ended);
        }
        // Whoever gives up in between leaves a connection of which nobody knows how far it is.
        turn.broken = true;
        let answered = timeout(DEADLINE, self.exchange(&mut turn, request, descriptors)).await;
        let result = answered.map_err(|_| ControlError::TimedOut)?;
        turn.broken = !matches!(result, Ok(_) | Err(ControlError::Refused(_)));
        result
    }

    async fn exchange(
        &self,
        turn: &mut Turn,
        request: Request,
        descriptors: &[OwnedFd],
    ) -> Result<Vec<Status>, ControlError> {
        turn.last += 1;
        let number = turn.last;
        let message = FromAgent::Request { number, request };
        packet::send(&self.socket, &message, descriptors).await.map_err(PacketError::from)?;
        let mut listed = Vec::new();
        while let Some((of, answer)) = turn.answers.recv().await {
            match answer {
                _ if of != number => {}
                Answer::Listed(status) => listed.push(*status),
                Answer::Done => return Ok(listed),
                Answer::Refused(reason) => return Err(ControlError::Refused(reason.to_string())),
            }
        }
        Err(ControlError::Ended)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Reads what the proxy sends until the connection ends.
async fn read(
    socket: Arc<UnixSeqpacket>,
    changes: Arc<Changes>,
    answers: mpsc::Sender<(u64, Answer)>,
    queries: Arc<Queries>,
) {
    // Also where the task is cancelled, so that nobody waits for an event of a connection that is gone.
    struct End(Arc<Changes>, Arc<Queries>);
    impl Drop for End {
        fn drop(&mut self) {
            self.0.end();
            self.1.end();
        }
    }
    let changes = End(changes, queries);
    loop {
        match packet::receive::<FromProxy>(&socket).await {
            Ok(Some((FromProxy::Answer { number, answer }, _))) => {
                if answers.send((number, answer)).await.is_err() {
                    return;
                }
            }
            Ok(Some((FromProxy::Queried { number, answer }, _))) => {
                changes.1.answer(number, answer.map(|answer| answer.to_vec()));
            }
            Ok(Some((FromProxy::Notice(Notice::Changed(status)), _))) => changes.0.put(*status),
            Ok(Some((FromProxy::Notice(Notice::ReplySocketWanted { port }), _))) => {
                if supply(&socket, port).await.is_err() {
                    return;
                }
            }
            Ok(Some((FromProxy::Notice(Notice::Welcome { .. }), _))) => {}
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(error = %error, "the proxy's control connection failed");
                return;
            }
        }
    }
}

async fn supply(socket: &UnixSeqpacket, port: u16) -> io::Result<()> {
    let opened = socket::open_reply_socket(port);
    if let Err(error) = &opened {
        tracing::warn!(port, %error, "the proxy's reply socket cannot be opened; containers get no answers from this port");
    }
    let descriptor: Vec<OwnedFd> = opened.into_iter().collect();
    packet::send(socket, &FromAgent::ReplySocket { port }, &descriptor).await
}
