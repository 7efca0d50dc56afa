//! The public image catalogue.

use super::{
    caller::Caller,
    envelope::{Failure, Reply, Success},
    pagination::{Order, Page, Pagination, Sort},
    path::Id,
    query::Query,
    time::rfc3339,
};
use crate::{
    app::App,
    error::ServiceError,
    service::image::{self, Bounds, PRICE_CENTS, RATING, Wanted},
    store::image::{Filter, ImageRow, Order as StoreOrder},
};
use axum::extract::State;
use chrono::DateTime;
use hoody_protocol::id::ImageId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes of this resource.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get))
}

/// What the list can be ordered by. Price and rating are the same for every image, so that the name decides.
const SORT_FIELDS: [&str; 4] = ["alias", "added_date", "price", "rating"];

/// Filters of the list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// The distribution, for example `debian`.
    #[serde(default)]
    os: String,
    /// The machine architecture, for example `amd64`.
    #[serde(default)]
    architecture: String,
    /// The lowest price.
    min_price: Option<f64>,
    /// The highest price.
    max_price: Option<f64>,
    /// The lowest average rating, from 0 to 5.
    min_rating: Option<f64>,
    /// The highest average rating, from 0 to 5.
    max_rating: Option<f64>,
    /// Part of name, description, distribution or release.
    #[serde(default)]
    search: String,
}

/// `sort_by` and `sort_order`, for the documentation; [`Sort`] reads them.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "documentation of what Sort reads")]
struct SortQuery {
    /// `alias` (default), `added_date`, `price` or `rating`.
    sort_by: Option<String>,
    /// `asc` (default) or `desc`.
    sort_order: Option<String>,
}

/// An image of the catalogue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Image)]
pub struct ImageView {
    /// Identity.
    #[schema(value_type = String)]
    pub id: ImageId,
    /// Catalogue name, for example `debian/12`; what a container's `container_image` names.
    pub alias: String,
    /// The same name.
    pub image_name: String,
    /// A sentence for people.
    pub description: String,
    /// Distribution.
    pub os: String,
    /// Its release.
    pub release: String,
    /// Flavour.
    pub variant: Option<String>,
    /// Machine architecture.
    pub architecture: String,
    /// Bytes of all layers as transferred.
    pub size: u64,
    /// Price; every image is free.
    pub price: f64,
    /// Average rating; 0 where nobody has rated it.
    pub average_rating: f64,
    /// Number of ratings.
    pub rating_count: u64,
    /// True where containers of it are kept ready.
    pub prespawn: bool,
    /// Its icon.
    pub icon_url: Option<String>,
    /// When it was added.
    pub added_date: String,
}

impl From<ImageRow> for ImageView {
    fn from(row: ImageRow) -> Self {
        Self {
            id: row.id,
            alias: row.name.clone(),
            image_name: row.name,
            description: row.description,
            os: row.os,
            release: row.release,
            variant: row.variant,
            architecture: row.architecture,
            size: row.size_bytes,
            price: PRICE_CENTS as f64 / 100.0,
            average_rating: RATING,
            rating_count: 0,
            prespawn: false,
            icon_url: None,
            added_date: rfc3339(row.created_at as i64),
        }
    }
}

/// An image with everything that is known of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ImageDetails)]
pub struct DetailsView {
    /// What lists show too.
    #[serde(flatten)]
    pub image: ImageView,
    /// The build: when the image was last imported, as `YYYYMMDDhhmmss`.
    pub serial: String,
}

impl From<ImageRow> for DetailsView {
    fn from(row: ImageRow) -> Self {
        let imported = DateTime::from_timestamp_millis(row.updated_at as i64).unwrap_or_default();
        Self { serial: imported.format("%Y%m%d%H%M%S").to_string(), image: row.into() }
    }
}

/// A page of images.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ImageList)]
pub struct ListView {
    /// The images.
    pub images: Vec<ImageView>,
    /// The page's place in the list.
    pub pagination: Pagination,
}

/// Lists the images that containers can be made from.
#[utoipa::path(
    get, path = "/api/v1/images/public", operation_id = "images.listPublic", tag = "images",
    params(ListQuery, Page, SortQuery),
    responses((status = 200, body = Success<ListView>), (status = 400, body = Failure)),
)]
async fn list(
    _caller: Caller,
    State(app): State<App>,
    page: Page,
    sort: Sort,
    Query(query): Query<ListQuery>,
) -> Result<Reply<ListView>, ServiceError> {
    let order = sort.among(&SORT_FIELDS, Order { by: "alias", descending: false })?;
    let order = match (order.by, order.descending) {
        ("added_date", false) => StoreOrder::Created,
        ("added_date", true) => StoreOrder::CreatedDescending,
        (_, false) => StoreOrder::Name,
        (_, true) => StoreOrder::NameDescending,
    };
    let wanted = Wanted {
        filter: Filter { os: query.os, architecture: query.architecture, search: query.search },
        price: Bounds { min: query.min_price, max: query.max_price },
        rating: Bounds { min: query.min_rating, max: query.max_rating },
    };
    let (rows, total) = image::list(&app.store, wanted, order, page.limit as u32, page.offset()).await?;
    let pagination = page.of(total);
    Ok(Reply::list(ListView { images: rows.into_iter().map(Into::into).collect(), pagination }, pagination))
}

/// One image.
#[utoipa::path(
    get, path = "/api/v1/images/public/{id}", operation_id = "images.getDetails", tag = "images",
    params(("id" = String, Path, description = "The image")),
    responses((status = 200, body = Success<DetailsView>), (status = 400, body = Failure),
        (status = 404, body = Failure)),
)]
async fn get(_caller: Caller, State(app): State<App>, Id(id): Id<ImageId>) -> Result<Reply<DetailsView>, ServiceError> {
    Ok(Reply::ok(image::get(&app.store, id).await?.into(), "here is the image"))
}
