//! Deletes snapshots whose time has come. Every replica may run it: which one deletes is a conditional update.

use crate::{
    app::App,
    error::{ServiceError, chain},
    service::snapshot,
    store::snapshot as store,
};
use hoody_protocol::time::now_ms;
use std::time::Duration;

/// Time between two rounds.
const INTERVAL: Duration = Duration::from_secs(60);
/// Snapshots of one round; the others come with the next.
const AT_ONCE: i64 = 256;

/// Deletes for ever.
pub async fn run(app: App) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        if let Err(error) = once(&app).await {
            tracing::warn!(error = chain(&error), "expired snapshots could not be deleted");
        }
    }
}

/// One round.
pub(crate) async fn once(app: &App) -> Result<(), ServiceError> {
    for due in store::due(&app.store, now_ms() as i64, AT_ONCE).await? {
        if let Err(error) = snapshot::expire(app, &due).await {
            tracing::warn!(snapshot = %due.id, container = %due.container, error = chain(&error),
                "an expired snapshot could not be deleted; it is tried again");
        }
    }
    Ok(())
}
