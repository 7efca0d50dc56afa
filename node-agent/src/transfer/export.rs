//! Exports: the archive of a container, for whoever asked the control plane for it.
//!
//! A snapshot is kept, offered on a stream of the bulk connection, packed as fast as it is taken, and deleted, however
//! that ends. Nothing is gone on with: a stream that breaks, or that nobody reads, is over.

use super::{Broken, BulkTransfers, OPEN_DEADLINE};
use crate::{
    archive::{self, PackError, Packing},
    storage::StorageError,
};
use hoody_protocol::{
    container::Cause,
    export::{ExportOffer, ExportOrder},
    id::{ContainerId, ExportId},
    link::CommandReply,
    stream,
    stream_digest::StreamHasher,
    transfer::{PRIORITY, TransferData, TransferReply},
};
use quinn::SendStream;
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// Exports at once.
const MAX_EXPORTS: usize = 2;
/// Time in which whoever reads has to take a piece.
const SILENCE: Duration = Duration::from_secs(180);
/// The time of a whole export.
const EXPORT_DEADLINE: Duration = Duration::from_secs(6 * 3600);
/// The time in which the end has to arrive.
const END_DEADLINE: Duration = Duration::from_secs(30);

/// The exports at work.
#[derive(Debug, Default)]
pub(super) struct Running(Mutex<HashMap<ExportId, (ContainerId, watch::Sender<bool>)>>);

impl Running {
    fn lock(&self) -> MutexGuard<'_, HashMap<ExportId, (ContainerId, watch::Sender<bool>)>> {
        // Every change is a single insertion or removal: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, and what says that the export is to end; `None` where there are too many, or one of the container.
    fn begin(self: &Arc<Self>, export: ExportId, container: ContainerId) -> Option<(Place, watch::Receiver<bool>)> {
        let mut running = self.lock();
        if running.len() >= MAX_EXPORTS || running.values().any(|(other, _)| *other == container) {
            return None;
        }
        let (sender, ended) = watch::channel(false);
        running.insert(export, (container, sender));
        Some((Place { running: self.clone(), export }, ended))
    }

    /// Ends the exports of the container.
    pub(super) fn end_all_of(&self, container: ContainerId) {
        for (_, ended) in self.lock().values().filter(|(other, _)| *other == container) {
            ended.send_replace(true);
        }
    }
}

/// A place among the exports, given up when it is dropped.
struct Place {
    running: Arc<Running>,
    export: ExportId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.running.lock().remove(&self.export);
    }
}

