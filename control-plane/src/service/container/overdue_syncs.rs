//! Syncs of containers whose server stays away. The link of that server has their transfers had, and ends those that cannot
//! be; without one nobody would, the next sync would wait for them, and their sources could not be moved.

use super::sync as service;
use crate::{
    app::App,
    error::{ServiceError, chain},
    store::{
        server::{self, Server},
        sync::{self, PATIENCE, Sync},
    },
};
use hoody_protocol::{container::Cause, time::now_ms};

/// Ends the syncs whose server is away for longer than a sync is tried. Every replica may do so: one of them wins. Where one
/// cannot be ended, the others are.
pub(crate) async fn end(app: &App) -> Result<(), ServiceError> {
    for id in sync::servers_waiting(&app.store).await? {
        if !is_away(server::by_id(&app.store, id).await?) {
            continue;
        }
        for found in sync::waiting(&app.store, id).await? {
            end_one(app, &found).await;
        }
    }
    Ok(())
}

fn is_away(server: Option<Server>) -> bool {
    server.is_none_or(|server| {
        let since = server.online_changed_at.unwrap_or(server.created_at);
        let away = (now_ms() as i64).saturating_sub(since);
        server.status != "enrolled" || (!server.online && away > PATIENCE.as_millis() as i64)
    })
}

async fn end_one(app: &App, found: &Sync) {
    let cause = Cause::new("target_offline", "the container's server is not connected");
    if let Err(error) = service::failed(app, found, &cause).await {
        let Sync { transfer, .. } = found;
        tracing::warn!(transfer = %transfer.id, container = %transfer.container, error = chain(&error),
            "a sync could not be ended");
    }
}
