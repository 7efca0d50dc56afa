//! Fetching layers: several at once, each resumed where it broke off, verified before it counts.

use super::{
    client::Session,
    dial,
    error::PullError,
    holder::Holder,
    pace::{Pace, Stalls},
    partial::Partial,
    progress::{Progress, Share},
    room,
    traces::Traces,
};
use crate::service::image::blobs::{blob_path, pulled_path};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use hoody_protocol::image::{Digest, Layer};
use reqwest::{Response, StatusCode, header::CONTENT_RANGE};
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// Layers of one image fetched at once.
const LAYERS_AT_ONCE: usize = 3;
/// Tries of one layer in a row that bring nothing.
const MAX_VAIN_TRIES: u32 = 5;
/// Tries of one layer.
const MAX_TRIES: u32 = 64;
/// Pause before the next try, doubled with each that brings nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Pieces between network and disk.
const WAITING_CHUNKS: usize = 16;

/// Fetches every layer that is not there yet.
pub(super) async fn layers(
    session: &Session,
    traces: &Arc<Traces>,
    holder: &Holder,
    layers: &[Layer],
    progress: &Progress,
) -> Result<(), PullError> {
    let distinct: BTreeMap<Digest, &Layer> = layers.iter().map(|layer| (layer.digest, layer)).collect();
    let stalls = Stalls::new(session.registry.patience.stall);
    let fetching = Fetching { session, traces, holder, stalls: &stalls };
    let fetches: Vec<_> = distinct.into_values().map(|layer| fetch(fetching, layer, progress).boxed()).collect();
    futures::stream::iter(fetches).buffer_unordered(LAYERS_AT_ONCE).try_collect().await
}

/// What the layers of an image have in common.
#[derive(Debug, Clone, Copy)]
struct Fetching<'a> {
    session: &'a Session,
    traces: &'a Arc<Traces>,
    holder: &'a Holder,
    stalls: &'a Stalls,
}

async fn fetch(fetching: Fetching<'_>, layer: &Layer, progress: &Progress) -> Result<(), PullError> {
    let (mut vain, mut tries) = (0, 0);
    let mut pace = Pace::new(layer.digest, fetching.stalls);
    loop {
        let share = progress.share();
        let error = match attempt(fetching, layer, &share, &mut pace).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_passing() => error,
            Err(error) => return Err(error),
        };
        if matches!(error, PullError::Stalled { .. }) && !fetching.stalls.forgive() {
            return Err(error);
        }
        tries += 1;
        // Who waits for another pull of the same layer is not trying in vain.
        vain = if share.withdraw() || matches!(error, PullError::Busy(_)) { 0 } else { vain + 1 };
        if vain >= MAX_VAIN_TRIES || (tries >= MAX_TRIES && !matches!(error, PullError::Busy(_))) {
            return Err(error);
        }
        tokio::time::sleep(FIRST_PAUSE * 2u32.pow(vain)).await;
    }
}

async fn attempt(fetching: Fetching<'_>, layer: &Layer, share: &Share<'_>, pace: &mut Pace) -> Result<(), PullError> {
    let Fetching { session, traces, holder, .. } = fetching;
    let data_dir = traces.data_dir();
    let Layer { digest, size, compression, .. } = *layer;
    let prefix = holder.prefix();
    let blob = holder.has(digest).then(|| blob_path(data_dir, digest));
    for path in blob.into_iter().chain([pulled_path(data_dir, &prefix, digest)]) {
        if tokio::fs::metadata(path).await.is_ok_and(|found| found.len() == size) {
            share.find(size);
            return Ok(());
        }
    }
    let held = Arc::clone(traces);
    let mut partial = tokio::task::spawn_blocking(move || Partial::open(held, &prefix, digest, size)).await??;
    if partial.written() < size {
        let from = Some(partial.written()).filter(|offset| *offset > 0);
        let response = pace.wait(session.get(&format!("blobs/{digest}"), None, from)).await??;
        if from.is_some() && !continues(&response, partial.written()) {
            partial.clear()?;
            if response.status() == StatusCode::PARTIAL_CONTENT {
                // Another part than was asked for.
                return Err(PullError::BrokeOff { digest, announced: size, found: 0 });
            }
        }
        share.find(partial.written());
        let (received, transferred) = transfer(partial, response, data_dir, share, pace).await?;
        partial = received;
        if let Err(error) = transferred {
            if matches!(error, PullError::TooLong { .. }) {
                partial.remove();
            }
            return Err(error);
        }
    } else {
        share.find(size);
    }
    tokio::task::spawn_blocking(move || partial.finish(compression)).await?
}

/// True where the answer begins at the offset (RFC 9110, 14.4).
fn continues(response: &Response, offset: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let begins = range.strip_prefix("bytes ").and_then(|rest| rest.split_once('-')).map(|(first, _)| first);
    response.status() == StatusCode::PARTIAL_CONTENT && begins.and_then(|first| first.parse().ok()) == Some(offset)
}

/// Writes and hashes on a thread of its own what the network brings. The file comes back whatever became of it.
async fn transfer(
    mut partial: Partial,
    mut response: Response,
    data_dir: &Path,
    share: &Share<'_>,
    pace: &mut Pace,
) -> Result<(Partial, Result<(), PullError>), PullError> {
    let host = response.url().host_str().unwrap_or_default().to_owned();
    let (sender, receiver) = mpsc::channel::<Bytes>(WAITING_CHUNKS);
    let folder = data_dir.to_owned();
    let writing = tokio::task::spawn_blocking(move || {
        let written = partial.append(receiver, |missing| room::check(&folder, missing));
        (partial, written)
    });
    let read = async {
        while let Some(chunk) = pace.wait(response.chunk()).await?.map_err(|error| dial::failed(&host, error))? {
            let bytes = chunk.len() as u64;
            if sender.send(chunk).await.is_err() {
                // The writer says why it does not take more.
                return Ok(());
            }
            share.fetch(bytes);
            pace.came(bytes);
        }
        Ok(())
    }
    .await;
    drop(sender);
    let (partial, written) = writing.await?;
    Ok((partial, written.and(read)))
}
