use super::*;
use crate::store::{
    container,
    link_testing::{self, number},
    testing::each_backend,
};

/// A sync between two new containers, and the container that it is for.
async fn sync(store: &Store) -> (Sync, ContainerRow) {
    let transfer = Transfer { base: Some(TransferId::generate()), ..link_testing::transfer(store).await };
    let row = container::get(store, transfer.container).await.unwrap().unwrap();
    (Sync { transfer, user: Some(UserId::generate()), created_at: 10 }, row)
}

async fn write(store: &Store, row: &ContainerRow, sync: &Sync) -> Result<(), StoreError> {
    let mut tx = store.begin().await.unwrap();
    insert(&mut tx, row, sync).await?;
    Ok(tx.commit().await?)
}

async fn logs(store: &Store, word: &str) -> i64 {
    let sql = format!("SELECT CAST(COUNT(*) AS BIGINT) FROM status_logs WHERE metadata LIKE '%\"sync\":\"{word}\"%'");
    number(store, &sql).await
}

#[tokio::test]
async fn one_at_a_time_and_begun_once() {
    each_backend(|store| async move {
        let (first, row) = sync(&store).await;
        write(&store, &row, &first).await.unwrap();
        let again = Transfer { id: TransferId::generate(), ..first.transfer.clone() };
        let again = Sync { transfer: again, ..first.clone() };
        assert!(matches!(write(&store, &row, &again).await, Err(StoreError::Duplicate { .. })));
        assert_eq!(waiting(&store, first.transfer.target).await.unwrap(), std::slice::from_ref(&first));
        assert_eq!(waiting(&store, first.transfer.source).await.unwrap(), []);
        assert_eq!(servers_waiting(&store).await.unwrap(), [first.transfer.target]);
        let moving = transfer::moving(&store, row.spec.id).await.unwrap().unwrap();
        assert_eq!((moving.sync, moving.kept, moving.failure), (true, false, None));

        let mut tx = store.begin().await.unwrap();
        assert!(is_under_way(&mut tx, row.spec.id).await.unwrap());
        make_whole(&mut tx, first.transfer.id).await.unwrap();
        // The verdict was stored before the answer came.
        transfer::keep(&mut tx, first.transfer.id, 7, 20).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(waiting(&store, first.transfer.target).await.unwrap()[0].transfer.base, None);
        let mut tx = store.begin().await.unwrap();
        assert!(begin(&mut tx, first.transfer.id, OperationId::generate(), 30).await.unwrap());
        assert!(!begin(&mut tx, first.transfer.id, OperationId::generate(), 31).await.unwrap());
        let kind = OperationKind::Sync { transfer: first.transfer.id, snapshot: SnapshotId::generate(), origin: None };
        let ended = Ended { kind, failure: None, bytes: Some(5), at: 40 };
        let told = settle(&mut tx, &row, Actor::Node, &ended).await.unwrap();
        assert!(told.is_some());
        tx.commit().await.unwrap();
        assert_eq!((logs(&store, "started").await, logs(&store, "succeeded").await), (1, 1));
        assert_eq!(waiting(&store, first.transfer.target).await.unwrap(), []);
        assert_eq!(transfer::moving(&store, row.spec.id).await.unwrap(), None);
        // It is over: the next may begin, as the difference from this one.
        write(&store, &row, &again).await.unwrap();
        let from = Some(first.transfer.source_container);
        let base = transfer::newest_kept(store.reader(), row.spec.id, from).await.unwrap().unwrap();
        assert_eq!(base.id, first.transfer.id);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_had_is_ended_and_told_even_where_its_source_is_gone() {
    each_backend(|store| async move {
        let (one, row) = sync(&store).await;
        write(&store, &row, &one).await.unwrap();
        let cause = Cause::new("transfer_too_large", "no");
        for _ in 0..2 {
            let mut tx = store.begin().await.unwrap();
            fail(&mut tx, &row, &one, &cause, 20).await.unwrap();
            tx.commit().await.unwrap();
        }
        assert_eq!((logs(&store, "failed").await, waiting(&store, one.transfer.target).await.unwrap().len()), (1, 0));
        let next = Transfer { id: TransferId::generate(), ..one.transfer.clone() };
        let next = Sync { transfer: next, ..one.clone() };
        write(&store, &row, &next).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        container::purge(&mut tx, one.transfer.source_container).await.unwrap();
        assert!(!is_under_way(&mut tx, row.spec.id).await.unwrap());
        fail(&mut tx, &row, &next, &cause, 30).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(logs(&store, "failed").await, 2);
        let asked = transfer::not_open(&store, next.transfer.id, next.transfer.target).await.unwrap();
        assert_eq!(asked, transfer::NotOpen::Unknown);
    })
    .await;
}
