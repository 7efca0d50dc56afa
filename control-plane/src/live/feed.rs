//! Publishes what was committed and hands it to the hub. It is woken by every commit of this process and,
//! on PostgreSQL, by what other replicas have published; both are hints only, for it looks every [`POLL`]
//! as well: what another process wrote, or one that was killed before it could publish, is not lost.

use super::Live;
use crate::store::{
    Backend, Store, StoreError,
    event::{self, PUBLISHED_CHANNEL},
    project_permission,
};
use hoody_protocol::id::ProjectId;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Pause between two looks without a hint.
const POLL: Duration = Duration::from_millis(500);
/// Shortest pause between two looks: what is committed meanwhile is published together.
const DEBOUNCE: Duration = Duration::from_millis(4);
/// Pause before the connection for hints is made again.
const RECONNECT: Duration = Duration::from_secs(2);
/// Events published or read at once.
const BATCH: u32 = 500;

/// Runs until it is aborted.
pub async fn run(store: Store, live: Live) {
    let hint = Arc::new(Notify::new());
    let listening = (store.backend() == Backend::Postgres).then(|| {
        let (store, hint) = (store.clone(), hint.clone());
        AbortOnDrop(tokio::spawn(async move { listen(&store, &hint).await }))
    });
    let mut cursor = None;
    let mut failing = false;
    loop {
        let begun = Instant::now();
        match step(&store, &live, &mut cursor).await {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::error!(error = &error as &dyn std::error::Error, "deliver events");
            }
            // Said once; a database that is away fails every time.
            Err(_) => {}
        }
        tokio::select! {
            () = store.committed(), if !failing => {}
            () = hint.notified(), if !failing && listening.is_some() => {}
            () = tokio::time::sleep(POLL) => {}
        }
        sleep_until(begun + DEBOUNCE).await;
    }
}

/// Publishes and hands out all there is.
async fn step(store: &Store, live: &Live, cursor: &mut Option<i64>) -> Result<(), StoreError> {
    while event::publish(store, BATCH).await? == u64::from(BATCH) {}
    let mut from = match *cursor {
        Some(from) => from,
        None => {
            let last = event::last_sequence(store).await?;
            live.skip_to(last);
            last
        }
    };
    let last = event::last_sequence(store).await?;
    if last > from && live.skip_to(last) {
        from = last;
    }
    while last > from {
        let events = event::after(store, from, BATCH).await?;
        // What is missing was deleted.
        from = events.last().and_then(|event| event.sequence).unwrap_or(last);
        // Asked for each batch: whom a project is shared with at this moment.
        let projects: BTreeSet<ProjectId> = events.iter().filter_map(|event| event.project).collect();
        let readers = project_permission::readers(store, &Vec::from_iter(projects)).await?;
        live.deliver(events, &readers);
    }
    *cursor = Some(from);
    Ok(())
}

async fn listen(store: &Store, hint: &Notify) {
    loop {
        if let Err(error) = store.listen(PUBLISHED_CHANNEL, || hint.notify_one()).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "wait for other replicas' events; polling meanwhile"
            );
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
