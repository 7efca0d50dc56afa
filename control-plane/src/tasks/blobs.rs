//! Collects image blobs that nobody names any more: those of deleted or replaced images whose last
//! container is gone. Every replica collects its own folder. At the start goes what a killed process left half-done.

use crate::{
    app::App,
    error::chain,
    service::image::{
        self, CollectError,
        blobs::{BlobError, BlobFolder},
    },
};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// Time between two collections.
pub const INTERVAL: Duration = Duration::from_secs(3600);

/// Collects every `interval`, for ever; first after one of them. What no process holds is cleared away at once.
pub async fn run(app: App, interval: Duration) {
    let data_dir = app.config.data_dir.clone();
    // Where somebody else has the folder just now, they clear it.
    match tokio::task::spawn_blocking(move || BlobFolder::lock(&data_dir, Duration::ZERO)).await {
        Ok(Ok(_) | Err(BlobError::Busy(_))) => {}
        Ok(Err(error)) => tracing::warn!(error = chain(&error), "what is left of uploads was not cleared away"),
        Err(error) => tracing::warn!(error = chain(&error), "what is left of uploads was not cleared away"),
    }
    let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match image::collect_blobs(&app.store, &app.config.data_dir).await {
            Ok(collected) if collected.blobs > 0 => {
                tracing::info!(
                    blobs = collected.blobs,
                    bytes = collected.bytes,
                    "removed image blobs that nobody needs"
                );
            }
            // With the next tick.
            Ok(_) | Err(CollectError::Blob(BlobError::Busy(_))) => {}
            Err(error) => tracing::warn!(error = chain(&error), "image blobs were not collected"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        app::testing::{config, with_config},
        service::image::blob_path,
        store::{
            image::tests::{image, put_image},
            testing::sqlite,
        },
    };
    use hoody_protocol::image::Digest;

    const DEADLINE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn what_nobody_names_goes_and_the_rest_stays() {
        let (_database, store) = sqlite().await;
        let data = tempfile::tempdir().unwrap();
        let mut config = config();
        config.data_dir = data.path().to_owned();
        let app = with_config(&store, config).await;
        put_image(&store, &image("debian/12", b"kept")).await;
        std::fs::create_dir_all(data.path().join("blobs")).unwrap();
        let [kept, gone] = [&b"kept"[..], b"gone"].map(|content| {
            let path = blob_path(data.path(), Digest::of(content));
            std::fs::write(&path, content).unwrap();
            path
        });
        let task = tokio::spawn(run(app, Duration::from_millis(1)));
        let deadline = Instant::now() + DEADLINE;
        while gone.exists() {
            assert!(Instant::now() < deadline, "nothing was collected");
            tokio::task::yield_now().await;
        }
        assert!(kept.exists());
        task.abort();
    }
}
