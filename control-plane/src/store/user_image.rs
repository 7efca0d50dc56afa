//! The images that users keep, and what they think of them.

use super::{
    Store, StoreError,
    image::{self, ImageRow},
};
use hoody_protocol::{
    id::{ImageId, UserId},
    time::now_ms,
};
use sqlx::{AnyConnection, Row};

/// An image that a user keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptImage {
    /// The image.
    pub image: ImageRow,
    /// The user's own rating, hundredths.
    pub rating: Option<i64>,
}

/// Adds an image to the user's; nothing where it is one of them.
pub async fn keep(connection: &mut AnyConnection, user: UserId, image: ImageId) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO user_images (user_id, image_id, created_at) VALUES ($1, $2, $3) \
         ON CONFLICT (user_id, image_id) DO NOTHING",
    )
    .bind(user.to_string())
    .bind(image.to_string())
    .bind(now_ms() as i64)
    .execute(connection)
    .await?;
    Ok(())
}

/// Rates an image that is one of the user's; false where it is none of them.
pub async fn rate(
    connection: &mut AnyConnection,
    user: UserId,
    image: ImageId,
    hundredths: i64,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO image_ratings (user_id, image_id, rating, updated_at) \
         SELECT user_id, image_id, $3, $4 FROM user_images WHERE user_id = $1 AND image_id = $2 \
         ON CONFLICT (user_id, image_id) DO UPDATE SET rating = excluded.rating, updated_at = excluded.updated_at",
    )
    .bind(user.to_string())
    .bind(image.to_string())
    .bind(hundredths)
    .bind(now_ms() as i64)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// A page of the user's images by when they were added, and how many there are.
pub async fn list(
    store: &Store,
    user: UserId,
    descending: bool,
    limit: u32,
    offset: u64,
) -> Result<(Vec<KeptImage>, u64), StoreError> {
    let total: i64 = sqlx::query_scalar("SELECT CAST(COUNT(*) AS BIGINT) FROM user_images WHERE user_id = $1")
        .bind(user.to_string())
        .fetch_one(store.reader())
        .await?;
    let direction = if descending { "DESC" } else { "ASC" };
    let sql = format!(
        "SELECT {}, (SELECT o.rating FROM image_ratings o WHERE o.image_id = images.id AND o.user_id = $1) \
         AS own_rating FROM images JOIN user_images k ON k.image_id = images.id WHERE k.user_id = $1 \
         ORDER BY k.created_at {direction}, images.name LIMIT $2 OFFSET $3",
        image::COLUMNS
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(user.to_string())
        .bind(i64::from(limit))
        .bind(i64::try_from(offset).unwrap_or(i64::MAX))
        .fetch_all(store.reader())
        .await?;
    let kept = rows.iter().map(|row| Ok(KeptImage { image: image::parse(row)?, rating: row.try_get("own_rating")? }));
    Ok((kept.collect::<Result<_, StoreError>>()?, total as u64))
}
