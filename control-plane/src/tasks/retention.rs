//! Removes what is older than it is kept: events, activity, and what has ended and nobody needs. In small
//! steps, so that nobody waits for it; several replicas may do it at the same time.

use crate::{
    app::App,
    error::chain,
    store::{Store, StoreError, activity, command::execution, event, moves, notification, transfer},
};
use hoody_protocol::time::now_ms;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// Pause between two rounds.
pub const INTERVAL: Duration = Duration::from_secs(3600);
/// Rows removed in one transaction.
const STEP: u32 = 1000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Days that a notification is kept after its end.
const NOTIFICATION_DAYS: u32 = 30;
/// Days that executions of commands are kept, with their output.
const EXECUTION_DAYS: u32 = 30;
/// Days that moves of containers are kept which are over.
const MOVE_DAYS: u32 = 30;
/// Days that transfers are kept on which nothing is based any more.
const TRANSFER_DAYS: u32 = 30;

/// Cleans up every `interval`, for ever; first after one of them.
pub async fn run(app: App, interval: Duration) {
    let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (events, activity) = (app.config.event_retention_days, app.config.activity_retention_days);
        match clean_up(&app.store, now_ms() as i64, events, activity).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "removed what is older than it is kept"),
            // With the next tick.
            Err(error) => tracing::warn!(error = chain(&error), "old events and activity were not removed"),
        }
    }
}

/// Removes what is too old at the time `now`; how many rows it were.
async fn clean_up(store: &Store, now: i64, event_days: u32, activity_days: u32) -> Result<u64, StoreError> {
    let before = |days: u32| now - i64::from(days) * DAY_MS;
    let mut rows = 0;
    loop {
        let step = event::delete_before(store, before(event_days), STEP).await?
            + activity::delete_before(store, before(activity_days), STEP).await?
            + execution::delete_before(store, before(EXECUTION_DAYS), STEP).await?
            + moves::delete_before(store, before(MOVE_DAYS), STEP).await?
            + transfer::delete_before(store, before(TRANSFER_DAYS), STEP).await?
            + notification::delete_expired(store, before(NOTIFICATION_DAYS), STEP).await?;
        rows += step;
        if step == 0 {
            return Ok(rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Actor, EventKind, NewEvent},
        store::testing::each_backend,
    };

    #[tokio::test]
    async fn what_is_too_old_goes_and_the_rest_stays() {
        each_backend(|store| async move {
            let mut tx = store.begin().await.unwrap();
            for resource in ["old", "new"] {
                let written = NewEvent::new(EventKind::ServerCreated, resource, None, Actor::Operator);
                event::insert(&mut tx, &written).await.unwrap();
            }
            let old = "UPDATE events SET created_at = created_at - 864000000 WHERE resource_id = 'old'";
            sqlx::query(old).execute(&mut *tx).await.unwrap();
            tx.commit().await.unwrap();
            let now = now_ms() as i64;
            assert_eq!(clean_up(&store, now, 5, 5).await.unwrap(), 0, "what was not delivered stays");
            event::publish(&store, 10).await.unwrap();
            assert_eq!(clean_up(&store, now, 11, 11).await.unwrap(), 0);
            assert_eq!(clean_up(&store, now, 5, 5).await.unwrap(), 1);
            assert_eq!(event::after(&store, 0, 10).await.unwrap()[0].resource, "new");
        })
        .await;
    }
}
