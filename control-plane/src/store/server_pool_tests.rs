use super::*;
use crate::store::{link_testing::server, testing::each_backend};

const OK: PoolHealth = PoolHealth { level: 0, errors: 0 };

async fn told(store: &Store) -> Vec<serde_json::Value> {
    let rows: Vec<String> =
        sqlx::query_scalar("SELECT payload FROM events WHERE event_type = 'server.health_changed' ORDER BY position")
            .fetch_all(store.reader())
            .await
            .unwrap();
    rows.iter().map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap()["pool"].clone()).collect()
}

#[tokio::test]
async fn what_is_new_is_told_once() {
    each_backend(|store| async move {
        let id = server(&store, "one").await;
        assert_eq!(read(&store, id).await.unwrap(), Some(OK));
        assert_eq!(read(&store, ServerId::generate()).await.unwrap(), None);
        let warned = PoolHealth { level: 80, errors: 0 };
        write(&store, id, OK, warned, 81.26).await.unwrap();
        // Another replica, or a link that was just replaced, saw the same.
        write(&store, id, OK, warned, 81.3).await.unwrap();
        let broken = PoolHealth { level: 80, errors: 3 };
        write(&store, id, warned, broken, 82.0).await.unwrap();
        // Set back by an operator: noted, and no news.
        write(&store, id, broken, warned, 82.0).await.unwrap();
        write(&store, id, warned, OK, 50.0).await.unwrap();
        assert_eq!(read(&store, id).await.unwrap(), Some(OK));
        let told: Vec<_> =
            told(&store).await.iter().map(|pool| (pool["level"].clone(), pool["new_device_errors"].clone())).collect();
        assert_eq!(told, [(80.into(), 0.into()), (80.into(), 3.into()), (0.into(), 0.into())]);
    })
    .await;
}
