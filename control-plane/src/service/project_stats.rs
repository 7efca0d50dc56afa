//! What the containers of a project use. Servers send their measurements with every heartbeat, so asking all
//! of them takes no waiting: a server that has not sent one for a while did not answer.

use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    nodes::{Asked, Measured},
    service::{project, server::STALE_AFTER_HEARTBEATS},
    store::{
        container::{self, ContainerRow, Filter, Slice},
        project::Project,
        scope::Scope,
    },
};
use hoody_protocol::{id::ProjectId, stats::ContainerStats, time::now_ms};
use std::collections::BTreeSet;

/// A project's containers with their last measurements.
#[derive(Debug)]
pub struct ProjectStats {
    /// The project.
    pub project: Project,
    /// Its containers; without a measurement where there is none, or where its server did not answer.
    pub containers: Vec<(ContainerRow, Option<Measured<ContainerStats>>)>,
    /// Names of servers with containers of the project that did not answer.
    pub unanswered: BTreeSet<String>,
}

/// The last measurements of the project's containers.
pub async fn stats(app: &App, caller: &Caller, id: ProjectId) -> Result<ProjectStats, ServiceError> {
    let project = project::get(app, caller, id).await?;
    let filter = Filter { project: Some(id), scope: Scope::of(caller), ..Filter::default() };
    // No project has more: that is the largest limit of containers there is.
    let all = Slice { by: "created_at", descending: false, limit: project::MAX_CONTAINERS as u64, offset: 0 };
    let (rows, _) = container::list(&app.store, &filter, all).await?;
    let stale_after = (app.config.heartbeat_interval * STALE_AFTER_HEARTBEATS).as_millis() as u64;
    let mut unanswered = BTreeSet::new();
    let asked = Asked {
        servers: rows.iter().map(|row| row.server).collect(),
        containers: rows.iter().map(|row| (row.server, row.spec.id)).collect(),
        ..Asked::default()
    };
    let mut known = app.nodes.known(asked).await;
    let now = now_ms();
    let measured = |row: ContainerRow| {
        let node = known.servers.get(&row.server);
        let answers =
            row.server_info.online && node.is_some_and(|node| now.saturating_sub(node.received_at) <= stale_after);
        if !answers {
            unanswered.insert(row.server_info.name.clone());
        }
        let measured = known.containers.remove(&row.spec.id).filter(|_| answers);
        (row, measured)
    };
    let containers = rows.into_iter().map(measured).collect();
    Ok(ProjectStats { project, containers, unanswered })
}
