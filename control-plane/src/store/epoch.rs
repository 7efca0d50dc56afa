//! A new life of the database, after it was restored from a backup: what it says from now on wins over
//! whatever the lost state had told the nodes, and nothing that was open then goes on.

use super::{StoreError, settings};
use hoody_protocol::{
    container::{Cause, ContainerSpec},
    time::now_ms,
    version::SpecVersion,
};
use sqlx::{AnyConnection, Row};

/// What began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewEpoch {
    /// Its number.
    pub epoch: u64,
    /// Containers whose specifications are sent again under it.
    pub containers: usize,
    /// Operations that were open and will not run.
    pub operations: u64,
}

/// Begins a new epoch. Its number is the time in seconds, where that is more than the last: a number that
/// was counted on could come a second time when the same backup is restored twice, and would then stand for
/// other content.
///
/// Ended are open operations, join tokens, logins and stored answers: each may have been used, or taken back,
/// in the state that was lost.
pub async fn begin(connection: &mut AnyConnection) -> Result<NewEpoch, StoreError> {
    let now = now_ms();
    let epoch = (settings::epoch(connection).await? + 1).max(now / 1000);
    settings::set_epoch(connection, epoch).await?;
    let containers = renumber(connection, epoch).await?;
    let cause = Cause::new("restored", "the control plane was restored from a backup: the operation will not run");
    let cause = serde_json::to_string(&cause)
        .map_err(|error| StoreError::Corrupt { what: "operations.failure", source: Box::new(error) })?;
    let operations = sqlx::query(
        "UPDATE operations SET state = 'expired', failure = $1, finished_at = $2 \
         WHERE state IN ('pending', 'dispatched')",
    )
    .bind(cause)
    .bind(now as i64)
    .execute(&mut *connection)
    .await?
    .rows_affected();
    for table in ["join_tokens", "sessions", "idempotency_keys", "replicas", "unknown_containers"] {
        sqlx::query(sqlx::AssertSqlSafe(format!("DELETE FROM {table}"))).execute(&mut *connection).await?;
    }
    sqlx::query("UPDATE users SET token_generation = token_generation + $1")
        .bind(epoch as i64)
        .execute(&mut *connection)
        .await?;
    sqlx::query("UPDATE servers SET online = 0, linked_to = NULL").execute(&mut *connection).await?;
    // Clients that follow the events have seen numbers of the lost state: none of them comes again.
    sqlx::query("UPDATE event_sequence SET value = CASE WHEN value < $1 THEN $1 ELSE value END")
        .bind(epoch as i64 * 1000)
        .execute(connection)
        .await?;
    Ok(NewEpoch { epoch, containers, operations })
}

/// Gives every specification its next version, under `epoch`, so that nodes take it.
async fn renumber(connection: &mut AnyConnection, epoch: u64) -> Result<usize, StoreError> {
    let ids: Vec<String> =
        sqlx::query_scalar("SELECT id FROM containers ORDER BY id").fetch_all(&mut *connection).await?;
    for id in &ids {
        let row = sqlx::query("SELECT spec, sequence FROM containers WHERE id = $1")
            .bind(id.clone())
            .fetch_one(&mut *connection)
            .await?;
        let corrupt = |error| StoreError::Corrupt { what: "containers.spec", source: Box::new(error) };
        let mut spec: ContainerSpec = serde_json::from_str(row.try_get("spec")?).map_err(corrupt)?;
        spec.version = SpecVersion { epoch, generation: spec.version.generation + 1 };
        spec.sequence = row.try_get::<i64, _>("sequence")?.max(0) as u64 + 1;
        sqlx::query(
            "UPDATE containers SET spec = $2, epoch = $3, generation = $4, sequence = $5, acked_epoch = 0, \
             acked_generation = 0 WHERE id = $1",
        )
        .bind(id.clone())
        .bind(serde_json::to_string(&spec).map_err(corrupt)?)
        .bind(epoch as i64)
        .bind(spec.version.generation as i64)
        .bind(spec.sequence as i64)
        .execute(&mut *connection)
        .await?;
    }
    Ok(ids.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        dispatch,
        link_testing::{container, execute, number, operation, server, text},
        testing::each_backend,
    };

    #[tokio::test]
    async fn everything_is_sent_again_and_nothing_that_was_open_goes_on() {
        each_backend(|store| async move {
            settings::initialise(&store).await.unwrap();
            let server = server(&store, "one").await;
            let spec = container(&store, server, 7, vec![]).await;
            let open = operation(&store, server, spec.id, 8, i64::MAX).await;
            execute(&store, "UPDATE containers SET sequence = 8, acked_epoch = 1, acked_generation = 7".to_owned())
                .await;
            let mut tx = store.begin().await.unwrap();
            let begun = begin(&mut tx).await.unwrap();
            let again = begin(&mut tx).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!((begun.containers, begun.operations, again.operations), (1, 1, 0));
            assert!(again.epoch > begun.epoch && begun.epoch > 1_700_000_000, "{begun:?} {again:?}");
            let items = dispatch::items(&store, server, spec.id).await.unwrap();
            let [dispatch::Item::Spec { spec: sent, .. }] = items.as_slice() else { panic!("{items:?}") };
            assert_eq!(sent.version, SpecVersion { epoch: again.epoch, generation: 9 });
            assert_eq!(sent.sequence, 10, "after everything that was numbered before");
            let state = text(&store, &format!("SELECT state FROM operations WHERE id = '{open}'")).await;
            assert_eq!(state.as_deref(), Some("expired"));
            assert!(number(&store, "SELECT token_generation FROM users").await > 1_700_000_000);
        })
        .await;
    }
}
