//! A query's way to an answer: the servers of the policy in turn, each over a connection that queries share.

use super::{PORT, connection, message::Query};
use crate::route::Route;
use hoody_protocol::address::is_public;
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// How long one server has for an answer, with connecting.
const DEADLINE: Duration = Duration::from_secs(4);
/// Servers with a connection, per container. More are in use only where a container asks many of its own choice.
const SERVERS: usize = 8;
/// Queries that wait to be written to one server.
const WAITING: usize = 64;

/// A query on its way, and where its answer goes. Dropping `answer` says that there is none.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) query: Arc<Query>,
    pub(super) answer: oneshot::Sender<Vec<u8>>,
}

/// Connections to name servers, as long as they are in use.
#[derive(Debug, Default)]
pub(crate) struct Servers(Mutex<HashMap<IpAddr, mpsc::Sender<Question>>>);

/// The answer, from the first server that gives one.
pub(crate) async fn resolve(route: &Arc<Route>, query: Query, asked: IpAddr) -> Option<Vec<u8>> {
    let named = &route.egress.policy.dns_servers;
    // Without servers in the policy the container's own choice holds, as it does for every other connection; but
    // a private one is the server's or a stranger's behind the upstream, and never what was meant.
    let own = is_public(asked).is_ok().then_some(asked);
    let servers: Vec<IpAddr> = if named.is_empty() { own.into_iter().collect() } else { named.to_vec() };
    let query = Arc::new(query);
    for server in servers {
        // A connection may end just as the query is written to it; a fresh one does not.
        for _ in 0..2 {
            match timeout(DEADLINE, ask(route, server, query.clone())).await {
                Ok(Some(answer)) => return Some(answer),
                Ok(None) => {}
                Err(_) => break,
            }
        }
    }
    None
}

async fn ask(route: &Arc<Route>, server: IpAddr, query: Arc<Query>) -> Option<Vec<u8>> {
    let (sender, answer) = oneshot::channel();
    let mut question = Question { query, answer: sender };
    loop {
        let server = connected(route, server)?;
        match server.send(question).await {
            Ok(()) => return answer.await.ok(),
            Err(mpsc::error::SendError(back)) => question = back,
        }
    }
}

/// The connection's queue; a new connection where there is none. `None` where there are too many.
fn connected(route: &Arc<Route>, server: IpAddr) -> Option<mpsc::Sender<Question>> {
    let mut servers = route.servers.0.lock().unwrap_or_else(PoisonError::into_inner);
    servers.retain(|_, queue| !queue.is_closed());
    if let Some(queue) = servers.get(&server) {
        return Some(queue.clone());
    }
    if servers.len() >= SERVERS {
        return None;
    }
    let (sender, questions) = mpsc::channel(WAITING);
    servers.insert(server, sender.clone());
    let work = connection::run(route.clone(), SocketAddr::new(server, PORT), questions);
    tokio::spawn(route.session.ended.clone().run_until_cancelled_owned(work));
    Some(sender)
}
