//! Deletes snapshots whose time has come. Every replica may run it: which one deletes is a conditional update.
//!
//! What cannot be deleted stays expired: a copy of it is being made, or its server fails. So that it keeps no other one from
//! its turn, each that was tried has a pause, which grows, one server has a part of a round, and a round goes on where the
//! one before it ended. The pauses are this process's: lost, they begin again.

use crate::{
    app::App,
    error::{ServiceError, chain},
    service::snapshot as service,
    store::snapshot::{self as store, Due},
};
use hoody_protocol::{
    id::{ServerId, SnapshotId},
    time::now_ms,
};
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// Time between two rounds.
const INTERVAL: Duration = Duration::from_secs(60);
/// Snapshots that one round tries to delete; the others come with the next.
const AT_ONCE: usize = 256;
/// Of them, of one server.
const OF_ONE_SERVER: usize = 64;
/// Snapshots that are read at once.
const PAGE: i64 = 256;
/// How often one round reads.
const PAGES: usize = 64;
/// Until one is tried again for the first time. One that was deleted does not come again.
const FIRST_PAUSE: Duration = Duration::from_secs(120);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// Deletes for ever.
pub async fn run(app: App) {
    let mut turns = Turns::default();
    loop {
        tokio::time::sleep(INTERVAL).await;
        if let Err(error) = turns.round(&app, Instant::now()).await {
            tracing::warn!(error = chain(&error), "expired snapshots could not be deleted");
        }
    }
}

/// Whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// The last one that was looked at.
    after: Option<(i64, SnapshotId)>,
    /// How often all of them were looked at.
    pass: u64,
    pauses: HashMap<SnapshotId, Pause>,
}

/// When one that was tried is tried again.
#[derive(Debug)]
struct Pause {
    until: Instant,
    length: Duration,
    /// The last pass in which it was still to be deleted.
    seen: u64,
}

impl Turns {
    /// One round.
    pub(crate) async fn round(&mut self, app: &App, now: Instant) -> Result<(), ServiceError> {
        let (mut tried, mut of_server) = (0, HashMap::<ServerId, usize>::new());
        for _ in 0..PAGES {
            let page = store::due(&app.store, now_ms() as i64, self.after, PAGE).await?;
            let is_last = i64::try_from(page.len()).is_ok_and(|read| read < PAGE);
            for due in page {
                self.after = Some((due.since, due.snapshot.id));
                let count = of_server.entry(due.server).or_default();
                if self.is_paused(due.snapshot.id, now) || *count >= OF_ONE_SERVER {
                    continue;
                }
                (*count, tried) = (*count + 1, tried + 1);
                self.pause(due.snapshot.id, now);
                expire(app, &due).await;
                if tried == AT_ONCE {
                    return Ok(());
                }
            }
            if is_last {
                self.begin_anew(now);
                return Ok(());
            }
        }
        Ok(())
    }

    fn is_paused(&mut self, id: SnapshotId, now: Instant) -> bool {
        let Some(pause) = self.pauses.get_mut(&id) else { return false };
        pause.seen = self.pass;
        pause.until > now
    }

    fn pause(&mut self, id: SnapshotId, now: Instant) {
        let length = self.pauses.get(&id).map_or(FIRST_PAUSE, |pause| (pause.length * 2).min(LONGEST_PAUSE));
        self.pauses.insert(id, Pause { until: now + length, length, seen: self.pass });
    }

    /// All of them were looked at: what was not among them and has no pause any more is gone.
    fn begin_anew(&mut self, now: Instant) {
        self.pauses.retain(|_, pause| pause.seen == self.pass || pause.until > now);
        (self.after, self.pass) = (None, self.pass + 1);
    }
}

async fn expire(app: &App, due: &Due) {
    let Due { snapshot, server, .. } = due;
    if let Err(error) = service::expire(app, snapshot).await {
        tracing::warn!(snapshot = %snapshot.id, container = %snapshot.container, %server, error = chain(&error),
            "an expired snapshot could not be deleted; it is tried again");
    }
}

/// The first round of a process.
#[cfg(test)]
pub(crate) async fn once(app: &App) -> Result<(), ServiceError> {
    Turns::default().round(app, Instant::now()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_go_with_what_is_gone() {
        let (mut turns, start) = (Turns::default(), Instant::now());
        let (stays, gone) = (SnapshotId::generate(), SnapshotId::generate());
        let mut at = start;
        turns.pause(gone, at);
        for length in [120, 240, 480] {
            turns.pause(stays, at);
            assert!(turns.is_paused(stays, at + Duration::from_secs(length - 1)));
            at += Duration::from_secs(length);
            assert!(!turns.is_paused(stays, at));
            turns.begin_anew(at);
        }
        assert!(turns.pauses.contains_key(&stays));
        turns.begin_anew(at);
        assert_eq!(turns.pauses.len(), 0, "it was not seen any more");
        for _ in 0..20 {
            turns.pause(stays, at);
        }
        assert!(!turns.is_paused(stays, at + LONGEST_PAUSE));
    }
}
