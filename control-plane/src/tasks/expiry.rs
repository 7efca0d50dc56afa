//! Deletes what has expired and nobody will ask for: sign-ups, tokens, logins that wait, counts, old history.
//! Nothing depends on it: whoever reads asks for the time as well.

use crate::{
    app::App,
    error::chain,
    store::{StoreError, attempts, command::execution, device_login, grant, mail, security_event, sign_up, two_factor},
};
use hoody_protocol::time::now_ms;
use std::time::Duration;

/// Time between two rounds.
const INTERVAL: Duration = Duration::from_secs(600);
/// How long an account's security history is kept.
const HISTORY: Duration = Duration::from_secs(180 * 24 * 60 * 60);

/// Deletes for ever.
pub async fn run(app: App) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        if let Err(error) = once(&app).await {
            tracing::warn!(error = chain(&error), "what has expired could not be deleted");
        }
    }
}

async fn once(app: &App) -> Result<(), StoreError> {
    let store = &app.store;
    execution::expire(store, now_ms() as i64).await?;
    attempts::purge(store).await?;
    mail::purge(store).await?;
    sign_up::purge(store).await?;
    two_factor::purge(store).await?;
    grant::purge(store).await?;
    device_login::purge(store).await?;
    security_event::purge(store, now_ms() as i64 - HISTORY.as_millis() as i64).await
}
