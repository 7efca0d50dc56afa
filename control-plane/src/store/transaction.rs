//! A transaction that tells the publisher of events when it has been committed.

use sqlx::{Any, AnyConnection};
use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};
use tokio::sync::Notify;

/// A transaction; dropped without [`Transaction::commit`], it is rolled back.
#[derive(Debug)]
pub struct Transaction {
    inner: sqlx::Transaction<'static, Any>,
    committed: Arc<Notify>,
}

impl Transaction {
    pub(super) fn new(inner: sqlx::Transaction<'static, Any>, committed: Arc<Notify>) -> Self {
        Self { inner, committed }
    }

    /// Makes everything permanent.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.inner.commit().await?;
        self.committed.notify_one();
        Ok(())
    }

    /// Takes everything back.
    pub async fn rollback(self) -> Result<(), sqlx::Error> {
        self.inner.rollback().await
    }
}

impl Deref for Transaction {
    type Target = AnyConnection;
    fn deref(&self) -> &AnyConnection {
        &self.inner
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }
}
