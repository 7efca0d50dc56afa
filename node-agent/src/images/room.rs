//! Room of the pool for what is being unpacked. What a layer comes to is known only when it is unpacked, and some kilobytes may
//! become hundreds of gigabytes: so each tree is promised a part of what is free before it is begun, and ends where it needs
//! more. All promises together are never more than what is free, so that the reserve stays whoever unpacks what.

use hoody_protocol::image::Digest;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Trees whose need is remembered: each is of an image that a container waits for.
const MAX_REMEMBERED: usize = 1024;

/// What is promised, and what was not enough.
#[derive(Debug, Default)]
pub(super) struct Room(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    promised: u64,
    /// Trees that needed more than so many bytes. Without this each try would write as much once more.
    outgrown: HashMap<Digest, u64>,
}

/// So many bytes of a tree that is made; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Promise {
    room: Arc<Room>,
    pub(super) bytes: u64,
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is a single addition or insertion: a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Promises the tree what it is `expected` to need, or half of what is not promised of the `free` bytes where that is
    /// more. `Err`: so many bytes would not do.
    pub(super) fn promise(self: &Arc<Self>, tree: Digest, free: u64, expected: u64) -> Result<Promise, u64> {
        let mut inner = self.lock();
        let left = free.saturating_sub(inner.promised);
        let bytes = expected.min(left).max(left / 2);
        // A little more would be tried again and again.
        let needed = inner.outgrown.get(&tree).map_or(expected, |was| was.saturating_add(was / 4));
        if bytes < needed {
            return Err(needed);
        }
        inner.promised += bytes;
        Ok(Promise { room: self.clone(), bytes })
    }

    /// The tree needs more than so many bytes.
    pub(super) fn outgrown(&self, tree: Digest, bytes: u64) {
        let mut inner = self.lock();
        if inner.outgrown.len() >= MAX_REMEMBERED {
            inner.outgrown.clear();
        }
        inner.outgrown.insert(tree, bytes);
    }

    /// The tree is there.
    pub(super) fn forget(&self, tree: Digest) {
        self.lock().outgrown.remove(&tree);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.room.lock().promised -= self.bytes;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const FREE: u64 = 1 << 30;

    #[test]
    fn all_promises_together_are_what_is_free_at_most_and_come_back() {
        let room = Arc::new(Room::default());
        let tree = Digest::of(b"tree");
        let first = room.promise(tree, FREE, 1).unwrap();
        assert_eq!(first.bytes, FREE / 2);
        let mut others = Vec::new();
        while let Ok(promise) = room.promise(tree, FREE, FREE / 16) {
            others.push(promise);
        }
        assert!(others.len() > 2);
        assert!(first.bytes + others.iter().map(|promise| promise.bytes).sum::<u64>() <= FREE);
        drop((first, others));
        // What is expected is promised where it is more than half.
        assert_eq!(room.promise(tree, FREE, FREE).unwrap().bytes, FREE);
        assert_eq!(room.promise(tree, FREE, FREE + 1).unwrap_err(), FREE + 1);
    }

    #[test]
    fn what_did_not_fit_is_tried_again_with_clearly_more_room() {
        let room = Arc::new(Room::default());
        let (tree, other) = (Digest::of(b"tree"), Digest::of(b"other"));
        room.outgrown(tree, FREE / 2);
        assert_eq!(room.promise(tree, FREE, 1).unwrap_err(), FREE / 2 + FREE / 8);
        assert!(room.promise(other, FREE, 1).is_ok());
        assert!(room.promise(tree, FREE + FREE / 4, 1).is_ok());
        room.forget(tree);
        assert!(room.promise(tree, FREE, 1).is_ok());
    }
}
