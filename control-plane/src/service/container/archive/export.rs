//! An archive of a container, from its node.

use super::document::Document;
use crate::{
    access::Level,
    app::App,
    caller::Caller,
    error::ServiceError,
    nodes::{Export, NoExport},
    service::exec::{self, Conversation, Kind},
    store::container::ContainerRow,
    store::node,
};
use hoody_protocol::{
    export::{ExportOrder, MAX_DOCUMENT_BYTES},
    id::{ContainerId, ExportId},
};

/// An archive that is read, and the caller's place.
#[derive(Debug)]
pub struct Exported {
    /// What it is to be called.
    pub name: String,
    /// Its bytes.
    pub archive: Export,
    /// Held as long as it is read.
    pub place: Conversation,
}

/// Ok where the caller may still read the container's files.
pub async fn still_may(app: &App, caller: &Caller, id: ContainerId) -> Result<(), ServiceError> {
    exec::find(app, caller, id, Level::Edit).await.map(drop)
}

/// Begins an archive of the container as it is now.
pub async fn export(app: &App, caller: &Caller, id: ContainerId) -> Result<Exported, ServiceError> {
    // All of its files can be read in it: as much as whoever runs programs in it can.
    let row = exec::find(app, caller, id, Level::Edit).await?;
    if row.pull.is_some() {
        return Err(ServiceError::Conflict("the container's image is not there yet: wait for it".to_owned()));
    }
    exec::check_reachable(app, &row).await?;
    let place = app.conversations.begin(caller.user, Kind::Export)?;
    let architecture = node::architecture(app.store.reader(), row.server).await?;
    let document = Document::of(&row, &architecture)?.to_bytes()?;
    let document = document.try_into().map_err(|_| ServiceError::Unprocessable {
        message: format!(
            "the container's configuration has more than {MAX_DOCUMENT_BYTES} bytes: shorten its environment"
        ),
        details: Default::default(),
    })?;
    let order = ExportOrder { export: ExportId::generate(), container: id, document };
    exec::record(app, caller, &row, "container.exported", None).await?;
    let archive = app.nodes.export(row.server, &order).await.map_err(|error| not_begun(&row, error))?;
    Ok(Exported { name: row.name, archive, place })
}

fn not_begun(row: &ContainerRow, error: NoExport) -> ServiceError {
    match error {
        NoExport::NotLinked => exec::offline(row),
        NoExport::TooMany => ServiceError::RateLimited { retry_after_s: 10 },
        NoExport::Silent => ServiceError::NodeTimeout,
        NoExport::Unsupported => ServiceError::NotImplemented(format!(
            "the agent of server {} is of a version that cannot export containers: upgrade it",
            row.server_info.name
        )),
        NoExport::Refused(cause) => match cause.code.as_str() {
            "export_busy" => ServiceError::RateLimited { retry_after_s: 10 },
            "export_source_missing" => ServiceError::Conflict(cause.message.to_string()),
            _ => ServiceError::NodeFailed(cause),
        },
    }
}
