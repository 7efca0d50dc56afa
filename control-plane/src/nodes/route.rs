//! The way to a server's node: over its link, where this process has it, else through the replica that has it.

use super::{Nodes, remote::OpenError, transfers::Ends};
use crate::store::StoreError;
use hoody_protocol::{
    id::ServerId,
    replica::RelayPurpose,
    stream::{self, AskError, StreamError},
    tag::Message,
};
use std::time::Duration;
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

/// Whether a server's node can be asked something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Over its link, or through another replica.
    Reached,
    /// It is linked to a replica that gives others no streams.
    Elsewhere,
    /// It is not linked to any.
    Offline,
}

impl Nodes {
    /// Whether the server's node can be asked something. `online` is what the server's row says: where this process
    /// asks no other replica, there is nothing else to go by.
    pub async fn reach(&self, server: ServerId, online: bool) -> Result<Reach, StoreError> {
        if self.is_linked(server) {
            return Ok(Reach::Reached);
        }
        if !online {
            return Ok(Reach::Offline);
        }
        if !self.replicas.is_on() {
            return Ok(Reach::Elsewhere);
        }
        Ok(match self.replicas.holders(&[server]).await?.get(&server) {
            Some(holder) if holder.address.is_some() => Reach::Reached,
            Some(_) => Reach::Elsewhere,
            None => Reach::Offline,
        })
    }

    /// Asks the server's node something; `Err(None)` where it is not reached.
    pub async fn ask<Q: Message, A: Message>(
        &self,
        server: ServerId,
        question: &Q,
        deadline: Duration,
    ) -> Result<A, Option<AskError>> {
        if let Some((_, connection)) = self.registry.link_of(server) {
            return stream::ask(&connection, question, deadline).await.map_err(Some);
        }
        let asked = async {
            let (ends, _) = self.replicas.relay(server, RelayPurpose::Question).await.map_err(|error| match error {
                OpenError::NotLinked => None,
                OpenError::TooMany | OpenError::Deadline => Some(AskError::Deadline),
                OpenError::Broken(error) => Some(AskError::Stream(error)),
            })?;
            stream::exchange(ends, question).await.map_err(Some)
        };
        timeout(deadline, asked).await.map_err(|_| Some(AskError::Deadline))?
    }

    /// A stream for a process, terminal or log, and its place among those of the link, or of the connection to the
    /// replica that has it.
    pub(super) async fn conversation(
        &self,
        server: ServerId,
    ) -> Result<(Ends, Option<OwnedSemaphorePermit>), OpenError> {
        let Some(here) = self.registry.exec_stream(server) else {
            return self.replicas.relay(server, RelayPurpose::Conversation).await;
        };
        let (connection, permit) = here.map_err(|_| OpenError::TooMany)?;
        let ends = connection.open_bi().await;
        let ends = ends.map_err(|error| OpenError::Broken(StreamError::Read(quinn::ReadError::from(error))))?;
        // Commands and reports go first.
        let _ = ends.0.set_priority(stream::EXEC_PRIORITY);
        Ok((ends, Some(permit)))
    }
}
