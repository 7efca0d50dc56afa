//! The image catalogue's rows. A name is unique; importing it again replaces everything but the id and
//! the time of its first import. Containers carry their own copy of the specification, so that a
//! replaced or deleted image changes nothing for them.

use super::{Store, StoreError};
use hoody_protocol::{
    container::ContainerSpec,
    id::{ImageId, UserId},
    image::{Digest, ImageSpec},
    time::{UnixMs, now_ms},
};
use sqlx::{AnyConnection, Row, any::AnyRow};
use std::collections::HashSet;

/// Rows read at once where every row of a table is looked at.
const BATCH: i64 = 500;

/// An image of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRow {
    /// Identity; stays when the name is imported again.
    pub id: ImageId,
    /// Catalogue name, for example `debian/12`.
    pub name: String,
    /// A sentence for people.
    pub description: String,
    /// Distribution, for example `debian`.
    pub os: String,
    /// Its release, for example `12`.
    pub release: String,
    /// Flavour, for example `slim`.
    pub variant: Option<String>,
    /// Machine architecture in OCI terms, for example `amd64`.
    pub architecture: String,
    /// Bytes of all layers as transferred.
    pub size_bytes: u64,
    /// What a node needs to make it.
    pub spec: ImageSpec,
    /// When the name was first imported.
    pub created_at: UnixMs,
    /// When it was last imported.
    pub updated_at: UnixMs,
    /// Average of all ratings in hundredths; 0 without any.
    pub rating: i64,
    /// Number of ratings.
    pub rating_count: u64,
    /// True where it has a picture.
    pub has_icon: bool,
}

/// What is stored under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewImage {
    /// Catalogue name.
    pub name: String,
    /// A sentence for people.
    pub description: String,
    /// Distribution.
    pub os: String,
    /// Its release.
    pub release: String,
    /// Flavour.
    pub variant: Option<String>,
    /// Machine architecture in OCI terms.
    pub architecture: String,
    /// Bytes of all layers as transferred.
    pub size_bytes: u64,
    /// What a node needs to make it.
    pub spec: ImageSpec,
}

/// Which images a list shows. An empty text filters nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// The distribution, exactly, in any case.
    pub os: String,
    /// The architecture, exactly.
    pub architecture: String,
    /// Part of name, description, distribution or release, in any case.
    pub search: String,
    /// The lowest average rating, hundredths.
    pub min_rating: Option<i64>,
    /// The highest average rating, hundredths.
    pub max_rating: Option<i64>,
}

/// What a list is ordered by; the name decides between equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// By name.
    #[default]
    Name,
    /// By name, from the end.
    NameDescending,
    /// By time of the first import.
    Created,
    /// By time of the first import, newest first.
    CreatedDescending,
    /// By average rating.
    Rating,
    /// By average rating, the best first.
    RatingDescending,
}

/// What [`parse`] reads, of a query from `images`.
pub(super) const COLUMNS: &str = "images.id, images.name, images.description, images.os, images.release, \
    images.variant, images.architecture, images.size_bytes, images.spec, images.created_at, images.updated_at, \
    COALESCE((SELECT CAST(SUM(r.rating) AS BIGINT) / COUNT(*) FROM image_ratings r WHERE r.image_id = images.id), 0) \
    AS average_rating, \
    (SELECT CAST(COUNT(*) AS BIGINT) FROM image_ratings r WHERE r.image_id = images.id) AS rating_count, \
    (SELECT CAST(COUNT(*) AS BIGINT) FROM image_icons i WHERE i.image_id = images.id) AS icons";

/// Filters a list, where it is of [`COLUMNS`] as `listed`; `$1` to `$5`.
const MATCHES: &str = "($1 = '' OR LOWER(os) = $1) AND ($2 = '' OR architecture = $2) AND ($3 = '' \
     OR LOWER(name) LIKE $3 ESCAPE '!' OR LOWER(description) LIKE $3 ESCAPE '!' \
     OR LOWER(os) LIKE $3 ESCAPE '!' OR LOWER(release) LIKE $3 ESCAPE '!') \
     AND average_rating >= $4 AND average_rating <= $5";

