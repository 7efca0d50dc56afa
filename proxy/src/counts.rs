//! Counters of a container, written by its connections.

use crate::control::Counters;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters of [`Counters`].
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) connections: AtomicU64,
    pub(crate) open: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) dns_queries: AtomicU64,
    pub(crate) dns_failures: AtomicU64,
    pub(crate) packets: AtomicU64,
    pub(crate) packets_dropped: AtomicU64,
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Counts as open until it is dropped.
#[derive(Debug)]
pub(crate) struct Open<'a>(&'a AtomicU64);

impl Counts {
    pub(crate) fn opened(&self) -> Open<'_> {
        count(&self.open);
        Open(&self.open)
    }

    pub(crate) fn read(&self) -> Counters {
        Counters {
            connections: self.connections.load(Relaxed),
            open: self.open.load(Relaxed),
            refused: self.refused.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            dns_queries: self.dns_queries.load(Relaxed),
            dns_failures: self.dns_failures.load(Relaxed),
            packets: self.packets.load(Relaxed),
            packets_dropped: self.packets_dropped.load(Relaxed),
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
