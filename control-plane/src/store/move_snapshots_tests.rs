//! On both databases: which snapshots the target of a move has, and which one is next.

use super::*;
use crate::store::{
    Store, dispatch, link_testing, moves,
    operation::{self, NewOperation},
    snapshot::{self, SnapshotRow, SnapshotState},
    testing::each_backend,
    transfer::{self, Transfer},
};
use hoody_protocol::{
    container::Cause,
    id::{OperationId, ServerId, TransferId},
    operation::OperationKind,
};

fn row(container: ContainerId, name: &str, state: SnapshotState, created_at: i64) -> SnapshotRow {
    SnapshotRow {
        id: SnapshotId::generate(),
        container,
        name: name.to_owned(),
        alias: None,
        state,
        size_bytes: 0,
        created_at,
        expires_at: None,
        last_used_at: None,
    }
}

/// What is next, what was sent, and whether anything is not settled.
async fn seen(store: &Store, container: ContainerId) -> (Option<SnapshotId>, Vec<SnapshotId>, bool) {
    let mut tx = store.begin().await.unwrap();
    let next = next(&mut tx, container).await.unwrap();
    let sent = sent(&mut *tx, container).await.unwrap().into_iter().map(|sent| sent.id).collect();
    (next, sent, is_unsettled(&mut tx, container).await.unwrap())
}

#[tokio::test]
async fn each_snapshot_is_sent_once_the_oldest_first() {
    each_backend(|store| async move {
        let (source, target) = (link_testing::server(&store, "one").await, link_testing::server(&store, "two").await);
        let container = link_testing::container(&store, source, 1, Vec::new()).await.id;
        assert_eq!(seen(&store, container).await, (None, Vec::new(), false));
        let (young, old) =
            (row(container, "young", SnapshotState::Ready, 9), row(container, "old", SnapshotState::Ready, 3));
        let creating = row(container, "creating", SnapshotState::Creating, 1);
        let mut tx = store.begin().await.unwrap();
        for row in [&young, &old, &creating] {
            snapshot::insert(&mut tx, row).await.unwrap();
        }
        tx.commit().await.unwrap();
        assert_eq!(seen(&store, container).await, (Some(old.id), Vec::new(), true));
        let transfer = |snapshot| Transfer {
            id: TransferId::generate(),
            container,
            target,
            source_container: container,
            source,
            snapshot: Some(snapshot),
            base: None,
        };
        // Under way, by a copy, or of a move that is over: the target does not have it.
        let (copied, over, moved) = (transfer(old.id), transfer(old.id), transfer(old.id));
        let mut tx = store.begin().await.unwrap();
        for one in [&copied, &over, &moved] {
            transfer::insert(&mut tx, one, 5).await.unwrap();
        }
        transfer::keep(&mut tx, copied.id, 7, 6).await.unwrap();
        for one in [over.id, moved.id] {
            moves::mark_transfer(&mut tx, one).await.unwrap();
        }
        transfer::end(&mut tx, over.id, 6).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(seen(&store, container).await, (Some(old.id), Vec::new(), true));
        let mut tx = store.begin().await.unwrap();
        transfer::keep(&mut tx, moved.id, 7, 8).await.unwrap();
        snapshot::begin_deletion(&mut tx, old.id).await.unwrap();
        tx.commit().await.unwrap();
        // One that is just being deleted may stay after all.
        assert_eq!(seen(&store, container).await, (Some(young.id), vec![old.id], true));
        let mut tx = store.begin().await.unwrap();
        assert!(!snapshot::is_being_copied(&mut tx, container, old.id).await.unwrap());
        moves::end_transfers(&mut tx, container, 9).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(seen(&store, container).await, (Some(young.id), Vec::new(), true));
    })
    .await;
}

async fn ask(store: &Store, server: ServerId, container: ContainerId, kind: OperationKind, sent: bool) {
    let id = OperationId::generate();
    let new = NewOperation {
        id,
        container,
        server,
        user: None,
        sequence: 5,
        kind,
        created_at: 1,
        begin_before: i64::MAX,
        expired: None,
    };
    let mut tx = store.begin().await.unwrap();
    operation::insert(&mut tx, &new).await.unwrap();
    tx.commit().await.unwrap();
    if sent {
        assert!(dispatch::mark_dispatched(store, id, 2).await.unwrap());
    }
}

#[tokio::test]
async fn what_was_never_sent_is_settled_and_what_was_is_waited_for() {
    each_backend(|store| async move {
        let server = link_testing::server(&store, "one").await;
        let container = link_testing::container(&store, server, 1, Vec::new()).await.id;
        let (new, old, gone) = (
            row(container, "new", SnapshotState::Creating, 3),
            row(container, "old", SnapshotState::Deleting, 2),
            row(container, "gone", SnapshotState::Deleting, 1),
        );
        let mut tx = store.begin().await.unwrap();
        for row in [&new, &old, &gone] {
            snapshot::insert(&mut tx, row).await.unwrap();
        }
        tx.commit().await.unwrap();
        assert!(!operation::is_under_way(store.reader(), container).await.unwrap());
        let kinds = [
            (OperationKind::CreateSnapshot { snapshot: new.id }, false),
            (OperationKind::DeleteSnapshot { snapshot: old.id }, false),
            (OperationKind::DeleteSnapshot { snapshot: gone.id }, true),
        ];
        for (kind, sent) in kinds {
            ask(&store, server, container, kind, sent).await;
        }
        let mut tx = store.begin().await.unwrap();
        operation::expire_unsent(&mut tx, container, &Cause::new("moved", "it moves"), 9).await.unwrap();
        tx.commit().await.unwrap();
        let left: Vec<_> = snapshot::list(store.reader(), container).await.unwrap();
        let left: Vec<_> = left.into_iter().map(|row| (row.id, row.state)).collect();
        assert_eq!(left, [(gone.id, SnapshotState::Deleting), (old.id, SnapshotState::Ready)]);
        assert_eq!(seen(&store, container).await, (Some(old.id), Vec::new(), true));
        assert!(operation::is_under_way(store.reader(), container).await.unwrap());
    })
    .await;
}
