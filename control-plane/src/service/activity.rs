//! The activity log: every API request of a user. Requests never wait for it: they put their line into a
//! bounded queue, and one task writes what is in it, together. What does not fit, and what is in the queue
//! when the process is killed, is lost; the first is counted (`hoody_activity_lost_total`).

use crate::{
    app::App,
    caller::Caller,
    error::{ServiceError, chain},
    page::Page,
    store::{
        Store,
        activity::{self as store, Activity, Filter, Stats},
    },
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

/// Lines that wait to be written.
const QUEUE: usize = 4096;
/// Lines that are written together.
const BATCH: usize = 256;
/// How long a line waits for others.
const INTERVAL: Duration = Duration::from_millis(500);

/// Takes lines of the log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Activity>,
    receiver: Arc<Mutex<Option<mpsc::Receiver<Activity>>>>,
    stopping: Arc<Notify>,
}

impl Default for Recorder {
    fn default() -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE);
        Self { queue, receiver: Arc::new(Mutex::new(Some(receiver))), stopping: Arc::default() }
    }
}

impl Recorder {
    /// Takes a line, or loses it where too many wait.
    pub fn record(&self, activity: Activity) {
        if self.queue.try_send(activity).is_err() {
            metrics::counter!("hoody_activity_lost_total").increment(1);
        }
    }

    /// Takes no more lines; [`Recorder::run`] ends when it has written those that wait.
    pub fn stop(&self) {
        self.stopping.notify_one();
    }

    /// Writes lines until it is stopped. One task does; a second ends at once.
    pub async fn run(self, store: Store) {
        let taken = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut receiver) = taken else { return };
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                taken = receiver.recv_many(&mut batch, BATCH) => if taken == 0 {
                    return;
                },
                () = self.stopping.notified() => {
                    receiver.close();
                    continue;
                }
            }
            let until = Instant::now() + INTERVAL;
            while batch.len() < BATCH && !receiver.is_closed() {
                let room = BATCH - batch.len();
                tokio::select! {
                    taken = receiver.recv_many(&mut batch, room) => if taken == 0 {
                        break;
                    },
                    () = self.stopping.notified() => receiver.close(),
                    () = tokio::time::sleep_until(until) => break,
                }
            }
            if let Err(error) = store::insert(&store, &batch).await {
                metrics::counter!("hoody_activity_lost_total").increment(batch.len() as u64);
                tracing::warn!(error = chain(&error), lines = batch.len(), "the activity log was not written");
            }
            batch.clear();
        }
    }
}

/// A page of the caller's requests, newest first, and how many the filter lets through.
pub async fn list(
    app: &App,
    caller: &Caller,
    mut filter: Filter,
    page: Page,
) -> Result<(Vec<Activity>, u64), ServiceError> {
    filter.user = caller.user;
    filter.realm = match (caller.realm, filter.realm) {
        (Some(own), Some(named)) if own != named => return Ok((Vec::new(), 0)),
        (own, named) => own.or(named),
    };
    Ok(store::list(&app.store, &filter, page.limit, page.offset()).await?)
}

/// What is kept of the caller's requests.
pub async fn stats(app: &App, caller: &Caller) -> Result<Stats, ServiceError> {
    Ok(store::stats(&app.store, caller.user).await?)
}
