//! `/vault`: the caller's secrets.

use super::{
    caller::Caller,
    envelope::{Failure, Reply, Success},
    json::Json,
    query::Query,
    time::rfc3339,
};
use crate::{
    app::App,
    config::Secret,
    error::ServiceError,
    service::vault::{self as service, MAX_BYTES, Opened, Place, SMALL_BYTES},
};
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, State};
use hoody_protocol::id::RealmId;
use http::{header, request::Parts};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt},
    routes,
};
use zeroize::Zeroizing;

/// Bytes of a body: the largest value and metadata, with room for what JSON escapes.
const MAX_BODY_BYTES: usize = 16 << 20;
const MIB: f64 = (1 << 20) as f64;

/// The routes.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(stats))
        .routes(routes!(list))
        .routes(routes!(clear))
        .routes(routes!(get, set, patch, delete).layer(DefaultBodyLimit::max(MAX_BODY_BYTES)))
}

/// A place to take a large body in, where the request has one or does not say how large it is. Stands before the
/// body, which is not read without it.
struct BodyPlace(#[expect(dead_code, reason = "held")] Option<Place>);

impl FromRequestParts<App> for BodyPlace {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ServiceError> {
        let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if length.is_some_and(|bytes: u64| bytes <= SMALL_BYTES) {
            return Ok(Self(None));
        }
        let caller = Caller::from_request_parts(parts, app).await?;
        Ok(Self(Some(app.vault_places.write(caller.user).await?)))
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RealmQuery {
    /// The realm whose vault is meant; absent: the one outside of realms.
    #[serde(default, deserialize_with = "realm")]
    #[param(value_type = Option<String>)]
    realm_id: Option<RealmId>,
}

/// An empty text names no realm: that is how the vault outside of realms is shown.
fn realm<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RealmId>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(serde::de::Error::custom) }
}

#[derive(Deserialize, ToSchema)]
#[schema(as = VaultSetInput)]
struct SetInput {
    /// The secret.
    #[schema(value_type = String)]
    value: Secret,
    /// What the owner notes about it; absent: stays, null: goes.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Option<Map<String, Value>>>,
}

/// Tells `null` from an absent field.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Map<String, Value>>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[derive(Serialize, ToSchema)]
struct EntryData {
    key: String,
    /// Empty: outside of realms.
    realm_id: String,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "revealed")]
    #[schema(value_type = Option<String>)]
    value: Option<Zeroizing<String>>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<Map<String, Value>>,
    /// Bytes of value and metadata.
    size_bytes: i64,
    created_at: String,
    updated_at: String,
}

/// The one place where a value is shown.
fn revealed<S: Serializer>(value: &Option<Zeroizing<String>>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().map(|value| value.as_str()).serialize(serializer)
}

impl From<Opened> for EntryData {
    fn from(entry: Opened) -> Self {
        Self {
            key: entry.key,
            realm_id: entry.realm,
            value: entry.value,
            metadata: entry.metadata,
            size_bytes: entry.size_bytes,
            created_at: rfc3339(entry.created_at),
            updated_at: rfc3339(entry.updated_at),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = VaultStatsData)]
struct StatsData {
    total_keys: i64,
    total_size_bytes: i64,
    total_size_mb: f64,
    limit_mb: f64,
    remaining_mb: f64,
    used_percentage: f64,
}

/// Two decimals are enough for people; the bytes are exact.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// How full a vault is
#[utoipa::path(get, path = "/api/v1/vault/stats", operation_id = "vault.getStats", tag = "vault", params(RealmQuery),
    responses((status = 200, body = Success<StatsData>), (status = 400, body = Failure), (status = 401, body = Failure)))]
async fn stats(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<RealmQuery>,
) -> Result<Reply<StatsData>, ServiceError> {
    let (total_keys, bytes) = service::usage(&app, &caller, query.realm_id).await?;
    let data = StatsData {
        total_keys,
        total_size_bytes: bytes,
        total_size_mb: rounded(bytes as f64 / MIB),
        limit_mb: MAX_BYTES as f64 / MIB,
        remaining_mb: rounded((MAX_BYTES - bytes).max(0) as f64 / MIB),
        used_percentage: rounded(bytes as f64 * 100.0 / MAX_BYTES as f64),
    };
    Ok(Reply::ok(data, "here is how full the vault is"))
}

