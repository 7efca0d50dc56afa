//! Images from registries (OCI distribution specification v1.1; Docker's registries speak the same): finds the
//! image for a platform and fetches its layers into the blob folder, from where nodes get them.
//!
//! Registries are named by tenants and answer what they like. Where a pull goes is checked before each request
//! and at each resolution ([`dial`]); documents and layers are bounded before they are read and have the digest
//! they are named by; the form of documents is checked as that of an imported layout is.

mod auth;
mod client;
mod dial;
mod download;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod holder;
mod pace;
mod partial;
mod progress;
mod reference;
mod room;
mod source;
#[cfg(test)]
pub(crate) mod testing;
mod traces;

pub use auth::Credentials;
pub use client::Registry;
pub use error::PullError;
pub use holder::Holder;
pub use progress::Progress;
pub use reference::{InvalidReference, MAX_REFERENCE_CHARS, Reference};
pub use traces::Traces;

use super::{
    blobs::{self, BlobFolder, LOCK_DEADLINE},
    import::{
        ImportError, Platform,
        search::{Found, too_many_layers},
    },
};
use client::Session;
use hoody_protocol::{
    bounded::List,
    image::{ImageSpec, Layer, MAX_LAYER_BYTES},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Pause before the documents are asked for again, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Tries of the documents that may end without an answer.
const MAX_STUMBLES: u32 = 3;
/// Begins of a pull whose layers were collected meanwhile.
const MAX_BEGINS: u32 = 3;

/// What to pull.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// Which image.
    pub reference: Reference,
    /// The platform to choose of several.
    pub platform: Platform,
    /// What the registry wants to know of us.
    pub credentials: Option<Credentials>,
    /// Bytes that the layers together may have.
    pub max_bytes: u64,
    /// For whom.
    pub holder: Holder,
}

/// An image whose layers are blobs. As long as it is held nothing is collected: whoever has it makes the database
/// name the image, and drops it then.
#[derive(Debug)]
pub struct Pulled {
    /// What a node needs.
    pub spec: ImageSpec,
    /// Bytes of all layers.
    pub size: u64,
    /// In OCI terms.
    pub architecture: String,
    _lock: BlobFolder,
}

/// Pulls an image into the blobs of the folder of `traces`. What breaks off is resumed, here and by the next pull of the same
/// layers; what failed for good leaves nothing, and neither does what the caller gives up and forgets.
pub async fn pull(
    registry: &Registry,
    request: &PullRequest,
    traces: &Arc<Traces>,
    progress: &Progress,
) -> Result<Pulled, PullError> {
    let work = async {
        let mut begins = 1;
        loop {
            match once(registry, request, traces, progress).await {
                Err(PullError::Vanished(_)) if begins < MAX_BEGINS => begins += 1,
                outcome => return outcome,
            }
        }
    };
    let deadline = registry.patience.pull;
    let outcome = tokio::time::timeout(deadline, work).await;
    let outcome = outcome.unwrap_or(Err(PullError::Deadline(deadline.as_secs())));
    if outcome.is_err() {
        traces.forget();
    }
    outcome
}

async fn once(
    registry: &Registry,
    request: &PullRequest,
    traces: &Arc<Traces>,
    progress: &Progress,
) -> Result<Pulled, PullError> {
    let session = Session::new(registry.clone(), request.reference.clone(), request.credentials.clone())?;
    let session = Arc::new(session);
    let patience = registry.patience.find;
    let finding = tokio::time::timeout(patience, find(&session, &request.platform)).await;
    let found = finding.map_err(|_| PullError::Slow(patience.as_secs()))??;
    let mut layers = Vec::with_capacity(found.layers.len());
    for descriptor in &found.layers {
        let layer = Layer {
            digest: descriptor.digest()?,
            size: descriptor.size,
            compression: descriptor.compression()?,
            archive_bytes: None,
        };
        if layer.size > MAX_LAYER_BYTES {
            let what = format!("layer {} in bytes", layer.digest);
            return Err(ImportError::Limit { what, max: MAX_LAYER_BYTES }.into());
        }
        layers.push(layer);
    }
    let sizes: BTreeMap<_, _> = layers.iter().map(|layer| (layer.digest, layer.size)).collect();
    let bytes = sizes.values().fold(0u64, |sum, size| sum.saturating_add(*size));
    if bytes > request.max_bytes {
        return Err(PullError::ImageTooLarge { bytes, max: request.max_bytes });
    }
    let holder = &request.holder;
    traces.begin(holder, &layers);
    check_room(traces.data_dir(), holder, &layers)?;
    progress.begin(bytes);
    download::layers(&session, traces, holder, &layers, progress).await?;
    let (held, prefix, kept) = (Arc::clone(traces), holder.prefix(), layers.clone());
    let lock = tokio::task::spawn_blocking(move || adopt(held.data_dir(), &prefix, &kept)).await??;
    let size = layers.iter().map(|layer| layer.size).sum();
    let list = List::try_from(layers).map_err(|_| too_many_layers())?;
    Ok(Pulled {
        spec: ImageSpec::new(list, found.config),
        size,
        architecture: found.platform.architecture,
        _lock: lock,
    })
}

/// Finds the image, again where the registry only stumbled.
async fn find(session: &Arc<Session>, platform: &Platform) -> Result<Found, PullError> {
    let mut pause = FIRST_PAUSE;
    for _ in 0..MAX_STUMBLES {
        match source::find(session, platform).await {
            Err(error) if error.is_passing() => tokio::time::sleep(pause).await,
            outcome => return outcome,
        }
        pause *= 2;
    }
    source::find(session, platform).await
}

/// Makes blobs of the fetched layers, under the folder's lock.
fn adopt(data_dir: &Path, holder: &str, layers: &[Layer]) -> Result<BlobFolder, PullError> {
    let folder = BlobFolder::lock(data_dir, LOCK_DEADLINE)?;
    for layer in layers {
        if !folder.adopt(holder, layer.digest, layer.size)? {
            return Err(PullError::Vanished(layer.digest));
        }
    }
    Ok(folder)
}

/// An error where the layers that are missing would take what must stay free.
fn check_room(data_dir: &Path, holder: &Holder, layers: &[Layer]) -> Result<(), PullError> {
    blobs::make_folder(data_dir)?;
    let prefix = holder.prefix();
    let length = |path: PathBuf| path.metadata().map_or(0, |found| found.len());
    let is_missing = |layer: &&Layer| {
        let blob = holder.has(layer.digest).then(|| blobs::blob_path(data_dir, layer.digest));
        let mut paths = blob.into_iter().chain([blobs::pulled_path(data_dir, &prefix, layer.digest)]);
        !paths.any(|path| length(path) == layer.size)
    };
    let missing: u64 = layers
        .iter()
        .filter(is_missing)
        .map(|layer| layer.size.saturating_sub(length(blobs::partial_path(data_dir, &prefix, layer.digest))))
        .fold(0, u64::saturating_add);
    room::check(data_dir, missing)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
