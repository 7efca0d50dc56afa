//! What is known in memory of servers, containers and transfers, wherever the server's link is: of those that are linked
//! to another replica, that one is asked. Whoever does not answer in time is left out, and what was heard here before
//! stands.

use super::{
    Measured, Nodes,
    replicas::{Lane, Replicas},
};
use crate::store::replica::Holder;
use hoody_protocol::{
    id::{ContainerId, ServerId, TransferId},
    replica::{Age, KnownQuery, KnownReply, MAX_ASKED, Moved},
    stats::{ContainerStats, NodeStats},
    stream::{self, StreamError},
    time::now_ms,
};
use quinn::SendStream;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::Hash,
    time::Duration,
};
use tokio::time::timeout;

/// The time that other replicas have, with that to connect to them.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// What is asked about, with the servers that have it.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Servers.
    pub servers: BTreeSet<ServerId>,
    /// Containers.
    pub containers: Vec<(ServerId, ContainerId)>,
    /// Transfers, with their target.
    pub transfers: Vec<(ServerId, TransferId)>,
}

/// What is known.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The last measurements of servers.
    pub servers: HashMap<ServerId, Measured<NodeStats>>,
    /// The last measurements of containers.
    pub containers: HashMap<ContainerId, Measured<ContainerStats>>,
    /// How far transfers are.
    pub transfers: HashMap<TransferId, Moved>,
}

impl Nodes {
    /// The last measurement of a server.
    pub async fn measured(&self, server: ServerId) -> Option<Measured<NodeStats>> {
        self.known(Asked { servers: [server].into(), ..Asked::default() }).await.servers.remove(&server)
    }

    /// The last measurement of a container of the server.
    pub async fn measured_container(
        &self,
        server: ServerId,
        container: ContainerId,
    ) -> Option<Measured<ContainerStats>> {
        let asked = Asked { containers: vec![(server, container)], ..Asked::default() };
        self.known(asked).await.containers.remove(&container)
    }

    /// How far a transfer to the server is, where a replica passes it on.
    pub async fn progress(&self, target: ServerId, transfer: TransferId) -> Option<Moved> {
        let asked = Asked { transfers: vec![(target, transfer)], ..Asked::default() };
        self.known(asked).await.transfers.remove(&transfer)
    }

    /// What is known of all that is asked about.
    pub async fn known(&self, asked: Asked) -> Known {
        let mut known = self.known_here(
            asked.servers.iter().copied(),
            asked.containers.iter().map(|(_, container)| *container),
            asked.transfers.iter().map(|(_, transfer)| *transfer),
        );
        if self.replicas.is_on() {
            self.ask_others(&asked, &mut known).await;
        }
        known
    }

    fn known_here(
        &self,
        servers: impl Iterator<Item = ServerId>,
        containers: impl Iterator<Item = ContainerId>,
        transfers: impl Iterator<Item = TransferId>,
    ) -> Known {
        Known {
            servers: servers.filter_map(|id| Some((id, self.measurements.node(id)?))).collect(),
            containers: containers.filter_map(|id| Some((id, self.measurements.container(id)?))).collect(),
            transfers: transfers.filter_map(|id| Some((id, self.transfers.progress(id)?.moved()))).collect(),
        }
    }

    async fn ask_others(&self, asked: &Asked, known: &mut Known) {
        let of_containers = asked.containers.iter().map(|(server, _)| server);
        let of_transfers = asked.transfers.iter().map(|(server, _)| server);
        let all: HashSet<ServerId> = asked.servers.iter().chain(of_containers).chain(of_transfers).copied().collect();
        let away: Vec<ServerId> = all.into_iter().filter(|server| !self.is_linked(*server)).collect();
        if away.is_empty() {
            return;
        }
        let holders = match self.replicas.holders(&away).await {
            Ok(holders) => holders,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "look for servers' replicas");
                return;
            }
        };
        let replicas: HashSet<&Holder> = holders.values().filter(|holder| holder.address.is_some()).collect();
        let questions = replicas.into_iter().flat_map(|holder| {
            let here = |server: &ServerId| holders.get(server) == Some(holder);
            let queries = queries(asked, here);
            queries.into_iter().map(move |query| (holder, query))
        });
        let answers = questions.map(|(holder, query)| async move {
            let answer = timeout(DEADLINE, ask(&self.replicas, holder, &query)).await;
            match answer {
                Ok(Ok(replies)) => replies,
                Ok(Err(reason)) => {
                    tracing::warn!(replica = holder.replica, reason, "another replica did not tell what it knows");
                    Vec::new()
                }
                Err(_) => Vec::new(),
            }
        });
        for reply in futures::future::join_all(answers).await.into_iter().flatten() {
            known.add(reply);
        }
    }
}

