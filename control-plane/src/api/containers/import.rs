//! Importing a container from an archive.

use super::{view::ContainerData, written};
use crate::{
    api::{
        caller::Caller,
        envelope::{Failure, Reply, Success},
        query::{self, Query},
    },
    app::App,
    error::ServiceError,
    service::container::archive::{self as service, ImportInput},
};
use axum::{body::Body, extract::State};
use serde::Deserialize;
use utoipa::IntoParams;

/// Where it is.
pub(in crate::api) const PATH: &str = "/api/v1/containers/import";
/// The time that it may take.
pub(in crate::api) const LONGEST: std::time::Duration = service::LONGEST;

/// What is said over what the archive says.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ImportQuery {
    /// The project of the new container.
    project_id: Option<String>,
    /// Its name; absent: the archive's.
    name: Option<String>,
    /// Its server; absent: the scheduler chooses one.
    server_id: Option<String>,
    /// Start it at once, and again whenever its server boots; absent: as the archive says.
    #[serde(default, deserialize_with = "optional_flag")]
    #[param(required = false)]
    autostart: Option<bool>,
    /// Processor cores; absent: as the archive says.
    cpu_cores: Option<f64>,
    /// Memory in MiB; absent: as the archive says.
    memory_mb: Option<u64>,
    /// Root file system in MiB; absent: as the archive says.
    storage_mb: Option<u64>,
}

fn optional_flag<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    query::flag(deserializer).map(Some)
}

/// Import a container
///
/// The body is an archive that an export gave, here or elsewhere. The container is made like any other: it has ids, an
/// address and keys of its own.
#[utoipa::path(post, path = "/api/v1/containers/import", operation_id = "containers.import", tag = "containers",
    params(ImportQuery), request_body(content = Vec<u8>, content_type = "application/zstd"),
    responses((status = 200, body = Success<ContainerData>), (status = 400, body = Failure), (status = 401, body = Failure),
        (status = 403, body = Failure), (status = 404, body = Failure), (status = 409, body = Failure),
        (status = 422, body = Failure), (status = 429, body = Failure), (status = 503, body = Failure)))]
pub(super) async fn import(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ImportQuery>,
    body: Body,
) -> Result<Reply<ContainerData>, ServiceError> {
    let project = query.project_id.map(|text| text.parse()).transpose();
    let project = project.map_err(|error| ServiceError::invalid("project_id", format!("{error}")))?;
    let input = ImportInput {
        project,
        name: query.name,
        server_id: query.server_id,
        autostart: query.autostart,
        cpu_cores: query.cpu_cores,
        memory_mb: query.memory_mb,
        storage_mb: query.storage_mb,
    };
    let (row, progress) = service::import(&app, &caller, input, body).await?;
    Ok(Reply::ok(ContainerData::from(row).created(), written(progress, "container imported")))
}