impl BulkTransfers {
    /// Carries out an order; the archive is then offered on the bulk connection.
    pub async fn export(&self, order: ExportOrder) -> CommandReply {
        let (export, container) = (order.export, order.container);
        let Some((place, ended)) = self.exporting.begin(export, container) else {
            let message = "the server makes as many archives as it can at once, or one of this container: wait for it";
            return CommandReply::Refused(Cause::new("export_busy", message));
        };
        // A task of its own: whatever becomes of the order, what is kept is deleted.
        let (transfers, document) = (self.clone(), order.document.into_inner());
        let (answer, answered) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            match transfers.exports.keep(export, container).await {
                Ok(root) => {
                    hoody_fault::point!("export.kept");
                    let _ = answer.send(Ok(()));
                    transfers.send_archive(export, root, document, ended).await;
                }
                Err(error) => {
                    tracing::warn!(%export, %container, error = &error as &dyn std::error::Error, "begin an export");
                    let _ = answer.send(Err(kept(&error)));
                }
            }
            if let Err(error) = transfers.exports.forget(export).await {
                tracing::error!(%export, error = &error as &dyn std::error::Error, "what was exported is left");
            }
            drop(place);
        });
        match answered.await {
            Ok(Ok(())) => CommandReply::Accepted,
            Ok(Err(cause)) => CommandReply::Refused(cause),
            Err(_) => CommandReply::Refused(Cause::new("export_failed", "the archive could not be begun")),
        }
    }

    async fn send_archive(&self, export: ExportId, root: PathBuf, document: Vec<u8>, mut ended: watch::Receiver<bool>) {
        let sending = tokio::time::timeout(EXPORT_DEADLINE, self.offer_archive(export, root, document));
        let outcome = tokio::select! {
            outcome = sending => outcome,
            _ = ended.wait_for(|ended| *ended) => return tracing::info!(%export, "an export was ended: its container goes"),
        };
        match outcome {
            Ok(Ok(bytes)) => tracing::info!(%export, bytes, "a container was exported"),
            Ok(Err(error)) => {
                tracing::info!(%export, error = &error as &dyn std::error::Error, "an export broke off");
            }
            Err(_) => tracing::warn!(%export, "an export took too long"),
        }
    }

    /// Offers the archive and sends it; gives its length.
    async fn offer_archive(&self, export: ExportId, root: PathBuf, document: Vec<u8>) -> Result<u64, Broken> {
        let opening = async {
            let (mut send, mut recv) = self.bulk.connection().await?.open_bi().await?;
            let _ = send.set_priority(PRIORITY);
            stream::write(&mut send, &ExportOffer { export }).await?;
            Ok::<_, Broken>((send, stream::read::<TransferReply>(&mut recv).await?))
        };
        let opened = tokio::time::timeout(OPEN_DEADLINE, opening).await.map_err(|_| Broken::Silent)??;
        let (mut send, reply) = opened;
        if let TransferReply::Refused { cause, .. } = reply {
            return Err(Broken::Later(cause));
        }
        hoody_fault::point!("export.sending");
        let packing = archive::start(root, document).map_err(Broken::Thread)?;
        send_pieces(&mut send, packing).await
    }
}

async fn send_pieces(send: &mut SendStream, packing: Packing) -> Result<u64, Broken> {
    let Packing { mut pieces, ended } = packing;
    let (mut bytes, mut hasher) = (0, StreamHasher::new());
    let sending = async {
        while let Some(piece) = pieces.recv().await {
            bytes += piece.len() as u64;
            hasher.update(&piece);
            write(send, &TransferData::Piece(piece.try_into().unwrap_or_default())).await?;
        }
        Ok(())
    };
    let sent: Result<(), Broken> = sending.await;
    // The thread then finds nobody to write to: what it reads is deleted after it has ended.
    drop(pieces);
    let ended = ended.await;
    sent?;
    let end = match ended {
        Ok(Ok(_)) => TransferData::End { bytes, own_bytes: None, digest: hasher.digest() },
        Ok(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a container was not packed");
            TransferData::Failed(unpacked(&error))
        }
        Err(_) => TransferData::Failed(Cause::new("export_failed", "the archive could not be made")),
    };
    write(send, &end).await?;
    // Refused only where the stream is gone already.
    let _ = send.finish();
    let _ = tokio::time::timeout(END_DEADLINE, send.stopped()).await;
    Ok(bytes)
}

async fn write(send: &mut SendStream, data: &TransferData) -> Result<(), Broken> {
    let written = stream::write_patiently(send, data);
    Ok(tokio::time::timeout(SILENCE, written).await.map_err(|_| Broken::Silent)??)
}

fn kept(error: &StorageError) -> Cause {
    match error {
        StorageError::Missing { .. } => {
            Cause::new("export_source_missing", "the container's file system is not on its server yet")
        }
        _ => Cause::new("export_failed", "the container's file system could not be kept for its archive"),
    }
}

fn unpacked(error: &PackError) -> Cause {
    match error {
        PackError::Io { .. } | PackError::Output(_) => {
            Cause::new("export_failed", "the container's file system could not be read on its server")
        }
        limit => Cause::new("export_too_large", format!("the container cannot be put into an archive: {limit}")),
    }
}
