//! The other replicas: each announces an address beside its lease, and gives the others streams to the nodes that are
//! linked to it. So a process does all of a request itself, rights, limits and answer, and only the stream to the node
//! goes through whoever has the link. Nobody passes on what another replica asked for: a stream takes one hop at most.

mod dial;
mod listener;
mod pass;
mod serve;

pub(super) use listener::ReplicaListener;

use super::{remote::OpenError, transfers::Ends};
use crate::{
    config::Config,
    store::{
        Store, StoreError,
        replica::{self, Holder},
    },
};
use dial::{DialError, Dialled, Dialler};
use hoody_protocol::{
    id::ServerId,
    replica::{RelayPurpose, RelayReply, RelayRequest},
    stream::{self, StreamError},
    transport::{REPLICA_BULK_STREAMS, REPLICA_STREAMS},
};
use quinn::Connection;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

/// The time another replica has to give a stream.
const RELAY_DEADLINE: Duration = Duration::from_secs(10);
/// Streams of a connection that conversations leave to questions, and exports to transfers: however many of those stay
/// open for hours, these begin at once.
const KEPT_FOR_QUESTIONS: u32 = 64;
const KEPT_FOR_TRANSFERS: u32 = REPLICA_BULK_STREAMS / 2;

/// Which of the two connections to another replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// Questions and conversations.
    Talk,
    /// Archives and file systems.
    Bulk,
}

impl Lane {
    fn of(purpose: RelayPurpose) -> Self {
        match purpose {
            RelayPurpose::Question | RelayPurpose::Conversation => Self::Talk,
            RelayPurpose::Transfer(_) | RelayPurpose::Export(_) => Self::Bulk,
        }
    }

    /// How many streams may be open at once that last as long as a client likes.
    fn lasting(self) -> usize {
        let streams = match self {
            Self::Talk => REPLICA_STREAMS - KEPT_FOR_QUESTIONS,
            Self::Bulk => REPLICA_BULK_STREAMS - KEPT_FOR_TRANSFERS,
        };
        streams as usize
    }
}

/// Handle to the other replicas; empty until this one listens for them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Replicas(Arc<OnceLock<Inside>>);

#[derive(Debug)]
struct Inside {
    replica: Arc<str>,
    announced: String,
    store: Store,
    dialler: Dialler,
}

impl Replicas {
    /// True where this one listens for the others, and so may ask them.
    pub(super) fn is_on(&self) -> bool {
        self.0.get().is_some()
    }

    /// Where the others are told to connect.
    pub(super) fn announced(&self) -> Option<&str> {
        self.0.get().map(|inside| inside.announced.as_str())
    }

    /// Of these servers, those that are linked to another living replica.
    pub(super) async fn holders(&self, servers: &[ServerId]) -> Result<HashMap<ServerId, Holder>, StoreError> {
        let Some(inside) = self.0.get() else { return Ok(HashMap::new()) };
        let mut found = replica::holders(&inside.store, servers).await?;
        found.retain(|_, holder| *holder.replica != *inside.replica);
        Ok(found)
    }

    /// A connection to another replica: the one there is, or a new one.
    pub(super) async fn connection(&self, holder: &Holder, lane: Lane) -> Result<Dialled, DialError> {
        match self.0.get() {
            Some(inside) => inside.dialler.connection(holder, lane).await,
            None => Err(DialError::NoAddress),
        }
    }

    /// A stream to the server's node, through the replica that has its link, and the place that it takes among those
    /// that last as long as a client likes. What cannot be had for want of that replica is as if the server were offline.
    pub(super) async fn relay(
        &self,
        server: ServerId,
        purpose: RelayPurpose,
    ) -> Result<(Ends, Option<OwnedSemaphorePermit>), OpenError> {
        if !self.is_on() {
            return Err(OpenError::NotLinked);
        }
        let holder = match self.holders(&[server]).await {
            Ok(mut found) => found.remove(&server).ok_or(OpenError::NotLinked)?,
            Err(error) => {
                tracing::error!(%server, error = &error as &dyn std::error::Error, "look for a server's replica");
                return Err(OpenError::NotLinked);
            }
        };
        let opened = async {
            let dialled = self.connection(&holder, Lane::of(purpose)).await.map_err(|error| {
                tracing::warn!(
                    replica = holder.replica,
                    error = &error as &dyn std::error::Error,
                    "another replica is not reached"
                );
                OpenError::NotLinked
            })?;
            let place = match purpose {
                RelayPurpose::Conversation | RelayPurpose::Export(_) => {
                    Some(dialled.lasting.try_acquire_owned().map_err(|_| OpenError::TooMany)?)
                }
                RelayPurpose::Question | RelayPurpose::Transfer(_) => None,
            };
            Ok((open(&dialled.connection, RelayRequest { server, purpose }).await?, place))
        };
        timeout(RELAY_DEADLINE, opened).await.map_err(|_| OpenError::Deadline)?
    }
}

async fn open(connection: &Connection, request: RelayRequest) -> Result<Ends, OpenError> {
    let ended = |error| OpenError::Broken(StreamError::Read(quinn::ReadError::ConnectionLost(error)));
    let (mut send, mut recv) = connection.open_bi().await.map_err(ended)?;
    stream::write(&mut send, &request).await.map_err(OpenError::Broken)?;
    match stream::read(&mut recv).await.map_err(OpenError::Broken)? {
        RelayReply::Opened => Ok((send, recv)),
        RelayReply::NotLinked => Err(OpenError::NotLinked),
        RelayReply::TooMany => Err(OpenError::TooMany),
        RelayReply::Late => Err(OpenError::Deadline),
    }
}

/// What the others are told: as the settings say, or where the socket is.
fn announced(config: &Config, local: SocketAddr) -> String {
    config.replica_announced_address.clone().unwrap_or_else(|| local.to_string())
}