/// Stores an image under its name, replacing what was there.
pub async fn put(connection: &mut AnyConnection, image: &NewImage) -> Result<ImageRow, StoreError> {
    sqlx::query(
        "INSERT INTO images (id, name, description, os, release, variant, architecture, size_bytes, spec, \
         created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10) \
         ON CONFLICT (name) DO UPDATE SET description = excluded.description, os = excluded.os, \
         release = excluded.release, variant = excluded.variant, architecture = excluded.architecture, \
         size_bytes = excluded.size_bytes, spec = excluded.spec, updated_at = excluded.updated_at",
    )
    .bind(ImageId::generate().to_string())
    .bind(image.name.as_str())
    .bind(image.description.as_str())
    .bind(image.os.as_str())
    .bind(image.release.as_str())
    .bind(image.variant.as_deref())
    .bind(image.architecture.as_str())
    .bind(image.size_bytes as i64)
    .bind(encode(&image.spec)?)
    .bind(now_ms() as i64)
    .execute(&mut *connection)
    .await?;
    let sql = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM images WHERE name = $1"));
    parse(&sqlx::query(sql).bind(image.name.as_str()).fetch_one(connection).await?)
}

/// Catalogue name of the image whose specification has this digest.
pub async fn name_of(store: &Store, digest: Digest) -> Result<Option<String>, StoreError> {
    // The digest of the whole stands in the text; that it is the whole's, only the parsed specification says.
    let rows = sqlx::query("SELECT name, spec FROM images WHERE spec LIKE $1 ORDER BY name")
        .bind(format!("%{digest}%"))
        .fetch_all(store.reader())
        .await?;
    for row in rows {
        let spec: ImageSpec = serde_json::from_str(row.try_get("spec")?)
            .map_err(|error| StoreError::Corrupt { what: "images.spec", source: Box::new(error) })?;
        if spec.digest == digest {
            return Ok(Some(row.try_get("name")?));
        }
    }
    Ok(None)
}

/// The image with this id.
pub async fn find(store: &Store, id: ImageId) -> Result<Option<ImageRow>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM images WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.to_string()).fetch_optional(store.reader()).await?;
    row.as_ref().map(parse).transpose()
}

/// The image with exactly this name. What a client wrote is first resolved by
/// [`crate::service::image::resolve_name`].
pub async fn find_by_name(store: &Store, name: &str) -> Result<Option<ImageRow>, StoreError> {
    let sql = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM images WHERE name = $1"));
    let row = sqlx::query(sql).bind(name.to_owned()).fetch_optional(store.reader()).await?;
    row.as_ref().map(parse).transpose()
}

/// The image with this id, which nobody replaces or deletes before the transaction of `connection`
/// ends: a container made from it within the transaction keeps the image's blobs from being collected.
pub async fn hold(connection: &mut AnyConnection, id: ImageId) -> Result<Option<ImageRow>, StoreError> {
    let lock = match connection.backend_name() {
        "PostgreSQL" => " FOR SHARE",
        // The transaction already is the only writer.
        _ => "",
    };
    let sql = sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM images WHERE id = $1{lock}"));
    let row = sqlx::query(sql).bind(id.to_string()).fetch_optional(connection).await?;
    row.as_ref().map(parse).transpose()
}

/// Every name of the catalogue with its image's architecture, in order.
pub async fn names(store: &Store) -> Result<Vec<String>, StoreError> {
    Ok(sqlx::query_scalar("SELECT name FROM images ORDER BY name").fetch_all(store.reader()).await?)
}

/// A page of the catalogue, and how many images match in all.
pub async fn list(
    store: &Store,
    filter: &Filter,
    order: Order,
    limit: u32,
    offset: u64,
) -> Result<(Vec<ImageRow>, u64), StoreError> {
    let os = filter.os.to_lowercase();
    let search = contains_pattern(&filter.search);
    let listed = format!("FROM (SELECT {COLUMNS} FROM images) AS listed WHERE {MATCHES}");
    let (least, most) = (filter.min_rating.unwrap_or(i64::MIN), filter.max_rating.unwrap_or(i64::MAX));
    let count = sqlx::AssertSqlSafe(format!("SELECT CAST(COUNT(*) AS BIGINT) {listed}"));
    let total: i64 = sqlx::query_scalar(count)
        .bind(os.clone())
        .bind(filter.architecture.clone())
        .bind(search.clone())
        .bind(least)
        .bind(most)
        .fetch_one(store.reader())
        .await?;
    let order = match order {
        Order::Name => "name",
        Order::NameDescending => "name DESC",
        Order::Created => "created_at, name",
        Order::CreatedDescending => "created_at DESC, name",
        Order::Rating => "average_rating, name",
        Order::RatingDescending => "average_rating DESC, name",
    };
    let page = sqlx::AssertSqlSafe(format!("SELECT * {listed} ORDER BY {order} LIMIT $6 OFFSET $7"));
    let rows = sqlx::query(page)
        .bind(os)
        .bind(filter.architecture.clone())
        .bind(search)
        .bind(least)
        .bind(most)
        .bind(i64::from(limit))
        .bind(i64::try_from(offset).unwrap_or(i64::MAX))
        .fetch_all(store.reader())
        .await?;
    let images = rows.iter().map(parse).collect::<Result<_, _>>()?;
    Ok((images, total as u64))
}

