//! Ends shares when they are over, and tells of those that soon will be. Several replicas may do it at the same time.

use crate::{app::App, error::chain, service::share};
use std::time::Duration;

/// Pause between two rounds: how late an end is at most, where the server is online.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Looks every `interval`, for ever.
pub async fn run(app: App, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        if let Err(error) = share::end_due(&app).await {
            tracing::warn!(error = chain(&error), "shares that are over were not ended");
        }
        if let Err(error) = share::tell_ending(&app).await {
            tracing::warn!(error = chain(&error), "shares that end soon were not told of");
        }
    }
}