/// The questions about what is of the servers that are `here`, none of them too long.
fn queries(asked: &Asked, here: impl Fn(&ServerId) -> bool) -> Vec<KnownQuery> {
    let mut servers = asked.servers.iter().filter(|server| here(server)).copied().peekable();
    let mut containers = asked.containers.iter().filter(|(server, _)| here(server)).map(|(_, id)| *id).peekable();
    let mut transfers = asked.transfers.iter().filter(|(server, _)| here(server)).map(|(_, id)| *id).peekable();
    let mut queries = Vec::new();
    while servers.peek().is_some() || containers.peek().is_some() || transfers.peek().is_some() {
        let servers: Vec<_> = servers.by_ref().take(MAX_ASKED).collect();
        let containers: Vec<_> = containers.by_ref().take(MAX_ASKED).collect();
        let transfers: Vec<_> = transfers.by_ref().take(MAX_ASKED).collect();
        queries.push(KnownQuery {
            servers: servers.try_into().unwrap_or_default(),
            containers: containers.try_into().unwrap_or_default(),
            transfers: transfers.try_into().unwrap_or_default(),
        });
    }
    queries
}

async fn ask(replicas: &Replicas, holder: &Holder, query: &KnownQuery) -> Result<Vec<KnownReply>, String> {
    let dialled = replicas.connection(holder, Lane::Talk).await.map_err(|error| error.to_string())?;
    let (mut send, mut recv) = dialled.connection.open_bi().await.map_err(|error| error.to_string())?;
    stream::write(&mut send, query).await.map_err(|error| error.to_string())?;
    let _ = send.finish();
    let most = query.servers.len() + query.containers.len() + query.transfers.len();
    let mut replies = Vec::new();
    while replies.len() < most {
        match stream::read(&mut recv).await {
            Ok(reply) => replies.push(reply),
            Err(StreamError::Finished) => break,
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(replies)
}

impl Known {
    fn add(&mut self, reply: KnownReply) {
        match reply {
            KnownReply::Server { server, stats, age } => {
                take(&mut self.servers, server, Measured::aged(stats, age));
            }
            KnownReply::Container { stats, age } => {
                take(&mut self.containers, stats.container, Measured::aged(*stats, age));
            }
            KnownReply::Transfer { transfer, moved } => {
                self.transfers.insert(transfer, moved);
            }
        }
    }
}

/// Takes what another replica has measured, unless what is known here is newer: a link that was there may have come back,
/// and what it sent to the other before is still known there.
fn take<K: Eq + Hash, T>(known: &mut HashMap<K, Measured<T>>, of: K, measured: Measured<T>) {
    if known.get(&of).is_none_or(|ours| ours.received_at <= measured.received_at) {
        known.insert(of, measured);
    }
}

impl<T> Measured<T> {
    /// What another replica has measured, by our clock.
    fn aged(value: T, age: Age) -> Self {
        Self { value, taken_at: age.taken_at, received_at: now_ms().saturating_sub(age.age_ms) }
    }

    fn age(&self) -> Age {
        Age { taken_at: self.taken_at, age_ms: now_ms().saturating_sub(self.received_at) }
    }
}

/// Tells another replica what is known here, of what it asks about.
pub(super) async fn answer(nodes: &Nodes, send: &mut SendStream, query: KnownQuery) -> Result<(), StreamError> {
    let KnownQuery { servers, containers, transfers } = query;
    let known = nodes.known_here(
        servers.into_inner().into_iter(),
        containers.into_inner().into_iter(),
        transfers.into_inner().into_iter(),
    );
    for (server, measured) in known.servers {
        stream::write(send, &KnownReply::Server { server, age: measured.age(), stats: measured.value }).await?;
    }
    for measured in known.containers.into_values() {
        let age = measured.age();
        stream::write(send, &KnownReply::Container { stats: Box::new(measured.value), age }).await?;
    }
    for (transfer, moved) in known.transfers {
        stream::write(send, &KnownReply::Transfer { transfer, moved }).await?;
    }
    let _ = send.finish();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_about_the_servers_of_one_replica_and_no_longer_than_it_may_be() {
        let [here, there] = [1, 2].map(|byte| ServerId::from_bytes([byte; 12]));
        let many = MAX_ASKED + 1;
        let mut containers: Vec<_> = (0..many).map(|_| (here, ContainerId::generate())).collect();
        containers.push((there, ContainerId::generate()));
        let asked = Asked { servers: [here, there].into(), containers, ..Asked::default() };
        let queries = queries(&asked, |server| *server == here);
        let lengths: Vec<_> = queries.iter().map(|query| (query.servers.len(), query.containers.len())).collect();
        assert_eq!(lengths, [(1, MAX_ASKED), (0, 1)]);
        assert!(super::queries(&asked, |_| false).is_empty());
    }
}