/// Removes an image from the catalogue; false where there was none.
pub async fn delete(connection: &mut AnyConnection, id: ImageId) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM images WHERE id = $1").bind(id.to_string()).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

/// Digests of every blob that an image of the catalogue or a container's specification names.
///
/// The catalogue is read first: a container that appears while the rest is read was made from an image
/// that the catalogue then held, provided that nothing is imported meanwhile (the caller holds the lock
/// of the blob folder).
pub async fn referenced_blobs(store: &Store) -> Result<HashSet<Digest>, StoreError> {
    let mut blobs = catalogue_blobs(store).await?;
    blobs.extend(container_blobs(store, "$3 = ''", "").await?);
    Ok(blobs)
}

/// Digests of the blobs that the account could have anyway: of images of the catalogue, and of its own containers.
pub async fn blobs_of(store: &Store, owner: UserId) -> Result<HashSet<Digest>, StoreError> {
    let mut blobs = catalogue_blobs(store).await?;
    blobs.extend(container_blobs(store, "owner_id = $3", &owner.to_string()).await?);
    Ok(blobs)
}

async fn catalogue_blobs(store: &Store) -> Result<HashSet<Digest>, StoreError> {
    let mut blobs = HashSet::new();
    let mut after = String::new();
    loop {
        let rows = sqlx::query("SELECT id, spec FROM images WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after.clone())
            .bind(BATCH)
            .fetch_all(store.reader())
            .await?;
        let Some(last) = rows.last() else { break };
        after = last.try_get("id")?;
        for row in &rows {
            let spec: ImageSpec = decode(row, "images.spec")?;
            blobs.extend(spec.layers.iter().map(|layer| layer.digest));
        }
    }
    Ok(blobs)
}

/// Those of the containers that match, where `$3` is `value`.
async fn container_blobs(store: &Store, matches: &str, value: &str) -> Result<HashSet<Digest>, StoreError> {
    let mut blobs = HashSet::new();
    let mut after = String::new();
    let sql = format!("SELECT id, spec FROM containers WHERE id > $1 AND {matches} ORDER BY id LIMIT $2");
    loop {
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql.clone()))
            .bind(after.clone())
            .bind(BATCH)
            .bind(value.to_owned())
            .fetch_all(store.reader())
            .await?;
        let Some(last) = rows.last() else { break };
        after = last.try_get("id")?;
        for row in &rows {
            let spec: ContainerSpec = decode(row, "containers.spec")?;
            blobs.extend(spec.image.layers.iter().map(|layer| layer.digest));
        }
    }
    Ok(blobs)
}

/// A LIKE pattern (escape character `!`) for lowercase texts that contain `part`; empty for an empty part.
fn contains_pattern(part: &str) -> String {
    if part.is_empty() {
        return String::new();
    }
    let mut pattern = String::from("%");
    for character in part.to_lowercase().chars() {
        if matches!(character, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

fn encode(spec: &ImageSpec) -> Result<String, StoreError> {
    serde_json::to_string(spec).map_err(|error| StoreError::Corrupt { what: "images.spec", source: Box::new(error) })
}

fn decode<T: serde::de::DeserializeOwned>(row: &AnyRow, what: &'static str) -> Result<T, StoreError> {
    let text: String = row.try_get("spec")?;
    serde_json::from_str(&text).map_err(|error| StoreError::Corrupt { what, source: Box::new(error) })
}

pub(super) fn parse(row: &AnyRow) -> Result<ImageRow, StoreError> {
    let id: String = row.try_get("id")?;
    let id = id.parse().map_err(|error| StoreError::Corrupt { what: "images.id", source: Box::new(error) })?;
    Ok(ImageRow {
        id,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        os: row.try_get("os")?,
        release: row.try_get("release")?,
        variant: row.try_get("variant")?,
        architecture: row.try_get("architecture")?,
        size_bytes: row.try_get::<i64, _>("size_bytes")? as u64,
        spec: decode(row, "images.spec")?,
        created_at: row.try_get::<i64, _>("created_at")? as u64,
        updated_at: row.try_get::<i64, _>("updated_at")? as u64,
        rating: row.try_get("average_rating")?,
        rating_count: row.try_get::<i64, _>("rating_count")? as u64,
        has_icon: row.try_get::<i64, _>("icons")? > 0,
    })
}

#[cfg(test)]
#[path = "image_tests.rs"]
pub(crate) mod tests;
