//! Pulling an image from a registry into the catalogue, for operators.

use super::{
    import::{self, ImportError, Naming, Overrides},
    registry::{Progress, PullError, PullRequest, Registry, Traces, pull},
};
use crate::store::{Store, image::ImageRow};
use std::path::Path;

/// Why an image could not be pulled into the catalogue.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The registry did not give it.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The catalogue does not take it.
    #[error(transparent)]
    Import(#[from] ImportError),
}

/// Pulls an image, replacing what its name meant. Containers made from the former one are as they were.
pub async fn pull_into_catalogue(
    store: &Store,
    data_dir: &Path,
    registry: &Registry,
    request: PullRequest,
    (naming, overrides): (Naming, Overrides),
    progress: &Progress,
) -> Result<ImageRow, CatalogueError> {
    naming.check()?;
    // What is wrong with the options is said before anything is fetched.
    import::apply(Default::default(), &overrides)?;
    let pulled = pull(registry, &request, &Traces::new(data_dir), progress).await?;
    let config = import::apply(pulled.spec.config.clone(), &overrides)?;
    let spec = hoody_protocol::image::ImageSpec::new(pulled.spec.layers.clone(), config);
    let new = naming.describe(spec, pulled.size, pulled.architecture.clone())?;
    // The blobs are locked for as long as `pulled` is there.
    let row = import::put(store, &new).await?;
    drop(pulled);
    Ok(row)
}
