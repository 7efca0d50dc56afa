//! Pictures of images.

use super::{Store, StoreError};
use hoody_protocol::id::ImageId;
use sqlx::Row;

/// Makes a picture the image's; `content` is base64.
pub async fn put(store: &Store, image: ImageId, media_type: &str, content: &str) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query(
        "INSERT INTO image_icons (image_id, media_type, content) VALUES ($1, $2, $3) \
         ON CONFLICT (image_id) DO UPDATE SET media_type = excluded.media_type, content = excluded.content",
    )
    .bind(image.to_string())
    .bind(media_type.to_owned())
    .bind(content.to_owned())
    .execute(&mut *tx)
    .await?;
    Ok(tx.commit().await?)
}

/// The image's picture: media type and content in base64.
pub async fn get(store: &Store, image: ImageId) -> Result<Option<(String, String)>, StoreError> {
    let row = sqlx::query("SELECT media_type, content FROM image_icons WHERE image_id = $1")
        .bind(image.to_string())
        .fetch_optional(store.reader())
        .await?;
    row.map(|row| Ok((row.try_get("media_type")?, row.try_get("content")?))).transpose()
}
