//! Writes down when auth tokens were last used.

use crate::{app::App, error::chain};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// Time between two writes.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// Writes every `interval`, for ever.
pub async fn run(app: App, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = app.token_uses.write(&app.store).await {
            tracing::warn!(error = chain(&error), "the last uses of auth tokens were not written");
        }
    }
}
