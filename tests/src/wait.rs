//! Waiting for a condition with a deadline.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Calls `check` until it gives something; fails with `what` after `deadline`.
pub async fn until<T>(what: &str, deadline: Duration, mut check: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = check().await? {
            return Ok(found);
        }
        if Instant::now() >= end {
            bail!("{what}: not within {} s", deadline.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
