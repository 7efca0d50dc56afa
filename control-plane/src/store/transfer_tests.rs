use super::*;
use crate::store::{
    link_testing::{self, transfer},
    testing::{each_backend, is_indexed},
};
use sqlx::AssertSqlSafe;

async fn write(store: &Store, transfer: &Transfer, now: i64) {
    let mut tx = store.begin().await.unwrap();
    insert(&mut tx, transfer, now).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_transfer_ends_once() {
    each_backend(|store| async move {
        let mut one = transfer(&store).await;
        (one.snapshot, one.base) = (Some(SnapshotId::generate()), Some(TransferId::generate()));
        assert_eq!(open(&store, one.id).await.unwrap(), None);
        write(&store, &one, 10).await;
        assert_eq!(open(&store, one.id).await.unwrap(), Some(one.clone()));
        let mut tx = store.begin().await.unwrap();
        note_failure(&mut tx, one.id, &Cause::new("x", "y")).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(open(&store, one.id).await.unwrap(), Some(one.clone()), "a failed try does not end it");
        let mut tx = store.begin().await.unwrap();
        assert_eq!(newest_kept(&mut *tx, one.container, None).await.unwrap(), None);
        assert!(keep(&mut tx, one.id, 7, 20).await.unwrap());
        assert!(!keep(&mut tx, one.id, 8, 21).await.unwrap());
        assert!(!end(&mut tx, one.id, 22).await.unwrap());
        assert_eq!(newest_kept(&mut *tx, one.container, None).await.unwrap(), Some(one.clone()));
        tx.commit().await.unwrap();
        assert_eq!(open(&store, one.id).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn what_others_are_based_on_stays_in_use() {
    each_backend(|store| async move {
        let first = transfer(&store).await;
        let later = |base| Transfer { id: TransferId::generate(), base, ..first.clone() };
        let (second, third) = (later(Some(first.id)), later(None));
        write(&store, &first, 1).await;
        let mut tx = store.begin().await.unwrap();
        keep(&mut tx, first.id, 7, 2).await.unwrap();
        tx.commit().await.unwrap();
        write(&store, &second, 3).await;
        let used = |most| in_use(store.reader(), first.source_container, most);
        assert_eq!(used(9).await.unwrap(), [second.id, first.id]);
        let mut tx = store.begin().await.unwrap();
        keep(&mut tx, second.id, 7, 4).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(used(9).await.unwrap(), [second.id], "the one before is not needed any more");
        write(&store, &third, 5).await;
        assert_eq!(used(9).await.unwrap(), [third.id, second.id]);
        assert_eq!(used(1).await.unwrap(), [third.id]);
        // A copy that is sent on keeps what it came from: its own next transfer is the difference from that.
        let next = link_testing::container(&store, first.source, 1, Vec::new()).await.id;
        let (source_container, container) = (first.container, next);
        let on = Transfer { id: TransferId::generate(), container, source_container, ..first.clone() };
        write(&store, &on, 6).await;
        assert_eq!(in_use(store.reader(), first.container, 9).await.unwrap(), [on.id, third.id, second.id]);
        let mut tx = store.begin().await.unwrap();
        assert!(end(&mut tx, third.id, 6).await.unwrap());
        // With either container the transfer goes.
        let gone = format!("DELETE FROM containers WHERE id = '{}'", first.source_container);
        sqlx::query(AssertSqlSafe(gone)).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(used(9).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn what_other_containers_and_other_servers_keep_is_not_in_use() {
    each_backend(|store| async move {
        let sent = transfer(&store).await;
        let (source, here) = (sent.source_container, sent.source);
        write(&store, &sent, 1).await;
        let mut own = Vec::new();
        for at in 2..5 {
            // A copy on the same server keeps what it was made from itself, and what it is synced by.
            let copy = link_testing::container(&store, here, 1, Vec::new()).await.id;
            let made = Transfer { id: TransferId::generate(), container: copy, target: here, ..sent.clone() };
            write(&store, &made, at).await;
            let mut tx = store.begin().await.unwrap();
            keep(&mut tx, made.id, 0, at).await.unwrap();
            tx.commit().await.unwrap();
            own.push(in_use(store.reader(), copy, 9).await.unwrap() == [made.id]);
        }
        assert_eq!(own, [true; 3]);
        let used = async |container| in_use(store.reader(), container, 9).await.unwrap();
        assert_eq!(used(source).await, [sent.id]);
        let mut tx = store.begin().await.unwrap();
        keep(&mut tx, sent.id, 7, 9).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!((used(source).await, used(sent.container).await), (vec![sent.id], vec![sent.id]));
        // Either moves: what it kept went with what the server held of it, and the other keeps its own.
        for (moves, stays) in [(source, sent.container), (sent.container, source)] {
            let elsewhere = link_testing::server(&store, &moves.to_string()).await;
            let place = async |server| {
                let sql = format!("UPDATE containers SET server_id = '{server}' WHERE id = '{moves}'");
                link_testing::execute(&store, sql).await;
            };
            place(elsewhere).await;
            assert_eq!((used(moves).await, used(stays).await), (Vec::new(), vec![sent.id]));
            place(if moves == source { here } else { sent.target }).await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_base_of_what_is_open_is_counted_once() {
    each_backend(|store| async move {
        let first = transfer(&store).await;
        write(&store, &first, 1).await;
        let mut tx = store.begin().await.unwrap();
        keep(&mut tx, first.id, 7, 1).await.unwrap();
        tx.commit().await.unwrap();
        let other = link_testing::container(&store, first.target, 1, Vec::new()).await.id;
        let between = Transfer { id: TransferId::generate(), container: other, ..first.clone() };
        write(&store, &between, 2).await;
        let next = Transfer { id: TransferId::generate(), base: Some(first.id), ..first.clone() };
        write(&store, &next, 3).await;
        let used = in_use(store.reader(), first.source_container, 9).await.unwrap();
        assert_eq!(used, [next.id, first.id, between.id]);
    })
    .await;
}

#[tokio::test]
async fn what_a_container_keeps_is_in_an_index() {
    is_indexed(&format!("SELECT t.id FROM transfers t, containers c WHERE {HELD}")).await;
}
