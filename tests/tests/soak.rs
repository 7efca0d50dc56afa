//! The soak, short; `make soak` runs it long. `SOAK_SECONDS` and `SOAK_SEED` change it.

use anyhow::{Context, Result};
use hoody_tests::soak;
use std::time::Duration;

/// Length of the short soak.
const SECONDS: u64 = 60;

fn number(name: &str) -> Result<Option<u64>> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.map(|value| value.parse().with_context(|| format!("{name} is no number"))).transpose()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_befalls_everything_ends_as_asked() -> Result<()> {
    let seconds = number("SOAK_SECONDS")?.unwrap_or(SECONDS);
    let seed = match number("SOAK_SEED")? {
        Some(seed) => seed,
        None => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs(),
    };
    let summary = soak::run(Duration::from_secs(seconds), seed).await?;
    println!("soak: {summary:#?}");
    assert!(summary.requests > 0 && summary.containers > 0, "nothing was asked: {summary:?}");
    Ok(())
}
