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

#[tokio::test]
async fn what_was_there_and_is_asked_for_again_was_lost_and_nobody_is_told_to_delete_it() {
    each_backend(|store| async move {
        let one = transfer(&store).await;
        let mut spec = crate::store::container::get(&store, one.container).await.unwrap().unwrap().spec;
        let put = async |spec: &ContainerSpec| {
            let json = serde_json::to_string(spec).unwrap();
            let sql = format!("UPDATE containers SET spec = '{json}' WHERE id = '{}'", spec.id);
            link_testing::execute(&store, sql).await;
        };
        let why = async || not_open(&store, one.id, one.target).await.unwrap();
        assert_eq!(why().await, NotOpen::Unknown);
        let named = ("transfer".to_owned(), one.id.to_string());
        let named = (named.0.as_str().try_into().unwrap(), named.1.as_str().try_into().unwrap());
        spec.env = std::collections::BTreeMap::from([named]).try_into().unwrap();
        put(&spec).await;
        assert_eq!(why().await, NotOpen::Unknown, "what a tenant wrote was taken for the name of it");
        spec.transfer = Some(one.id);
        put(&spec).await;
        assert_eq!(why().await, NotOpen::SourceDeleted, "there is no row");
        write(&store, &one, 1).await;
        let mut tx = store.begin().await.unwrap();
        keep(&mut tx, one.id, 7, 2).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(why().await, NotOpen::Lost);
        assert_eq!(not_open(&store, one.id, one.source).await.unwrap(), NotOpen::Unknown, "it is not its own");
        link_testing::execute(&store, "DELETE FROM transfers".to_owned()).await;
        assert_eq!(why().await, NotOpen::SourceDeleted);
        spec.moved = true;
        put(&spec).await;
        assert_eq!(why().await, NotOpen::Lost, "it moved here, and its transfer went in time");
    })
    .await;
}

#[tokio::test]
async fn what_a_newer_one_replaced_ends_and_goes_in_time() {
    each_backend(|store| async move {
        let copied = transfer(&store).await;
        let synced = Transfer { id: TransferId::generate(), base: Some(copied.id), ..copied.clone() };
        let last = Transfer { id: TransferId::generate(), base: Some(synced.id), ..copied.clone() };
        let moved = Transfer { id: TransferId::generate(), source_container: copied.container, ..copied.clone() };
        for (one, at) in [(&copied, 1), (&synced, 2), (&last, 3), (&moved, 3)] {
            write(&store, one, at).await;
        }
        let settle = async |one: &Transfer, arrives: bool, at: i64| {
            let mut tx = store.begin().await.unwrap();
            if arrives {
                keep(&mut tx, one.id, 7, at).await.unwrap();
            }
            let sql = format!("UPDATE transfers SET purpose = 'sync', settled_at = {at} WHERE id = '{}'", one.id);
            sqlx::query(AssertSqlSafe(sql)).execute(&mut *tx).await.unwrap();
            supersede(&mut tx, one.id, at).await.unwrap();
            tx.commit().await.unwrap();
        };
        let mut tx = store.begin().await.unwrap();
        for one in [&copied, &moved] {
            keep(&mut tx, one.id, 7, 4).await.unwrap();
        }
        crate::store::moves::mark_transfer(&mut tx, moved.id).await.unwrap();
        tx.commit().await.unwrap();
        let state = async |one: &Transfer| {
            let sql = format!("SELECT state FROM transfers WHERE id = '{}'", one.id);
            let found: Option<String> =
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_optional(store.reader()).await.unwrap();
            found.unwrap_or_default()
        };
        let states = async || [state(&copied).await, state(&synced).await, state(&last).await, state(&moved).await];
        // One that did not arrive replaces nothing.
        settle(&synced, false, 10).await;
        assert_eq!(states().await, ["kept", "open", "open", "kept"]);
        settle(&synced, true, 10).await;
        assert_eq!(states().await, ["ended", "kept", "open", "kept"]);
        settle(&last, true, 20).await;
        assert_eq!(states().await, ["ended", "ended", "kept", "kept"]);
        let base = newest_kept(store.reader(), copied.container, Some(copied.source_container)).await.unwrap();
        assert_eq!(base.unwrap().id, last.id);
        assert_eq!(delete_before(&store, 20, 9).await.unwrap(), 0);
        // The container was made by the first one.
        assert_eq!(delete_before(&store, 100, 9).await.unwrap(), 1);
        assert_eq!(states().await, ["ended", "", "kept", "kept"]);
        let mut tx = store.begin().await.unwrap();
        crate::store::moves::end_transfers(&mut tx, copied.container, 30).await.unwrap();
        tx.commit().await.unwrap();
        // When it was ended does not count there, but when it was over.
        assert_eq!(delete_before(&store, 4, 9).await.unwrap(), 0);
        assert_eq!(delete_before(&store, 31, 9).await.unwrap(), 1);
        assert_eq!(states().await, ["ended", "", "kept", ""]);
    })
    .await;
}
