//! Moves of containers: ends those that cannot go on, and begins those of servers that are being emptied. Syncs whose server
//! stays away end too, since they keep their source where it is. Every replica may run it.

use crate::{
    app::App,
    error::{ServiceError, chain},
    service::{
        container::{moving::overdue, overdue_syncs},
        server::drain,
    },
};
use std::time::Duration;

/// Time between two rounds.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Looks for ever.
pub async fn run(app: App, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        if let Err(error) = once(&app).await {
            tracing::warn!(error = chain(&error), "moves could not be looked at");
        }
    }
}

/// One round.
pub(crate) async fn once(app: &App) -> Result<(), ServiceError> {
    overdue::end(app).await?;
    overdue_syncs::end(app).await?;
    drain::go_on(app).await
}
