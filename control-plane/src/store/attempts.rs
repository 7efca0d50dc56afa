//! Attempts that are counted across replicas, in fixed windows: one row per counted thing.

use super::{Store, StoreError};
use hoody_protocol::time::now_ms;
use sha2::{Digest, Sha256};

/// Counts one more attempt at `what`; gives how many there were in the current window of `window_ms`, this
/// one included, and when the window ends (milliseconds since the epoch).
pub async fn count(store: &Store, what: &str, window_ms: i64) -> Result<(i64, i64), StoreError> {
    let now = now_ms() as i64;
    let mut tx = store.begin().await?;
    let counted = sqlx::query_as(
        "INSERT INTO attempts (key, window_end, count) VALUES ($1, $2, 1) ON CONFLICT (key) DO UPDATE SET \
         count = CASE WHEN attempts.window_end > $3 THEN attempts.count + 1 ELSE 1 END, \
         window_end = CASE WHEN attempts.window_end > $3 THEN attempts.window_end ELSE $2 END \
         RETURNING count, window_end",
    )
    .bind(hex::encode(Sha256::digest(what)))
    .bind(now - now.rem_euclid(window_ms) + window_ms)
    .bind(now)
    .fetch_one(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(counted)
}

/// Forgets windows that have ended.
pub async fn purge(store: &Store) -> Result<u64, StoreError> {
    let mut tx = store.begin().await?;
    let gone =
        sqlx::query("DELETE FROM attempts WHERE window_end <= $1").bind(now_ms() as i64).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(gone.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::each_backend;

    const LONG: i64 = 1 << 50;

    #[tokio::test]
    async fn each_thing_is_counted_for_itself_until_its_window_ends() {
        each_backend(|store| async move {
            let counts = futures::future::join_all((0..8).map(|_| count(&store, "ann", LONG))).await;
            let mut counts: Vec<i64> = counts.into_iter().map(|counted| counted.unwrap().0).collect();
            counts.sort_unstable();
            assert_eq!(counts, (1..=8).collect::<Vec<_>>(), "no attempt may be lost");
            assert_eq!(count(&store, "bob", LONG).await.unwrap().0, 1);
            assert_eq!(purge(&store).await.unwrap(), 0);
            let mut tx = store.begin().await.unwrap();
            sqlx::query("UPDATE attempts SET window_end = 1").execute(&mut *tx).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(count(&store, "ann", LONG).await.unwrap().0, 1, "a new window begins");
            assert_eq!(purge(&store).await.unwrap(), 1);
        })
        .await;
    }
}