/// List keys, without values
#[utoipa::path(get, path = "/api/v1/vault/keys", operation_id = "vault.list", tag = "vault", params(RealmQuery),
    responses((status = 200, body = Success<Vec<EntryData>>), (status = 400, body = Failure),
        (status = 401, body = Failure)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<RealmQuery>,
) -> Result<Reply<Vec<EntryData>>, ServiceError> {
    let entries = service::list(&app, &caller, query.realm_id).await?;
    Ok(Reply::ok(entries.into_iter().map(Into::into).collect(), "here are the vault's keys"))
}

/// Get a value
#[utoipa::path(get, path = "/api/v1/vault/keys/{key}", operation_id = "vault.get", tag = "vault",
    params(("key" = String, Path), RealmQuery),
    responses((status = 200, body = Success<EntryData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 404, body = Failure), (status = 503, body = Failure)))]
async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    Query(query): Query<RealmQuery>,
) -> Result<Reply<EntryData>, ServiceError> {
    Ok(Reply::ok(service::get(&app, &caller, query.realm_id, &key).await?.into(), "here is the value"))
}

/// Set a value
#[utoipa::path(put, path = "/api/v1/vault/keys/{key}", operation_id = "vault.set", tag = "vault",
    params(("key" = String, Path), RealmQuery), request_body = SetInput,
    responses((status = 200, body = Success<EntryData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 422, body = Failure), (status = 503, body = Failure)))]
async fn set(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    Query(query): Query<RealmQuery>,
    _place: BodyPlace,
    Json(SetInput { value: Secret(value), metadata }): Json<SetInput>,
) -> Result<Reply<EntryData>, ServiceError> {
    let entry = service::set(&app, &caller, query.realm_id, &key, service::Input { value, metadata }).await?;
    Ok(Reply::ok(entry.into(), "the value was stored"))
}

/// Set a value
#[utoipa::path(patch, path = "/api/v1/vault/keys/{key}", operation_id = "vault.patch", tag = "vault",
    params(("key" = String, Path), RealmQuery), request_body = SetInput,
    responses((status = 200, body = Success<EntryData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 422, body = Failure), (status = 503, body = Failure)))]
async fn patch(
    state: State<App>,
    caller: Caller,
    key: Path<String>,
    query: Query<RealmQuery>,
    place: BodyPlace,
    input: Json<SetInput>,
) -> Result<Reply<EntryData>, ServiceError> {
    set(state, caller, key, query, place, input).await
}

/// Delete a key
#[utoipa::path(delete, path = "/api/v1/vault/keys/{key}", operation_id = "vault.delete", tag = "vault",
    params(("key" = String, Path), RealmQuery),
    responses((status = 200, body = Success<Option<bool>>), (status = 400, body = Failure),
        (status = 401, body = Failure), (status = 404, body = Failure)))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    Query(query): Query<RealmQuery>,
) -> Result<Reply<Option<bool>>, ServiceError> {
    service::delete(&app, &caller, query.realm_id, &key).await?;
    Ok(Reply::ok(None, "the key was deleted"))
}

#[derive(Serialize, ToSchema)]
struct ClearedData {
    deleted_count: u64,
}

/// Delete every key of a vault
#[utoipa::path(delete, path = "/api/v1/vault", operation_id = "vault.clear", tag = "vault", params(RealmQuery),
    responses((status = 200, body = Success<ClearedData>), (status = 400, body = Failure),
        (status = 401, body = Failure)))]
async fn clear(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<RealmQuery>,
) -> Result<Reply<ClearedData>, ServiceError> {
    let deleted_count = service::clear(&app, &caller, query.realm_id).await?;
    Ok(Reply::ok(ClearedData { deleted_count }, format!("{deleted_count} keys were deleted")))
}
