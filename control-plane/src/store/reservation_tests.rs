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
    Limits { cpu_millis, memory_bytes, disk_bytes, pids: 8, network_mbit: None }
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
        let servers = servers_of(store.reader(), owner, ProjectId::generate()).await.unwrap();
        assert_eq!((servers.len(), servers[0].status.as_str(), servers[0].free_cpu_millis), (1, "revoked", 1000));
    })
    .await;
}

#[tokio::test]
async fn a_resized_reservation_takes_and_gives_back_the_difference() {
    each_backend(|store| async move {
        let (owner, server) = owner_with_server(&store).await;
        assert!(try_reserve(&store, server, owner, limits(400, 400, 400)).await);
        assert!(try_reserve(&store, server, owner, limits(400, 400, 400)).await);
        let resize = async |before: Limits, after: Limits| {
            let mut tx = store.begin().await.unwrap();
            let resized = resize(&mut tx, server, &before, &after).await.unwrap();
            let free = free(&mut tx, server).await.unwrap();
            tx.commit().await.unwrap();
            (resized, (free.cpu_millis, free.memory_bytes, free.disk_bytes))
        };
        let now = limits(400, 400, 400);
        for too_much in [limits(601, 1, 1), limits(1, 601, 1), limits(1, 1, 601), limits(1, u64::MAX, 1)] {
            assert_eq!(resize(now, too_much).await, (false, (200, 200, 200)));
        }
        assert_eq!(resize(now, limits(600, 500, 100)).await, (true, (0, 100, 500)));
        // A server that shrank lets a container give back, and not take.
        let sql = "UPDATE servers SET memory_bytes = 100";
        let mut tx = store.begin().await.unwrap();
        sqlx::query(sql).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        assert!(!resize(limits(600, 500, 100), limits(600, 501, 100)).await.0);
        assert_eq!(resize(limits(600, 500, 100), limits(600, 400, 100)).await, (true, (0, -700, 500)));
    })
    .await;
}

#[tokio::test]
async fn concurrent_resizes_never_over_commit() {
    each_backend(|store| async move {
        let (owner, server) = owner_with_server(&store).await;
        for _ in 0..4 {
            assert!(try_reserve(&store, server, owner, limits(100, 100, 100)).await);
        }
        let tries = (0..4).map(|_| async {
            let mut tx = store.begin().await.unwrap();
            let resized = resize(&mut tx, server, &limits(100, 100, 100), &limits(100, 350, 100)).await.unwrap();
            tx.commit().await.unwrap();
            resized
        });
        let won = futures::future::join_all(tries).await.into_iter().filter(|won| *won).count();
        assert_eq!(won, 2);
    })
    .await;
}
