//! The image catalogue: what it offers, what a client's name for an image means, import, deletion and
//! the collection of blobs that nobody names any more.

pub mod blobs;
pub mod icon;
pub mod import;
mod keeping;
mod name;
pub mod pull;
pub mod registry;

pub use blobs::blob_path;
pub use keeping::{keep, list_kept, rate};
pub use name::{MAX_NAME_CHARS, is_valid_name, resolve_name};

use crate::{
    error::{ServiceError, chain},
    store::{
        Store, StoreError,
        image::{self, Filter, ImageRow, Order},
    },
};
use blobs::{BlobError, BlobFolder, Collected};
use hoody_protocol::id::ImageId;
use std::{path::Path, time::Duration};

/// What every image costs, in cents.
pub const PRICE_CENTS: u64 = 0;
/// The highest rating.
pub const MAX_RATING: f64 = 5.0;
/// Characters of a search or filter text.
const MAX_FILTER_CHARS: usize = 128;

/// Limits of a number, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bounds {
    /// At least this.
    pub min: Option<f64>,
    /// At most this.
    pub max: Option<f64>,
}

impl Bounds {
    fn contains(self, value: f64) -> bool {
        self.min.is_none_or(|min| value >= min) && self.max.is_none_or(|max| value <= max)
    }

    fn check(self, what: &str, highest: f64, problems: &mut std::collections::BTreeMap<String, String>) {
        for (end, value) in [("min", self.min), ("max", self.max)] {
            if let Some(value) = value
                && !(0.0..=highest).contains(&value)
            {
                let problem = match highest.is_finite() {
                    true => format!("must be a number from 0 to {highest}"),
                    false => "must be a number that is not negative".to_owned(),
                };
                problems.insert(format!("{end}_{what}"), problem);
            }
        }
        if let (Some(min), Some(max)) = (self.min, self.max)
            && min > max
        {
            problems.insert(format!("min_{what}"), format!("must not be greater than max_{what}"));
        }
    }
}

/// Which images a client asks for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Wanted {
    /// Distribution, architecture and search text.
    pub filter: Filter,
    /// The price in the account's currency.
    pub price: Bounds,
    /// The average rating.
    pub rating: Bounds,
}

impl Wanted {
    /// Every bad field.
    pub fn check(&self) -> Result<(), ServiceError> {
        let mut problems = std::collections::BTreeMap::new();
        self.price.check("price", f64::INFINITY, &mut problems);
        self.rating.check("rating", MAX_RATING, &mut problems);
        let Filter { os, architecture, search, .. } = &self.filter;
        for (field, value) in [("os", os), ("architecture", architecture), ("search", search)] {
            // PostgreSQL cannot even compare with a NUL character.
            if value.chars().count() > MAX_FILTER_CHARS || value.contains('\0') {
                problems.insert(field.to_owned(), format!("must be at most {MAX_FILTER_CHARS} printable characters"));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(ServiceError::Invalid(problems)) }
    }
}

/// A page of the public catalogue, and how many images match in all.
pub async fn list(
    store: &Store,
    mut wanted: Wanted,
    order: Order,
    limit: u32,
    offset: u64,
) -> Result<(Vec<ImageRow>, u64), ServiceError> {
    wanted.check()?;
    if !wanted.price.contains(PRICE_CENTS as f64 / 100.0) {
        return Ok((Vec::new(), 0));
    }
    // Averages are kept in hundredths: what is within the bounds as it is shown is within them.
    wanted.filter.min_rating = wanted.rating.min.map(|rating| (rating * 100.0).ceil() as i64);
    wanted.filter.max_rating = wanted.rating.max.map(|rating| (rating * 100.0).floor() as i64);
    wanted.filter.architecture = import::oci_architecture(&wanted.filter.architecture).to_owned();
    Ok(image::list(store, &wanted.filter, order, limit, offset).await?)
}

/// The image with this id.
pub async fn get(store: &Store, id: ImageId) -> Result<ImageRow, ServiceError> {
    image::find(store, id).await?.ok_or(ServiceError::NotFound("image"))
}

/// The image that a client means by `wanted`, see [`resolve_name`]; `None` where the catalogue has none.
pub async fn resolve(store: &Store, wanted: &str) -> Result<Option<ImageRow>, StoreError> {
    let names = image::names(store).await?;
    match resolve_name(wanted, names.iter().map(String::as_str)) {
        Some(name) => image::find_by_name(store, name).await,
        None => Ok(None),
    }
}

/// Takes an image out of the catalogue, and its blobs off the disk unless somebody else names them.
/// Containers made from it are as they were.
pub async fn delete(store: &Store, data_dir: &Path, id: ImageId) -> Result<(), ServiceError> {
    let mut transaction = store.begin().await?;
    if !image::delete(&mut transaction, id).await? {
        return Err(ServiceError::NotFound("image"));
    }
    transaction.commit().await.map_err(StoreError::from)?;
    // The image is gone; blobs that stay for now go with the next collection.
    match collect_blobs(store, data_dir).await {
        Ok(Collected { blobs, bytes }) => tracing::info!(image = %id, blobs, bytes, "image deleted"),
        Err(error) => tracing::warn!(image = %id, error = chain(&error), "image deleted, its blobs are not yet"),
    }
    Ok(())
}

/// Why a collection did not take place.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The blob folder could not be changed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The references could not be read.
    #[error("read which blobs are in use")]
    Store(#[from] StoreError),
    /// The thread ended by a defect.
    #[error("collection was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
}

/// Removes every blob that no image and no container names. Does nothing, with [`BlobError::Busy`],
/// while an import goes on.
pub async fn collect_blobs(store: &Store, data_dir: &Path) -> Result<Collected, CollectError> {
    let data_dir = data_dir.to_owned();
    let folder = blocking(move || BlobFolder::lock(&data_dir, Duration::ZERO)).await?;
    let referenced = image::referenced_blobs(store).await?;
    blocking(move || folder.collect(&referenced)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, CollectError> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(CollectError::Interrupted)??)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
