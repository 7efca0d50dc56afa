//! On both databases: capacity is never given out twice, whoever asks at the same time.

use super::*;
use crate::store::testing::each_backend;

async fn owner_with_server(store: &Store) -> (UserId, ServerId) {
    let (owner, server) = (UserId::generate(), ServerId::generate());
    let mut tx = store.begin().await.unwrap();
    let sql = format!(
        "INSERT INTO users (id, username, alias, password_hash, created_at, updated_at) \
         VALUES ('{owner}', '{owner}', 'a', 'x', 1, 1); \
         INSERT INTO servers (id, name, owner_id, status, online, architecture, cpu_millis, memory_bytes, disk_bytes, \
         max_containers, created_at, updated_at) VALUES ('{server}', '{server}', '{owner}', 'enrolled', 1, 'amd64', \
         1000, 1000, 1000, 5, 1, 1)"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    (owner, server)
}

fn limits(cpu_millis: u32, memory_bytes: u64, disk_bytes: u64) -> Limits {
    Limits { cpu_millis, memory_bytes, disk_bytes, pids: 8 }
}

async fn try_reserve(store: &Store, server: ServerId, owner: UserId, limits: Limits) -> bool {
    let mut tx = store.begin().await.unwrap();
    let reserved = reserve(&mut tx, server, owner, &limits).await.unwrap();
    tx.commit().await.unwrap();
    reserved
}

#[tokio::test]
async fn each_kind_of_capacity_is_a_limit_of_its_own() {
    each_backend(|store| async move {
        let (owner, server) = owner_with_server(&store).await;
        for too_much in [limits(1001, 1, 1), limits(1, 1001, 1), limits(1, 1, 1001), limits(1, u64::MAX, 1)] {
            assert!(!try_reserve(&store, server, owner, too_much).await);
        }
        assert!(!try_reserve(&store, server, UserId::generate(), limits(1, 1, 1)).await, "another's server");
        for _ in 0..5 {
            assert!(try_reserve(&store, server, owner, limits(200, 200, 200)).await);
        }
        assert!(!try_reserve(&store, server, owner, limits(0, 0, 0)).await, "five containers at most");
        let mut tx = store.begin().await.unwrap();
        release(&mut tx, server, &limits(200, 200, 200)).await.unwrap();
        tx.commit().await.unwrap();
        assert!(try_reserve(&store, server, owner, limits(200, 200, 200)).await);
    })
    .await;
}

#[tokio::test]
async fn concurrent_reservations_never_over_commit() {
    each_backend(|store| async move {
        let (owner, server) = owner_with_server(&store).await;
        let tries = (0..12).map(|_| try_reserve(&store, server, owner, limits(300, 300, 300)));
        let won = futures::future::join_all(tries).await.into_iter().filter(|won| *won).count();
        assert_eq!(won, 3);
    })
    .await;
}

#[tokio::test]
async fn only_an_enrolled_server_is_reserved() {
    each_backend(|store| async move {
        let (owner, server) = owner_with_server(&store).await;
        for status in ["created", "disabled", "revoked"] {
            let mut tx = store.begin().await.unwrap();
            let sql = format!("UPDATE servers SET status = '{status}'");
            sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut *tx).await.unwrap();
            tx.commit().await.unwrap();
            assert!(!try_reserve(&store, server, owner, limits(1, 1, 1)).await, "{status}");
        }
        let servers = servers_of(&store, owner, ProjectId::generate()).await.unwrap();
        assert_eq!((servers.len(), servers[0].status.as_str(), servers[0].free_cpu_millis), (1, "revoked", 1000));
    })
    .await;
}
