//! The target's side: from the request to a read-only subvolume with the transfer's id.

use super::{Broken, BulkTransfers, OPEN_DEADLINE, RESUME_TIME};
use crate::storage::{Room, StageError, Staging, StorageError};
use hoody_protocol::{
    container::{Cause, ContainerSpec},
    id::{ContainerId, TransferId},
    stream,
    stream_digest::StreamDigest,
    transfer::{ACKNOWLEDGED_BYTES, PRIORITY, TransferData, TransferProgress, TransferReply, TransferRequest},
};
use quinn::{RecvStream, SendStream};
use std::{path::PathBuf, time::Duration};
use tokio::time::Instant;

/// Pause before a stream that broke is asked for again.
const PAUSE: Duration = Duration::from_millis(500);
/// Silence after which a stream counts as broken. The source's disk may take its time.
const SILENCE: Duration = Duration::from_secs(60);
/// The time in which the verdict has to reach the control plane.
const VERDICT_DEADLINE: Duration = Duration::from_secs(10);

/// A transfer to this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incoming {
    /// The transfer.
    pub transfer: TransferId,
    /// The container that it is for.
    pub container: ContainerId,
    /// What the stream is the difference from; `None`: from nothing.
    pub base: Option<TransferId>,
    /// What it may take.
    pub room: Room,
    /// The container stands still until it is here.
    pub held: bool,
}

impl Incoming {
    /// For the container of this specification.
    pub fn of(spec: &ContainerSpec, transfer: TransferId, base: Option<TransferId>) -> Self {
        let room = Room::of(spec.received_bytes());
        Self { transfer, container: spec.id, base, room, held: false }
    }
}

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A step on the pool failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The stream was not carried out.
    #[error(transparent)]
    Stage(StageError),
    /// The source or the control plane will not send it.
    #[error("it is not sent: {}", .0.message)]
    Refused(Cause),
    /// Nothing moved for too long.
    #[error("nothing was received for {} s", RESUME_TIME.as_secs())]
    Silent(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl TransferError {
    /// True where all of it came, or as much as may come, in vain: the same would come again.
    pub fn is_of_the_stream(&self) -> bool {
        use crate::storage::ReceiveError;
        match self {
            Self::Stage(StageError::Digest { .. } | StageError::TooLong { .. }) => true,
            Self::Stage(StageError::Receive(error)) => {
                matches!(error, ReceiveError::Refused { .. } | ReceiveError::Apply(_))
            }
            Self::Stage(_) | Self::Storage(_) | Self::Refused(_) | Self::Silent(_) => false,
        }
    }

    /// For the control plane and the container's owner.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Refused(cause) => cause.clone(),
            Self::Silent(_) => Cause::new("transfer_interrupted", "the other server could not be heard for too long"),
            Self::Stage(StageError::NoBase(_)) => {
                Cause::new("transfer_base_missing", "what the transfer is based on is no longer on this server")
            }
            Self::Stage(StageError::Digest { .. }) => {
                Cause::new("transfer_damaged", "what was received is not what was sent")
            }
            Self::Stage(StageError::TooLong { .. }) => {
                Cause::new("transfer_too_large", "the file system is larger than the container's disk")
            }
            Self::Stage(StageError::Receive(crate::storage::ReceiveError::Refused { .. })) => {
                Cause::new("transfer_not_acceptable", "the other server sent something that is not acceptable")
            }
            Self::Stage(StageError::Receive(crate::storage::ReceiveError::Apply(error)))
                if matches!(error.kind(), std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::StorageFull) =>
            {
                Cause::new("transfer_too_large", "the file system does not fit the container's disk on this server")
            }
            Self::Storage(_) | Self::Stage(_) => {
                Cause::new("transfer_failed", "the file system could not be written on this server")
            }
        }
    }
}

/// How an attempt ended that does not fail the transfer for good.
enum Attempt {
    /// All of it came; the verdict is awaited at the other end.
    Complete { verdict: SendStream, bytes: u64, digest: StreamDigest },
    /// The source begins anew: so does the staging.
    Anew,
}

enum Failed {
    Broken(Broken),
    Final(TransferError),
}

impl<E: Into<Broken>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

impl BulkTransfers {
    pub(super) async fn pull(&self, incoming: &Incoming) -> Result<PathBuf, TransferError> {
        let Incoming { transfer, container, .. } = *incoming;
        if self.lineages.has(container, transfer).await? {
            return Ok(self.lineages.path(container, transfer));
        }
        let _place = self.incoming.take(incoming.held).await;
        let (this, order) = (self.clone(), *incoming);
        let received = self.bulk.run(async move { this.pull_whole(&order).await }).await;
        if received.is_err()
            && let Err(error) = self.lineages.discard(container, transfer).await
        {
            // It goes with the next try, or when the agent starts.
            tracing::warn!(%transfer, error = &error as &dyn std::error::Error, "what came of a failed transfer stays");
        }
        received
    }

