//! The images that users keep: taken from the catalogue, where every one is free, and rated.

use super::MAX_RATING;
use crate::{
    error::ServiceError,
    store::{
        Store, StoreError,
        image::{self, ImageRow},
        user_image::{self, KeptImage},
    },
};
use hoody_protocol::id::{ImageId, UserId};

/// A page of the user's images by when they took them, and how many there are.
pub async fn list_kept(
    store: &Store,
    user: UserId,
    descending: bool,
    limit: u32,
    offset: u64,
) -> Result<(Vec<KeptImage>, u64), ServiceError> {
    Ok(user_image::list(store, user, descending, limit, offset).await?)
}

/// Takes an image into the user's; taking it again changes nothing.
pub async fn keep(store: &Store, user: UserId, id: ImageId) -> Result<ImageRow, ServiceError> {
    let mut tx = store.begin().await?;
    let row = image::hold(&mut tx, id).await?.ok_or(ServiceError::NotFound("image"))?;
    user_image::keep(&mut tx, user, id).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(row)
}

/// Rates one of the user's images, in place of their rating before; gives the image with its new average.
pub async fn rate(store: &Store, user: UserId, id: ImageId, rating: f64) -> Result<ImageRow, ServiceError> {
    if !(0.0..=MAX_RATING).contains(&rating) {
        return Err(ServiceError::invalid("rating", format!("must be a number from 0 to {MAX_RATING}")));
    }
    let mut tx = store.begin().await?;
    image::hold(&mut tx, id).await?.ok_or(ServiceError::NotFound("image"))?;
    if !user_image::rate(&mut tx, user, id, (rating * 100.0).round() as i64).await? {
        return Err(ServiceError::Conflict("the image is none of yours: import it before you rate it".to_owned()));
    }
    tx.commit().await.map_err(StoreError::from)?;
    image::find(store, id).await?.ok_or(ServiceError::NotFound("image"))
}
