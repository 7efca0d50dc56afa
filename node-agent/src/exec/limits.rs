//! How many processes may run at once, per container and on the node, and how long terminals are kept.

use hoody_protocol::id::ContainerId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// The limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecLimits {
    /// Processes of one container, terminals included.
    pub per_container: usize,
    /// Processes on the node, terminals included.
    pub per_node: usize,
    /// Terminals of one container.
    pub terminals_per_container: usize,
    /// Terminals on the node.
    pub terminals_per_node: usize,
    /// A terminal ends at which nothing was typed or shown for so long.
    pub terminal_idle: Duration,
    /// A terminal ends at this age.
    pub terminal_age: Duration,
    /// How long output that may not have arrived is kept for somebody whose connection broke, by holding the program
    /// back; afterwards new output takes its place.
    pub hold: Duration,
    /// How long the end of a terminal is kept for somebody who connects again.
    pub ended_kept: Duration,
}

impl Default for ExecLimits {
    fn default() -> Self {
        Self {
            per_container: 64,
            per_node: 256,
            terminals_per_container: 16,
            terminals_per_node: 64,
            terminal_idle: Duration::from_secs(3600),
            terminal_age: Duration::from_secs(24 * 3600),
            hold: Duration::from_secs(60),
            ended_kept: Duration::from_secs(60),
        }
    }
}

/// The limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many processes at once")]
pub struct TooMany;

/// Processes of one container that are being started at once. The runtime's first stage counts against the container's
/// own limit of processes, with a few threads each.
const STARTING: usize = 8;

/// Counts what runs.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    counts: Arc<Mutex<HashMap<ContainerId, Count>>>,
    per_container: usize,
    per_node: usize,
}

#[derive(Debug)]
struct Count {
    used: usize,
    starting: Arc<Semaphore>,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Slots,
    container: ContainerId,
    starting: Arc<Semaphore>,
}

impl Slot {
    /// Waits for the turn to start; the turn lasts as long as what is returned.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.starting.acquire().await.ok()
    }
}

impl Slots {
    pub(super) fn new(limits: &ExecLimits) -> Self {
        Self { counts: Arc::default(), per_container: limits.per_container, per_node: limits.per_node }
    }

    pub(super) fn take(&self, container: ContainerId) -> Result<Slot, TooMany> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let used = counts.get(&container).map_or(0, |count| count.used);
        if used >= self.per_container || counts.values().map(|count| count.used).sum::<usize>() >= self.per_node {
            return Err(TooMany);
        }
        let first = || Count { used: 0, starting: Arc::new(Semaphore::new(STARTING)) };
        let count = counts.entry(container).or_insert_with(first);
        count.used += 1;
        Ok(Slot { slots: self.clone(), container, starting: count.starting.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.slots.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.container) {
            count.used -= 1;
            if count.used == 0 {
                counts.remove(&self.container);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_per_container_and_in_all_and_come_back() {
        let limits = ExecLimits { per_container: 2, per_node: 3, ..ExecLimits::default() };
        let slots = Slots::new(&limits);
        let [a, b] = [1, 2].map(|byte| ContainerId::from_bytes([byte; 12]));
        let first = slots.take(a).unwrap();
        let _second = slots.take(a).unwrap();
        assert_eq!(slots.take(a).err(), Some(TooMany));
        let _third = slots.take(b).unwrap();
        assert_eq!(slots.take(b).err(), Some(TooMany), "the node is full");
        drop(first);
        assert!(slots.take(b).is_ok());
        assert!(slots.take(a).is_ok());
    }
}
