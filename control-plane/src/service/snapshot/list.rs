//! The list of a container's snapshots.

use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    service::container,
    store::{
        container::ContainerRow,
        snapshot::{self, SnapshotRow, SnapshotState},
    },
};
use hoody_protocol::{
    id::ContainerId,
    snapshot::{SnapshotQuery, SnapshotReply},
};
use std::{collections::HashMap, time::Duration};

/// The time the node has to say how large they are; without its answer the list has what it said before.
const SIZES_DEADLINE: Duration = Duration::from_secs(2);

/// A container's snapshots.
#[derive(Debug)]
pub struct Listed {
    /// The container.
    pub container: ContainerRow,
    /// Those that can be restored, the oldest first.
    pub snapshots: Vec<SnapshotRow>,
    /// As many as there may be.
    pub most: u32,
}

/// The container's snapshots.
pub async fn list(app: &App, caller: &Caller, id: ContainerId) -> Result<Listed, ServiceError> {
    let container = container::get(app, caller, id).await?;
    let mut snapshots = snapshot::list(app.store.reader(), id).await?;
    snapshots.retain(|snapshot| snapshot.state == SnapshotState::Ready);
    if !snapshots.is_empty() && container.server_info.online {
        let question = SnapshotQuery { container: id };
        if let Ok(SnapshotReply::Held(held)) = app.nodes.ask(container.server, &question, SIZES_DEADLINE).await {
            let sizes: HashMap<_, _> = held.iter().filter_map(|held| Some((held.id, held.exclusive_bytes?))).collect();
            for snapshot in &mut snapshots {
                if let Some(bytes) = sizes.get(&snapshot.id) {
                    snapshot.size_bytes = i64::try_from(*bytes).unwrap_or(i64::MAX);
                }
            }
        }
    }
    Ok(Listed { container, snapshots, most: app.config.snapshot_max_per_container })
}
