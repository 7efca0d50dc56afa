//! Operators' view of the image catalogue: every image with its blobs, and deletion. Images come in by
//! `hoody-control-plane image import`.

use super::Admin;
use crate::{
    api::{
        envelope::{Failure, Reply, Success},
        images::DetailsView,
        pagination::{Page, Pagination},
        path::Id,
    },
    app::App,
    error::ServiceError,
    service::image::{self, Wanted},
    store::image::{ImageRow, Order},
};
use axum::extract::State;
use hoody_protocol::{
    id::ImageId,
    image::{Compression, Digest},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes of this resource.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(delete))
}

/// An image with what only operators see.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminImage)]
pub struct AdminImageView {
    /// What everybody sees.
    #[serde(flatten)]
    pub details: DetailsView,
    /// Identity over layers and configuration; nodes store the unpacked image under it.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// The layers, lowest first.
    pub layers: Vec<LayerView>,
}

/// One layer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminImageLayer)]
pub struct LayerView {
    /// Digest of the blob.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// `none`, `gzip` or `zstd`.
    #[schema(value_type = String)]
    pub compression: Compression,
}

impl From<ImageRow> for AdminImageView {
    fn from(row: ImageRow) -> Self {
        let digest = row.spec.digest;
        let layers = row.spec.layers.iter();
        let layers = layers.map(|l| LayerView { digest: l.digest, size: l.size, compression: l.compression }).collect();
        Self { details: row.into(), digest, layers }
    }
}

/// A page of images.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminImageList)]
pub struct AdminImageListView {
    /// The images.
    pub images: Vec<AdminImageView>,
    /// The page's place in the list.
    pub pagination: Pagination,
}

/// Lists the images by name.
#[utoipa::path(
    get, path = "/api/v1/admin/images", operation_id = "admin.images.list", tag = "admin",
    params(Page),
    responses((status = 200, body = Success<AdminImageListView>), (status = 400, body = Failure)),
)]
async fn list(_admin: Admin, State(app): State<App>, page: Page) -> Result<Reply<AdminImageListView>, ServiceError> {
    let (rows, total) =
        image::list(&app.store, Wanted::default(), Order::Name, page.limit as u32, page.offset()).await?;
    let pagination = page.of(total);
    let images = rows.into_iter().map(Into::into).collect();
    Ok(Reply::list(AdminImageListView { images, pagination }, pagination))
}

/// What was deleted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminImageDeleted)]
pub struct DeletedView {
    /// The image that is no longer there.
    #[schema(value_type = String)]
    pub id: ImageId,
}

/// Takes an image out of the catalogue. Containers made from it stay as they are.
#[utoipa::path(
    delete, path = "/api/v1/admin/images/{id}", operation_id = "admin.images.delete", tag = "admin",
    params(("id" = String, Path, description = "The image")),
    responses((status = 200, body = Success<DeletedView>), (status = 400, body = Failure),
        (status = 404, body = Failure), (status = 409, body = Failure)),
)]
async fn delete(
    _admin: Admin,
    State(app): State<App>,
    Id(id): Id<ImageId>,
) -> Result<Reply<DeletedView>, ServiceError> {
    image::delete(&app.store, &app.config.data_dir, id).await?;
    Ok(Reply::ok(DeletedView { id }, "the image is deleted; containers made from it stay as they are"))
}