    /// Until all of it is here, or it fails for good.
    async fn pull_whole(&self, incoming: &Incoming) -> Result<PathBuf, TransferError> {
        let transfer = incoming.transfer;
        let mut staging = self.stage(incoming).await?;
        let mut heard = Instant::now();
        loop {
            let before = staging.bytes();
            let error = match self.attempt(transfer, &mut staging).await {
                Ok(Attempt::Anew) => {
                    tracing::info!(%transfer, "a transfer begins anew");
                    drop(staging);
                    staging = self.stage(incoming).await?;
                    continue;
                }
                Ok(Attempt::Complete { mut verdict, bytes, digest }) => {
                    let kept = staging.finish(bytes, digest).await.map_err(TransferError::Stage);
                    let says = match &kept {
                        Ok(_) => TransferProgress::Kept,
                        Err(error) => TransferProgress::Failed(error.cause()),
                    };
                    tell(&mut verdict, &says).await;
                    return kept;
                }
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::Broken(broken)) => broken,
            };
            tracing::info!(%transfer, bytes = staging.bytes(), error = &error as &dyn std::error::Error,
                "a transfer broke off; it is asked for again");
            if staging.bytes() > before {
                heard = Instant::now();
            } else if heard.elapsed() >= RESUME_TIME {
                return Err(match error {
                    Broken::Later(cause) => TransferError::Refused(cause),
                    error => TransferError::Silent(Box::new(error)),
                });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn stage(&self, incoming: &Incoming) -> Result<Staging, TransferError> {
        let Incoming { transfer, container, base, room, .. } = *incoming;
        self.lineages.stage(container, transfer, base, room).await.map_err(TransferError::Stage)
    }

    /// One stream, from the request to its end.
    async fn attempt(&self, transfer: TransferId, staging: &mut Staging) -> Result<Attempt, Failed> {
        let offset = staging.bytes();
        let opening = async {
            let (mut send, mut recv) = self.bulk.connection().await?.open_bi().await?;
            // What is sent here is little.
            let _ = send.set_priority(PRIORITY);
            stream::write(&mut send, &TransferRequest { transfer, offset }).await?;
            Ok::<_, Failed>((send, stream::read::<TransferReply>(&mut recv).await?, recv))
        };
        let opened = tokio::time::timeout(OPEN_DEADLINE, opening).await.map_err(|_| Broken::Silent)??;
        let (mut send, reply, mut recv) = opened;
        match reply {
            TransferReply::Begin { offset: begins } if begins == offset => {}
            TransferReply::Begin { .. } => return Ok(Attempt::Anew),
            TransferReply::Refused { cause, retry: true } => return Err(Broken::Later(cause).into()),
            TransferReply::Refused { cause, retry: false } => return Err(Failed::Final(TransferError::Refused(cause))),
        }
        match take(&mut send, &mut recv, staging).await {
            Ok((bytes, digest)) => Ok(Attempt::Complete { verdict: send, bytes, digest }),
            Err(failed) => {
                if let Failed::Final(error) = &failed {
                    tell(&mut send, &TransferProgress::Failed(error.cause())).await;
                }
                Err(failed)
            }
        }
    }
}

/// Takes the stream to its end; gives its length and digest as the source says them.
async fn take(
    send: &mut SendStream,
    recv: &mut RecvStream,
    staging: &mut Staging,
) -> Result<(u64, StreamDigest), Failed> {
    let mut told = staging.bytes();
    loop {
        let data = tokio::time::timeout(SILENCE, stream::read::<TransferData>(recv)).await;
        match data.map_err(|_| Broken::Silent)?? {
            TransferData::Piece(piece) => {
                let staged = staging.write(&piece).await;
                staged.map_err(|error| Failed::Final(TransferError::Stage(error)))?;
                if staging.bytes() - told >= ACKNOWLEDGED_BYTES {
                    told = staging.bytes();
                    stream::write(send, &TransferProgress::Taken(told)).await?;
                }
            }
            TransferData::End { bytes, digest, own_bytes } => {
                staging.counts(own_bytes.unwrap_or(0));
                // The rest of it too, however little that is.
                stream::write(send, &TransferProgress::Taken(staging.bytes())).await?;
                return Ok((bytes, digest));
            }
            TransferData::Failed(cause) => return Err(Failed::Final(TransferError::Refused(cause))),
        }
    }
}

/// Says how it ended, as far as anybody listens.
async fn tell(send: &mut SendStream, verdict: &TransferProgress) {
    let telling = async {
        stream::write(send, verdict).await.ok()?;
        send.finish().ok()?;
        // Arrived, before the stream is let go.
        send.stopped().await.ok()
    };
    let _ = tokio::time::timeout(VERDICT_DEADLINE, telling).await;
}
