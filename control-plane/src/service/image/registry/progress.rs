//! How far a pull is; read by whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a pull.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Bytes that are there, and bytes of all layers; 0 while they are not known.
    pub fn bytes(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// As if a pull were there.
    #[cfg(test)]
    pub(crate) fn at(done: u64, total: u64) -> Self {
        Self { done: done.into(), total: total.into() }
    }

    #[cfg(test)]
    pub(crate) fn set(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    /// The layers are known; counting begins.
    pub(super) fn begin(&self, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// Counts one try of one layer.
    pub(super) fn share(&self) -> Share<'_> {
        Share { progress: self, found: AtomicU64::new(0), fetched: AtomicU64::new(0) }
    }
}

/// What one try of one layer added.
#[derive(Debug)]
pub(super) struct Share<'a> {
    progress: &'a Progress,
    found: AtomicU64,
    fetched: AtomicU64,
}

impl Share<'_> {
    /// These were on disk.
    pub(super) fn find(&self, bytes: u64) {
        self.found.fetch_add(bytes, Ordering::Relaxed);
        self.progress.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// These came over the network.
    pub(super) fn fetch(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
        self.progress.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes them back: the next try counts what it finds anew. True where anything came over the network.
    pub(super) fn withdraw(self) -> bool {
        let (found, fetched) = (self.found.into_inner(), self.fetched.into_inner());
        self.progress.done.fetch_sub(found + fetched, Ordering::Relaxed);
        fetched > 0
    }
}
