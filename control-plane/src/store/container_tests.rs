//! On both databases: what is written is read back, versions fence updates, capacity comes back once.

use super::*;
use crate::store::{
    image::tests::{image, insert_container},
    operation::{self, NewOperation},
    reservation,
    status_log::{self, Trigger},
    testing::each_backend,
};
use hoody_protocol::{
    container::{Cause, Desired},
    id::OperationId,
    operation::OperationKind,
    version::SpecVersion,
};

async fn used(store: &Store, server: ServerId) -> (i64, i64) {
    sqlx::query_as("SELECT containers_used, memory_bytes_used FROM servers WHERE id = $1")
        .bind(server.to_string())
        .fetch_one(store.reader())
        .await
        .unwrap()
}

/// A container on a server that is enrolled, large, and its owner's.
async fn container(store: &Store) -> ContainerRow {
    let id = insert_container(store, &image("debian/12", b"x").spec).await;
    let row = get(store, id).await.unwrap().unwrap();
    let mut tx = store.begin().await.unwrap();
    sqlx::query(
        "UPDATE servers SET status = 'enrolled', owner_id = $2, cpu_millis = 1000000, memory_bytes = 1099511627776, \
         disk_bytes = 1099511627776, max_containers = 10, cpu_millis_used = 0, memory_bytes_used = 0, \
         disk_bytes_used = 0, containers_used = 0 WHERE id = $1",
    )
    .bind(row.server.to_string())
    .bind(row.spec.owner.to_string())
    .execute(&mut *tx)
    .await
    .unwrap();
    assert!(reservation::reserve(&mut tx, row.server, row.spec.owner, &row.spec.limits).await.unwrap());
    tx.commit().await.unwrap();
    get(store, id).await.unwrap().unwrap()
}

