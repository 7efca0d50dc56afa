//! What runs inside containers: asked of their nodes, with a deadline, and never a reason for a request to fail.

use crate::{
    app::App,
    nodes::NoInspection,
    store::container::{ContainerRow, Status},
};
use futures::{StreamExt, stream};
use hoody_protocol::{
    id::{ContainerId, ServerId},
    inspection::Inspection,
};
use std::sync::Arc;

/// Containers of one request that are looked into at once.
const AT_ONCE: usize = 16;

/// Why it is not known.
pub type Unseen = NoInspection;

/// What runs in the container; `None` where nothing does.
pub async fn inspect(app: &App, row: &ContainerRow) -> Result<Option<Arc<Inspection>>, Unseen> {
    look(app, place(row)).await
}

/// The same for several, in their order.
pub async fn inspect_all(app: &App, rows: &[ContainerRow]) -> Vec<Result<Option<Arc<Inspection>>, Unseen>> {
    let places: Vec<Place> = rows.iter().map(place).collect();
    stream::iter(places).map(|place| look(app, place)).buffered(AT_ONCE).collect().await
}

/// Where something runs; `None` where nothing does.
type Place = Option<(ServerId, ContainerId)>;

fn place(row: &ContainerRow) -> Place {
    matches!(row.status, Status::Running | Status::Paused).then_some((row.server, row.spec.id))
}

async fn look(app: &App, place: Place) -> Result<Option<Arc<Inspection>>, Unseen> {
    let Some((server, container)) = place else { return Ok(None) };
    app.nodes.inspect(server, container).await
}
