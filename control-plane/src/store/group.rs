//! Small writes committed together. SQLite has one writer, and every commit waits for the disk: what many
//! links write at the same time (hellos after a restart, reports, acknowledgements) shares one transaction
//! and one wait. PostgreSQL groups commits by itself: there, each write has its own transaction.
//!
//! One task owns the writing. A write is a savepoint: where it fails, what it did is undone, and the others
//! of its group are not concerned. A write's caller gets its answer only after the commit.

use super::{Backend, StoreError};
use futures::{FutureExt, future::BoxFuture};
use sqlx::{AnyConnection, AnyPool, Connection};
use std::{panic::AssertUnwindSafe, sync::Arc};
use tokio::sync::{Notify, mpsc, oneshot};

/// Writes that wait at most; more wait in their callers.
const QUEUE: usize = 4096;
/// Writes of one group: what other writers wait for.
const GROUP: usize = 256;

/// Does the work; gives what is to be called when it is known whether the group was committed.
type Work = Box<dyn for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, Worked> + Send>;
type Tell = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

struct Worked {
    failed: bool,
    tell: Tell,
}

/// Takes writes. Cheap to clone; the task ends with the last of them.
#[derive(Debug, Clone)]
pub(super) struct Writes {
    backend: Backend,
    pool: AnyPool,
    /// Told after every commit, as by [`super::Transaction`].
    committed: Arc<Notify>,
    queue: mpsc::Sender<Work>,
}

impl Writes {
    pub(super) fn new(backend: Backend, pool: AnyPool, committed: Arc<Notify>) -> Self {
        let (queue, works) = mpsc::channel(QUEUE);
        if backend == Backend::Sqlite {
            tokio::spawn(write_groups(pool.clone(), committed.clone(), works));
        }
        Self { backend, pool, committed, queue }
    }

    /// Runs `write` in a transaction; what it gives is committed. It may go on where the caller gives up.
    pub(super) async fn run<T, F>(&self, write: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    {
        if self.backend == Backend::Postgres {
            let mut tx = self.pool.begin().await?;
            let done = write(&mut tx).await?;
            tx.commit().await?;
            self.committed.notify_one();
            return Ok(done);
        }
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            Box::pin(async move {
                let done = write(connection).await;
                let failed = done.is_err();
                let tell: Tell = Box::new(move |committed| {
                    // Whoever gave up waiting needs no answer.
                    let _ = answer.send(done.and_then(|done| committed.map(|()| done)));
                });
                Worked { failed, tell }
            })
        });
        self.queue.send(work).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

/// Takes what has queued up and commits it once.
async fn write_groups(pool: AnyPool, committed: Arc<Notify>, mut queue: mpsc::Receiver<Work>) {
    let mut group = Vec::with_capacity(GROUP);
    while queue.recv_many(&mut group, GROUP).await > 0 {
        let mut told = Vec::with_capacity(group.len());
        let result = write_group(&pool, &mut group, &mut told).await.map_err(Arc::new);
        committed.notify_one();
        for tell in told {
            tell(result.clone().map_err(StoreError::Group));
        }
        // What a failed group did not come to: its callers are told that there is no answer.
        group.clear();
    }
}

async fn write_group(pool: &AnyPool, group: &mut Vec<Work>, told: &mut Vec<Tell>) -> Result<(), StoreError> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    for work in group.drain(..) {
        let mut savepoint = tx.begin().await?;
        match AssertUnwindSafe(work(&mut savepoint)).catch_unwind().await {
            Ok(Worked { failed: false, tell }) => {
                told.push(tell);
                savepoint.commit().await?;
            }
            Ok(Worked { tell, .. }) => {
                told.push(tell);
                savepoint.rollback().await?;
            }
            // Its caller gets no answer; all other writes of this process would otherwise end with this one.
            Err(_panic) => {
                tracing::error!("a write panicked; it is undone");
                savepoint.rollback().await?;
            }
        }
    }
    tx.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::store::{Store, StoreError, testing::each_backend};
    use futures::future::join_all;

    async fn set(store: &Store, key: String, fail: bool) -> Result<(), StoreError> {
        store
            .write(move |connection| {
                Box::pin(async move {
                    sqlx::query("INSERT INTO settings (key, value) VALUES ($1, 'set')")
                        .bind(key)
                        .execute(connection)
                        .await?;
                    if fail { Err(StoreError::MissingReference) } else { Ok(()) }
                })
            })
            .await
    }

    async fn stands(store: &Store, key: String) -> bool {
        let query = sqlx::query("SELECT value FROM settings WHERE key = $1").bind(key);
        query.fetch_optional(store.reader()).await.unwrap().is_some()
    }

    #[tokio::test]
    async fn a_failed_write_is_undone_and_concerns_no_other() {
        each_backend(|store| async move {
            let writes = (0..600).map(|number| set(&store, format!("key-{number}"), number % 3 == 0));
            for (number, result) in join_all(writes).await.into_iter().enumerate() {
                assert_eq!(result.is_err(), number % 3 == 0, "{number}: {result:?}");
            }
            for number in 0..600 {
                assert_eq!(stands(&store, format!("key-{number}")).await, number % 3 != 0, "{number}");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_write_that_the_database_refuses_is_undone_alone() {
        each_backend(|store| async move {
            let writes = (0..40).map(|number| set(&store, format!("key-{}", number % 20), false));
            let results = join_all(writes).await;
            assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 20);
        })
        .await;
    }

    #[tokio::test]
    async fn a_write_that_panics_ends_no_other() {
        each_backend(|store| async move {
            let writer = store.clone();
            let panicking = tokio::spawn(async move {
                let write = writer.write(|_| Box::pin(async { panic!("on purpose") }));
                let result: Result<(), StoreError> = write.await;
                result
            });
            assert!(!matches!(panicking.await, Ok(Ok(()))));
            set(&store, "key".into(), false).await.unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn what_was_answered_is_committed() {
        each_backend(|store| async move {
            set(&store, "key".into(), false).await.unwrap();
            // Another connection sees it.
            assert!(stands(&store, "key".into()).await);
        })
        .await;
    }
}
