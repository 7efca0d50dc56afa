//! Kernel calls that can block, run off the async threads with a deadline.
//!
//! A thread that is stuck in the kernel cannot be cancelled. When the deadline passes the caller gets an
//! error and the thread goes on; it keeps what it holds (the lock of its container, one of a bounded number
//! of slots) until the kernel lets it go. So a late call never races with a new one for the same container,
//! and a dead disk takes at most [`MAX_THREADS`] threads.

use super::StorageError;
use std::{collections::HashMap, hash::Hash, path::Path, path::PathBuf, sync::Arc, sync::Weak, time::Duration};
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};

/// Blocking calls of one pool at a time.
const MAX_THREADS: usize = 32;

/// One mutex per key; those that nobody holds are forgotten.
#[derive(Debug)]
pub(crate) struct Locks<K>(std::sync::Mutex<HashMap<K, Weak<Mutex<()>>>>);

impl<K> Default for Locks<K> {
    fn default() -> Self {
        Self(std::sync::Mutex::default())
    }
}

impl<K: Eq + Hash> Locks<K> {
    /// Waits for the key's lock.
    pub(crate) async fn lock(&self, key: K) -> OwnedMutexGuard<()> {
        let mutex = {
            let mut map = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match map.get(&key).and_then(Weak::upgrade) {
                Some(mutex) => mutex,
                None => {
                    map.retain(|_, mutex| mutex.strong_count() > 0);
                    let mutex = Arc::new(Mutex::new(()));
                    map.insert(key, Arc::downgrade(&mutex));
                    mutex
                }
            }
        };
        mutex.lock_owned().await
    }
}

/// What is being done, for errors.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) action: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) deadline: Duration,
}

impl Step {
    pub(crate) fn new(action: &'static str, path: &Path, deadline: Duration) -> Self {
        Self { action, path: path.to_owned(), deadline }
    }
}

/// Runs blocking steps in bounded number.
#[derive(Debug, Clone)]
pub(crate) struct Blocking(Arc<Semaphore>);

impl Default for Blocking {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_THREADS)))
    }
}

impl Blocking {
    /// Runs `work` while `lock` is held; the deadline includes the wait for both.
    pub(crate) async fn run<T, E>(
        &self,
        step: Step,
        lock: impl Future<Output = Option<OwnedMutexGuard<()>>>,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageError> + Send + 'static,
    {
        let Step { action, path, deadline } = step;
        let slots = self.0.clone();
        let outcome = tokio::time::timeout(deadline, async move {
            let lock = lock.await;
            let slot = slots.acquire_owned().await.ok();
            tokio::task::spawn_blocking(move || {
                let _held = (lock, slot);
                work()
            })
            .await
        })
        .await;
        match outcome {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StorageError::CutOff { action, path }.into()),
            Err(_) => Err(StorageError::Deadline { action, path, seconds: deadline.as_secs() }.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_late_call_keeps_its_lock_until_it_ends() {
        let blocking = Blocking::default();
        let locks = Arc::new(Locks::<u8>::default());
        let (release, wait) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel();
        let step = |ms| Step::new("try", Path::new("/x"), Duration::from_millis(ms));
        let first = blocking
            .run(step(20), async { Some(locks.lock(1).await) }, move || {
                wait.recv().unwrap();
                ended.send(()).unwrap();
                Ok::<_, StorageError>(())
            })
            .await;
        assert!(matches!(first, Err(StorageError::Deadline { .. })));
        let second = blocking.run(step(20), async { Some(locks.lock(1).await) }, || Ok::<_, StorageError>(())).await;
        assert!(matches!(second, Err(StorageError::Deadline { .. })), "ran beside the late call");
        blocking.run(step(5000), async { Some(locks.lock(2).await) }, || Ok::<_, StorageError>(())).await.unwrap();
        release.send(()).unwrap();
        blocking.run(step(5000), async { Some(locks.lock(1).await) }, || Ok::<_, StorageError>(())).await.unwrap();
        end.try_recv().expect("the late call had ended before the lock was free");
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let step = Step::new("try", Path::new("/x"), Duration::from_secs(5));
        let outcome =
            Blocking::default().run(step, async { None }, || -> Result<(), StorageError> { panic!("x") }).await;
        assert!(matches!(outcome, Err(StorageError::CutOff { .. })));
    }
}
