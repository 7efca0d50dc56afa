use super::*;
use crate::store::{
    link_testing::{hello, server},
    testing::each_backend,
};
use hoody_protocol::transport::generate_node_key;

async fn say(store: &Store, server: ServerId, hello: &Hello, now: i64) {
    let mut tx = store.begin().await.unwrap();
    record_hello(&mut tx, server, hello, now).await.unwrap();
    tx.commit().await.unwrap();
}

async fn numbers(store: &Store, columns: &str) -> Vec<i64> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {columns} FROM servers")))
        .fetch_one(store.reader())
        .await
        .unwrap();
    (0..columns.split(',').count()).map(|index| row.try_get(index).unwrap()).collect()
}

#[tokio::test]
async fn a_server_is_found_by_id_name_and_key() {
    each_backend(|store| async move {
        let id = server(&store, "one").await;
        let key = generate_node_key().unwrap().public_key();
        assert_eq!(by_key(&store, &key).await.unwrap(), None);
        let mut tx = store.begin().await.unwrap();
        sqlx::query("UPDATE servers SET public_key = $1").bind(key.to_string()).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        let found = by_id(&store, id).await.unwrap().unwrap();
        assert_eq!((found.status, found.public_key), (ServerStatus::Created, Some(key)));
        assert_eq!(by_name(&store, "one").await.unwrap(), Some(found.clone()));
        assert_eq!(by_key(&store, &key).await.unwrap(), Some(found));
        assert_eq!(by_id(&store, ServerId::generate()).await.unwrap(), None);
        let mut tx = store.begin().await.unwrap();
        let twice = crate::store::server::insert(&mut tx, ServerId::generate(), "one").await;
        assert!(matches!(twice, Err(StoreError::Duplicate { what: "this server name" })), "{twice:?}");
    })
    .await;
}

#[tokio::test]
async fn capacity_follows_the_facts_unless_it_was_set() {
    each_backend(|store| async move {
        let id = server(&store, "one").await;
        say(&store, id, &hello(4, 100), 10).await;
        let capacity = "cpu_millis, memory_bytes, disk_bytes";
        assert_eq!(numbers(&store, capacity).await, [4000, 100, i64::MAX], "absurd facts are cut");
        say(&store, id, &hello(8, 200), 20).await;
        assert_eq!(numbers(&store, capacity).await, [8000, 200, i64::MAX]);
        let mut tx = store.begin().await.unwrap();
        sqlx::query("UPDATE servers SET memory_bytes = 50").execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        say(&store, id, &hello(16, 400), 30).await;
        assert_eq!(numbers(&store, capacity).await, [16000, 50, i64::MAX]);
        assert_eq!(numbers(&store, "online, online_changed_at").await, [1, 10], "it was online all the time");
    })
    .await;
}

#[tokio::test]
async fn online_changes_are_dated_once() {
    each_backend(|store| async move {
        let id = server(&store, "one").await;
        say(&store, id, &hello(1, 1), 10).await;
        let key = generate_node_key().unwrap().public_key();
        let mut tx = store.begin().await.unwrap();
        let arrival = Arrival { key, issuer: "authority".to_owned(), replica: "here".to_owned() };
        record_link(&mut tx, id, &arrival, Some("first")).await.unwrap();
        tx.commit().await.unwrap();
        set_offline(&store, id, "elsewhere", 15).await.unwrap();
        assert_eq!(numbers(&store, "online, online_changed_at").await, [1, 10], "a newer link is elsewhere");
        set_offline(&store, id, "here", 20).await.unwrap();
        set_offline(&store, id, "here", 30).await.unwrap();
        assert_eq!(numbers(&store, "online, online_changed_at").await, [0, 20]);
        assert_eq!(not_moved(&store, "authority").await.unwrap(), [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn a_revoked_server_is_listed_as_shut_out() {
    each_backend(|store| async move {
        let id = server(&store, "one").await;
        server(&store, "two").await;
        assert_eq!(shut_out(&store).await.unwrap(), []);
        let mut tx = store.begin().await.unwrap();
        assert!(revoke(&mut tx, id, 5).await.unwrap());
        assert!(!revoke(&mut tx, ServerId::generate(), 5).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(shut_out(&store).await.unwrap(), [id]);
    })
    .await;
}