#[tokio::test]
async fn an_update_of_an_old_version_writes_nothing() {
    each_backend(|store| async move {
        let mut row = container(&store).await;
        let read = row.spec.version;
        row.spec.version.generation += 1;
        row.name = "renamed".to_owned();
        row.attributes.comment = Some("remark".to_owned());
        let mut tx = store.begin().await.unwrap();
        assert!(update(&mut tx, &row, read).await.unwrap());
        tx.commit().await.unwrap();
        let stored = get(&store, row.spec.id).await.unwrap().unwrap();
        assert_eq!(stored, row);
        row.name = "again".to_owned();
        let mut tx = store.begin().await.unwrap();
        assert!(!update(&mut tx, &row, read).await.unwrap());
        let other_epoch = SpecVersion { epoch: 9, ..stored.spec.version };
        assert!(!update(&mut tx, &row, other_epoch).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(get(&store, row.spec.id).await.unwrap().unwrap().name, "renamed");
    })
    .await;
}

#[tokio::test]
async fn a_purge_gives_back_once_and_takes_logs_and_operations_along() {
    each_backend(|store| async move {
        let mut row = container(&store).await;
        assert_eq!(used(&store, row.server).await, (1, row.spec.limits.memory_bytes as i64));
        let mut tx = store.begin().await.unwrap();
        let trigger = Trigger::User(row.spec.owner);
        status_log::transition(&mut tx, &mut row, Status::Deleting, trigger, None, 5000).await.unwrap();
        let operation = new_operation(&row);
        operation::insert(&mut tx, &operation).await.unwrap();
        assert!(purge(&mut tx, row.spec.id).await.unwrap());
        assert!(!purge(&mut tx, row.spec.id).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(used(&store, row.server).await, (0, 0));
        assert_eq!(operation::state(&store, operation.id).await.unwrap(), None);
        let slice = Slice { by: "transition_time", descending: true, limit: 10, offset: 0 };
        assert_eq!(status_log::list(&store, row.spec.id, slice).await.unwrap().1, 0);
    })
    .await;
}

fn new_operation(row: &ContainerRow) -> NewOperation {
    NewOperation {
        id: OperationId::generate(),
        container: row.spec.id,
        server: row.server,
        user: Some(row.spec.owner),
        sequence: row.sequence + 1,
        kind: OperationKind::Restart,
        created_at: 1,
        begin_before: i64::MAX,
        expired: None,
    }
}

#[tokio::test]
async fn dispatch_and_expiry_cannot_both_win() {
    each_backend(|store| async move {
        let row = container(&store).await;
        let cause = Cause::new("timeout", "too late");
        for expiry_first in [true, false] {
            let new = new_operation(&row);
            let mut tx = store.begin().await.unwrap();
            operation::insert(&mut tx, &new).await.unwrap();
            tx.commit().await.unwrap();
            if !expiry_first {
                assert!(crate::store::dispatch::mark_dispatched(&store, new.id, 10).await.unwrap());
            }
            let mut tx = store.begin().await.unwrap();
            assert_eq!(operation::expire(&mut tx, new.id, &cause, 20).await.unwrap(), expiry_first);
            assert!(!operation::expire(&mut tx, new.id, &cause, 20).await.unwrap());
            tx.commit().await.unwrap();
            if expiry_first {
                assert!(!crate::store::dispatch::mark_dispatched(&store, new.id, 10).await.unwrap());
                assert_eq!(
                    operation::state(&store, new.id).await.unwrap(),
                    Some(operation::State::Expired(cause.clone()))
                );
            } else {
                assert_eq!(operation::state(&store, new.id).await.unwrap(), Some(operation::State::Dispatched));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn transitions_are_logged_with_their_duration_and_only_where_something_changes() {
    each_backend(|store| async move {
        let mut row = container(&store).await;
        row.status = Status::Creating;
        row.status_changed_at = 1000;
        let mut tx = store.begin().await.unwrap();
        let metadata = Some(serde_json::json!({"server": "one"}));
        status_log::begin(&mut tx, &row, Trigger::Scheduler(row.spec.owner), metadata.clone()).await.unwrap();
        status_log::transition(&mut tx, &mut row, Status::Stopped, Trigger::System, None, 3500).await.unwrap();
        status_log::transition(&mut tx, &mut row, Status::Stopped, Trigger::System, None, 9000).await.unwrap();
        tx.commit().await.unwrap();
        let slice = Slice { by: "transition_time", descending: true, limit: 10, offset: 0 };
        let (logs, total) = status_log::list(&store, row.spec.id, slice).await.unwrap();
        assert_eq!((logs.len(), total), (2, 2));
        assert_eq!((logs[0].from_status.as_deref(), logs[0].to_status.as_str()), (Some("creating"), "stopped"));
        assert_eq!((logs[0].duration_ms, logs[0].triggered_by.as_str()), (Some(2500), "system"));
        assert_eq!((logs[1].from_status.as_deref(), logs[1].metadata.clone()), (None, metadata));
        assert_eq!(row.status_changed_at, 3500);
    })
    .await;
}

#[tokio::test]
async fn a_tombstone_keeps_the_stored_desire() {
    each_backend(|store| async move {
        let mut row = container(&store).await;
        let read = row.spec.version;
        row.spec.version.generation += 1;
        row.spec.desired = Desired::Deleted;
        row.deleted_at = Some(7);
        let mut tx = store.begin().await.unwrap();
        assert!(lock(&mut tx, row.spec.id).await.unwrap().is_some());
        assert!(update(&mut tx, &row, read).await.unwrap());
        tx.commit().await.unwrap();
        let slice = Slice { by: "name", descending: false, limit: 10, offset: 0 };
        let mine = Filter { visible_to: Some(row.spec.owner), ..Filter::default() };
        assert_eq!(list(&store, &mine, slice).await.unwrap().1, 0);
        let (rows, total) = list(&store, &Filter { deleting: true, ..mine }, slice).await.unwrap();
        assert_eq!((rows[0].spec.desired, total), (Desired::Deleted, 1));
    })
    .await;
}
