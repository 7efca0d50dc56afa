//! `serve`: runs until SIGTERM or SIGINT.

use super::CliError;
use crate::{config::Settings, server};

pub(super) async fn run(settings: Settings) -> Result<(), CliError> {
    let config = settings.resolve()?;
    super::start_logging(config.log_format);
    let app = super::open(config).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        database = ?app.store.backend(),
        data_dir = %app.config.data_dir.display(),
        "starting"
    );
    let store = app.store.clone();
    let outcome = server::run(app).await;
    store.close().await;
    tracing::info!("stopped");
    outcome.map_err(|error| CliError::Io { what: error.what, source: error.source })
}
