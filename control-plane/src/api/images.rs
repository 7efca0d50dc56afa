//! The image catalogue, and the images that users keep of it.

use super::{
    caller::Caller,
    envelope::{Failure, Reply, Success},
    json::Json,
    pagination::{self, Order, Page, Pagination, Sort},
    path::Id,
    query::Query,
    time::rfc3339,
};
use crate::{
    app::App,
    error::ServiceError,
    service::image::{self, Bounds, PRICE_CENTS, Wanted, icon::icon_url},
    store::{
        image::{Filter, ImageRow, Order as StoreOrder},
        user_image::KeptImage,
    },
};
use axum::extract::State;
use chrono::DateTime;
use hoody_protocol::id::ImageId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The routes of this resource.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(list_own))
        .routes(routes!(import))
        .routes(routes!(purchase))
        .routes(routes!(rate))
        .routes(routes!(icon))
}

/// What the list can be ordered by. The price is the same for every image, so that the name decides.
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

impl ListQuery {
    fn wanted(self) -> Result<Wanted, ServiceError> {
        let wanted = Wanted {
            filter: Filter { os: self.os, architecture: self.architecture, search: self.search, ..Filter::default() },
            price: Bounds { min: self.min_price, max: self.max_price },
            rating: Bounds { min: self.min_rating, max: self.max_rating },
        };
        wanted.check().map(|()| wanted)
    }
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
    /// Where its icon is, for people.
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
            average_rating: average(row.rating),
            rating_count: row.rating_count,
            prespawn: false,
            icon_url: row.has_icon.then(|| format!("/api/v1/images/{}/icon", row.id)),
            added_date: rfc3339(row.created_at as i64),
        }
    }
}

/// Hundredths as stars.
fn average(hundredths: i64) -> f64 {
    hundredths as f64 / 100.0
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
    page: Result<Page, ServiceError>,
    sort: Sort,
    query: Result<Query<ListQuery>, ServiceError>,
) -> Result<Reply<ListView>, ServiceError> {
    let order = sort.among(&SORT_FIELDS, Order { by: "alias", descending: false });
    let (page, order, wanted) = pagination::together(page, order, query.and_then(|Query(query)| query.wanted()))?;
    let order = match (order.by, order.descending) {
        ("added_date", false) => StoreOrder::Created,
        ("added_date", true) => StoreOrder::CreatedDescending,
        ("rating", false) => StoreOrder::Rating,
        ("rating", true) => StoreOrder::RatingDescending,
        (_, false) => StoreOrder::Name,
        (_, true) => StoreOrder::NameDescending,
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

/// One of the caller's images.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserImage)]
struct OwnView {
    /// What everybody sees.
    #[serde(flatten)]
    image: ImageView,
    /// The caller has rated it.
    has_rated: bool,
    /// Their rating.
    user_rating: Option<f64>,
}

impl From<KeptImage> for OwnView {
    fn from(kept: KeptImage) -> Self {
        let user_rating = kept.rating.map(average);
        Self { image: kept.image.into(), has_rated: user_rating.is_some(), user_rating }
    }
}

/// A page of the caller's images.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UserImageList)]
struct OwnListView {
    /// The images.
    images: Vec<OwnView>,
    /// The page's place in the list.
    pagination: Pagination,
}

/// Lists the images that the caller took from the catalogue.
#[utoipa::path(
    get, path = "/api/v1/images/user", operation_id = "images.list", tag = "images",
    params(Page, SortQuery),
    responses((status = 200, body = Success<OwnListView>), (status = 400, body = Failure)),
)]
async fn list_own(
    caller: Caller,
    State(app): State<App>,
    page: Result<Page, ServiceError>,
    sort: Sort,
) -> Result<Reply<OwnListView>, ServiceError> {
    let order = sort.among(&["created_at"], Order { by: "created_at", descending: true });
    let (page, order, ()) = pagination::together(page, order, Ok(()))?;
    let (rows, total) =
        image::list_kept(&app.store, caller.user, order.descending, page.limit as u32, page.offset()).await?;
    let pagination = page.of(total);
    let images = rows.into_iter().map(Into::into).collect();
    Ok(Reply::list(OwnListView { images, pagination }, pagination))
}

/// Takes a free image into the caller's; taking it again changes nothing.
#[utoipa::path(
    post, path = "/api/v1/images/import/{id}", operation_id = "images.importFree", tag = "images",
    params(("id" = String, Path, description = "The image")),
    responses((status = 200, body = Success<ImageView>), (status = 400, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure)),
)]
async fn import(caller: Caller, State(app): State<App>, Id(id): Id<ImageId>) -> Result<Reply<ImageView>, ServiceError> {
    Ok(Reply::ok(image::keep(&app.store, caller.user, id).await?.into(), "the image is among yours"))
}

/// What a purchase cost.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ImagePurchase)]
struct PurchaseView {
    /// What was paid.
    price_paid: f64,
}

/// Buys an image. Every image is free, so that nothing is paid.
#[utoipa::path(
    post, path = "/api/v1/images/purchase/{id}", operation_id = "images.purchase", tag = "images",
    params(("id" = String, Path, description = "The image")),
    responses((status = 200, body = Success<PurchaseView>), (status = 400, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure)),
)]
async fn purchase(
    caller: Caller,
    State(app): State<App>,
    Id(id): Id<ImageId>,
) -> Result<Reply<PurchaseView>, ServiceError> {
    image::keep(&app.store, caller.user, id).await?;
    let paid = PurchaseView { price_paid: PRICE_CENTS as f64 / 100.0 };
    Ok(Reply::ok(paid, "the image is free and among yours: nothing was paid"))
}

/// A rating.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ImageRating)]
struct RateInput {
    /// From 0 to 5.
    #[schema(minimum = 0, maximum = 5)]
    rating: f64,
}

/// An image's ratings after one more.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ImageRated)]
struct RatedView {
    /// The caller's.
    new_rating: f64,
    /// Of everybody.
    average_rating: f64,
    /// How many there are.
    rating_count: u64,
}

/// Rates one of the caller's images, in place of their rating before.
#[utoipa::path(
    post, path = "/api/v1/images/rate/{id}", operation_id = "images.rate", tag = "images",
    params(("id" = String, Path, description = "The image")), request_body = RateInput,
    responses((status = 200, body = Success<RatedView>), (status = 400, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure)),
)]
async fn rate(
    caller: Caller,
    State(app): State<App>,
    Id(id): Id<ImageId>,
    Json(input): Json<RateInput>,
) -> Result<Reply<RatedView>, ServiceError> {
    let row = image::rate(&app.store, caller.user, id, input.rating).await?;
    let rated = RatedView {
        new_rating: average((input.rating * 100.0).round() as i64),
        average_rating: average(row.rating),
        rating_count: row.rating_count,
    };
    Ok(Reply::ok(rated, "thank you: the rating is recorded"))
}

/// An image's icon as a `data:` URL.
#[utoipa::path(
    get, path = "/api/v1/images/{id}/icon", operation_id = "images.getIcon", tag = "images", security(()),
    params(("id" = String, Path, description = "The image")),
    responses((status = 200, body = Success<String>), (status = 400, body = Failure), (status = 404, body = Failure)),
)]
async fn icon(State(app): State<App>, Id(id): Id<ImageId>) -> Result<Reply<String>, ServiceError> {
    Ok(Reply::ok(icon_url(&app.store, id).await?, "here is the icon"))
}
