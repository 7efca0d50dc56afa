//! The transfers that this process passes on, in memory only: how many, for whom, and how far they are.

use super::transfers::Offered;
use crate::store::transfer::Transfer;
use hoody_protocol::{
    id::{ServerId, TransferId},
    replica::Moved,
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

/// Transfers that this process passes on at once.
const MAX_TRANSFERS: usize = 32;
/// Of those, to or from one server.
const MAX_PER_SERVER: usize = 4;

/// The transfers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Transfers(Arc<Mutex<HashMap<TransferId, Running>>>);

#[derive(Debug)]
struct Running {
    source: ServerId,
    target: ServerId,
    waiting: Option<oneshot::Sender<Offered>>,
    moved: Progress,
    replaced: Arc<Notify>,
}

/// Who waits for an offer.
pub(super) struct Waiting(pub(super) oneshot::Sender<Offered>);

/// How far a transfer is.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    bytes: AtomicU64,
    total: AtomicU64,
    /// Bytes there were when this try began, and when that was.
    began: Mutex<Option<(u64, Instant)>>,
}

impl Progress {
    /// Where it is now.
    pub(super) fn moved(&self) -> Moved {
        Moved { bytes: self.bytes(), total: self.total(), rate: self.rate(), eta_s: self.eta_s() }
    }

    /// Bytes that the target has taken.
    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that it will come to, about; `None`: not known.
    fn total(&self) -> Option<u64> {
        Some(self.0.total.load(Ordering::Relaxed)).filter(|total| *total > 0)
    }

    /// Bytes in a second, since the stream last began; `None` before there are any.
    fn rate(&self) -> Option<f64> {
        let (from, since) = (*self.0.began.lock().unwrap_or_else(PoisonError::into_inner))?;
        let seconds = since.elapsed().as_secs_f64();
        let moved = self.bytes().saturating_sub(from);
        (moved > 0 && seconds > 0.0).then(|| moved as f64 / seconds)
    }

    /// Seconds that are left at that rate.
    fn eta_s(&self) -> Option<f64> {
        let left = self.total()?.saturating_sub(self.bytes());
        self.rate().map(|rate| left as f64 / rate)
    }

    fn has_begun(&self) -> bool {
        self.0.began.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn reached(&self, bytes: u64) {
        self.0.bytes.store(bytes, Ordering::Relaxed);
    }

    fn begin(&self, bytes: u64, total: Option<u64>) {
        self.reached(bytes);
        self.0.total.store(total.unwrap_or(0), Ordering::Relaxed);
        *self.0.began.lock().unwrap_or_else(PoisonError::into_inner) = Some((bytes, Instant::now()));
    }
}

/// A place among the transfers, given up when it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    transfers: Transfers,
    transfer: TransferId,
    moved: Progress,
    replaced: Arc<Notify>,
}

impl Transfers {
    fn lock(&self) -> MutexGuard<'_, HashMap<TransferId, Running>> {
        // Every change is a single insertion or removal: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for the transfer, and what the source will offer; `None` where there is no room. Whoever had the place
    /// of the same transfer loses it: its target has lost that stream.
    pub(super) fn claim(&self, row: &Transfer) -> Option<(Claim, oneshot::Receiver<Offered>)> {
        let mut running = self.lock();
        let before = running.remove(&row.id);
        let of = |server| running.values().filter(|other| other.source == server || other.target == server).count();
        let full =
            running.len() >= MAX_TRANSFERS || of(row.source) >= MAX_PER_SERVER || of(row.target) >= MAX_PER_SERVER;
        if full && before.is_none() {
            return None;
        }
        if let Some(before) = before {
            before.replaced.notify_one();
        }
        let (sender, offers) = oneshot::channel();
        let (moved, replaced) = (Progress::default(), Arc::<Notify>::default());
        running.insert(
            row.id,
            Running {
                source: row.source,
                target: row.target,
                waiting: Some(sender),
                moved: moved.clone(),
                replaced: replaced.clone(),
            },
        );
        Some((Claim { transfers: self.clone(), transfer: row.id, moved, replaced }, offers))
    }

    /// Who waits for the transfer from this server; asked once.
    pub(super) fn take(&self, transfer: TransferId, source: ServerId) -> Option<Waiting> {
        let mut running = self.lock();
        running.get_mut(&transfer).filter(|running| running.source == source)?.waiting.take().map(Waiting)
    }

    /// How far the transfer is; `None` while its source is waited for.
    pub(super) fn progress(&self, transfer: TransferId) -> Option<Progress> {
        self.lock().get(&transfer).map(|running| running.moved.clone()).filter(Progress::has_begun)
    }
}

impl Claim {
    pub(super) fn progress(&self) -> &Progress {
        &self.moved
    }

    /// Says where the stream goes on, and how long it will be.
    pub(super) fn begin(&self, bytes: u64, total: Option<u64>) {
        self.moved.begin(bytes, total);
    }

    /// Returns when another request for the same transfer has taken the place.
    pub(super) async fn replaced(&self) {
        self.replaced.notified().await;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut running = self.transfers.lock();
        if running.get(&self.transfer).is_some_and(|running| Arc::ptr_eq(&running.replaced, &self.replaced)) {
            running.remove(&self.transfer);
        }
    }
}
