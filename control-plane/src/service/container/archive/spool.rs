//! An upload on its way to the disk, beside the blobs: gone when it is dropped, however far it came.

use crate::{
    error::ServiceError,
    service::image::blobs::{self, Upload},
};
use axum::body::Body;
use futures::StreamExt;
use hoody_protocol::image::{Digest, MAX_LAYER_BYTES};
use sha2::{Digest as _, Sha256};
use std::{path::Path, time::Duration};
use tokio::{io::AsyncWriteExt, time::timeout};

/// Bytes that stay free on the control plane's disk.
const RESERVED_BYTES: u64 = 1 << 30;
/// Bytes between two looks at the room that is left.
const LOOK_BYTES: u64 = 16 << 20;
/// Silence of the client that ends the upload.
const SILENCE: Duration = Duration::from_secs(60);

/// An upload that is on disk.
#[derive(Debug)]
pub(super) struct Spooled {
    pub(super) upload: Upload,
    pub(super) digest: Digest,
    pub(super) bytes: u64,
}

/// Writes the body down.
pub(super) async fn spool(data_dir: &Path, body: Body) -> Result<Spooled, ServiceError> {
    check_room(data_dir)?;
    let upload = blobs::upload(data_dir).map_err(ServiceError::internal)?;
    let mut file =
        tokio::fs::OpenOptions::new().write(true).open(upload.path()).await.map_err(ServiceError::internal)?;
    let mut body = body.into_data_stream();
    let (mut hasher, mut bytes, mut looked) = (Sha256::new(), 0u64, 0u64);
    loop {
        let silent = |_| ServiceError::invalid("archive", format!("stopped coming for {} s", SILENCE.as_secs()));
        let Some(piece) = timeout(SILENCE, body.next()).await.map_err(silent)? else { break };
        let piece = piece.map_err(|_| ServiceError::invalid("archive", "did not come to its end"))?;
        bytes += piece.len() as u64;
        if bytes > MAX_LAYER_BYTES {
            return Err(ServiceError::invalid("archive", format!("has more than {MAX_LAYER_BYTES} bytes")));
        }
        if bytes - looked >= LOOK_BYTES {
            looked = bytes;
            check_room(data_dir)?;
        }
        hasher.update(&piece);
        file.write_all(&piece).await.map_err(written)?;
    }
    file.flush().await.map_err(written)?;
    file.sync_all().await.map_err(written)?;
    let digest = Digest::from_bytes(hasher.finalize().into());
    Ok(Spooled { upload, digest, bytes })
}

fn check_room(data_dir: &Path) -> Result<(), ServiceError> {
    let found =
        nix::sys::statvfs::statvfs(data_dir).map_err(|errno| ServiceError::internal(std::io::Error::from(errno)))?;
    if found.blocks_available().saturating_mul(found.fragment_size()) > RESERVED_BYTES { Ok(()) } else { Err(full()) }
}

fn written(error: std::io::Error) -> ServiceError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => full(),
        _ => ServiceError::internal(error),
    }
}

fn full() -> ServiceError {
    ServiceError::Unavailable("the platform has no room for uploads now: try again later".to_owned())
}
