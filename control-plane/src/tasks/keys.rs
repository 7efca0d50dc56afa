//! Reads the stored keys again and again: another process may have rotated them.

use crate::{app::App, error::chain, keys::RELOAD_INTERVAL};

/// Reads them for ever.
pub async fn run(app: App) {
    loop {
        tokio::time::sleep(RELOAD_INTERVAL).await;
        if let Err(error) = app.keys.reload(&app.store).await {
            tracing::warn!(error = chain(&error), "the keys could not be read again; those known go on");
        }
    }
}
