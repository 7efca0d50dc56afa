//! `/containers/{id}/sync`, and copies to another server.

use super::world::{World, add_server};
use crate::{
    api::testing::Client,
    nodes::simulated::Faults,
    service::container::sync as service,
    store::{
        Store, container, moves, sync,
        testing::{each_backend, sqlite},
        transfer,
    },
};
use hoody_protocol::{container::Cause, id::ServerId};
use serde_json::{Value, json};

/// A world with a container and its copy, on the same server.
async fn copied(store: &Store) -> (World, String, String) {
    let world = World::new(store).await;
    let source = world.create(json!({"name": "web"})).await;
    let copy = world.client.post(&format!("{source}/copy"), json!({"name": "staging"})).await.expect(200);
    let copy = format!("/api/v1/containers/{}", copy.data()["id"].as_str().unwrap());
    (world, source, copy)
}

fn id(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

async fn logs(world: &World, path: &str) -> String {
    world.client.get(&format!("{path}/status-logs")).await.expect(200).json.to_string()
}

/// What its node would have been ordered, had.
async fn arrives(world: &World, server: ServerId) {
    let waiting = sync::waiting(&world.app.store, server).await.unwrap();
    service::received(&world.app, &waiting[0]).await.unwrap();
}

async fn settled(world: &World, path: &str, count: usize) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    let found = world.app.nodes.changes.wait_for(id(path).parse().unwrap(), deadline, || async {
        let log = logs(world, path).await;
        let ended = log.matches("\"succeeded\"").count() + log.matches("\"failed\"").count();
        Ok::<_, crate::store::StoreError>((ended >= count).then_some(()))
    });
    assert!(found.await.unwrap().is_some(), "{}", logs(world, path).await);
}

async fn snapshots(world: &World, path: &str) -> Vec<Value> {
    let listed = world.client.get(&format!("{path}/snapshots")).await.expect(200);
    listed.data()["snapshots"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_sync_takes_a_snapshot_and_tells_how_it_ends() {
    each_backend(|store| async move {
        let (world, source, copy) = copied(&store).await;
        let sync = format!("{copy}/sync");
        let begun = world.client.post(&sync, json!({})).await.expect(200);
        let expected = json!({"container_id": id(&copy), "source_container_id": id(&source), "status": "syncing"});
        assert_eq!(begun.data(), &expected);
        world.client.post(&sync, json!({})).await.expect(409);
        let seen = world.client.get(&format!("{copy}?runtime=true")).await.expect(200);
        let transfer = &seen.data()["transfer"];
        assert_eq!((&transfer["purpose"], &transfer["state"]), (&json!("sync"), &json!("waiting")), "{transfer}");
        assert_eq!(&seen.data()["runtime_info"]["transfer"], transfer);
        arrives(&world, world.server).await;
        settled(&world, &copy, 1).await;
        let first = snapshots(&world, &copy).await;
        assert_eq!(first.len(), 1, "{first:?}");
        let name = first[0]["name"].as_str().unwrap();
        assert!(name.starts_with("before-sync-") && first[0]["size"] == 4096, "{first:?}");
        assert!(first[0]["expires_at"].is_string());
        assert!(logs(&world, &copy).await.contains("started"));

        // The next one's takes the place of this one, in the time of the task that removes what has expired.
        world.client.post(&sync, json!({})).await.expect(200);
        arrives(&world, world.server).await;
        settled(&world, &copy, 2).await;
        // Nothing is based any more on what the copy was made from, and what came before.
        let sql = format!(
            "SELECT CAST(COUNT(*) AS BIGINT) FROM transfers WHERE container_id = '{}' AND state = 'kept'",
            id(&copy)
        );
        let kept: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(store.reader()).await.unwrap();
        assert_eq!(kept, 1);
        let due = crate::store::snapshot::due(&store, i64::MAX, None, 9).await.unwrap();
        assert_eq!(due[0].snapshot.name, name);
        assert!(due[0].since < due[1].since);

        // One that fails leaves no snapshot behind.
        world
            .node
            .set(Faults { fails: Some(Cause::new("sync_failed", "it did not start")), ..Default::default() })
            .await;
        world.client.post(&sync, json!({})).await.expect(200);
        arrives(&world, world.server).await;
        settled(&world, &copy, 3).await;
        assert!(logs(&world, &copy).await.contains("it did not start"));
        assert_eq!(snapshots(&world, &copy).await.len(), 2);
        world.node.set(Faults::default()).await;
        world.client.post(&sync, json!({})).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn who_may_sync_what() {
    let (_folder, store) = sqlite().await;
    let (world, source, copy) = copied(&store).await;
    let sync = format!("{copy}/sync");
    world.client.post(&format!("{source}/sync"), json!({})).await.expect(409);
    world.client.post(&format!("{sync}?if_diverged=maybe"), json!({})).await.expect_invalid(&["if_diverged"]);
    // What it was made from is kept beside a copy on the same server too, and is what it is compared with.
    let row = crate::store::container::get(&store, id(&copy).parse().unwrap()).await.unwrap().unwrap();
    let base = crate::store::transfer::newest_kept(store.reader(), row.spec.id, None).await.unwrap().unwrap();
    assert_eq!((row.spec.origin.unwrap().kept, row.spec.transfer), (Some(base.id), None));
    assert_eq!((base.source, base.target), (world.server, world.server));
    assert!(world.client.get(&copy).await.expect(200).data()["transfer"].is_null(), "nothing is on its way");
    // It is not known of one that an older version made.
    world.sql("DELETE FROM transfers").await;
    let refused = world.client.post(&format!("{sync}?if_diverged=refuse"), json!({})).await.expect(409);
    assert!(refused.json["message"].as_str().unwrap().contains("if_diverged"), "{}", refused.json);
    world.client.post("/api/v1/containers/0123456789abcdef01234567/sync", json!({})).await.expect(404);
    let (stranger, _) = Client::new_user(&world.app, "stranger", false).await;
    stranger.post(&sync, json!({})).await.expect(404);
    world.sql("UPDATE servers SET online = 0").await;
    let offline = world.client.post(&sync, json!({})).await.expect(503);
    assert!(offline.json["message"].as_str().unwrap().contains("offline"));
    world.sql("UPDATE servers SET online = 1, pool_level = 95").await;
    let full = world.client.post(&sync, json!({})).await.expect(409);
    assert!(full.json["message"].as_str().unwrap().contains("is full"), "{}", full.json);
    world.sql("UPDATE servers SET pool_level = 0").await;
    world.client.delete(&source).await.expect(200);
    world.client.post(&sync, json!({})).await.expect(409);
    assert_eq!(sync::waiting(&store, world.server).await.unwrap(), []);
}

#[tokio::test]
async fn a_copy_to_another_server_is_answered_at_once_and_goes_on() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let source = world.create(json!({"name": "web", "autostart": true})).await;
        world.client.post(&format!("{source}/snapshots"), json!({"name": "clean"})).await.expect(200);
        let other = add_server(&store, "two", world.user).await;
        let before = world.reserved().await;
        let input = json!({"target_server_id": other.to_string(), "name": "away", "source_snapshot": "clean"});
        let made = world.client.post(&format!("{source}/copy"), input).await.expect(200);
        let data = made.data();
        assert_eq!((&data["status"], &data["server_id"]), (&json!("copying"), &json!(other.to_string())));
        assert_eq!((&data["source_container_id"], &data["server_name"]), (&json!(id(&source)), &json!("two")));
        assert!(made.json["message"].as_str().unwrap().contains("still at it"), "{}", made.json);
        assert_eq!(world.reserved().await, before, "nothing is reserved on the source's server");
        let sql = format!("SELECT CAST(containers_used AS BIGINT) FROM servers WHERE id = '{other}'");
        let used: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(store.reader()).await.unwrap();
        assert_eq!(used, 1);
        let copy = format!("/api/v1/containers/{}", data["id"].as_str().unwrap());
        let row = container::get(&store, id(&copy).parse().unwrap()).await.unwrap().unwrap();
        let moving = transfer::moving(&store, row.spec.id).await.unwrap().unwrap();
        assert_eq!((row.spec.origin, row.spec.transfer), (None, Some(moving.transfer.id)));
        assert_eq!((moving.transfer.source, moving.transfer.target), (world.server, other));
        assert!(moving.transfer.snapshot.is_some() && !moving.sync);
        let seen = world.client.get(&copy).await.expect(200);
        let transfer = &seen.data()["transfer"];
        assert_eq!((&transfer["purpose"], &transfer["state"]), (&json!("copy"), &json!("waiting")), "{transfer}");
        // The snapshot stays until it is sent, and nothing is made from what is being made.
        world.client.delete(&format!("{source}/snapshots/clean")).await.expect(409);
        world.client.post(&format!("{copy}/sync"), json!({})).await.expect(409);
        world.client.post(&format!("{copy}/copy"), json!({})).await.expect(409);
        assert!(logs(&world, &copy).await.contains("source_server"));
    })
    .await;
}

#[tokio::test]
async fn servers_that_cannot_take_a_copy() {
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    let source = world.create(json!({"name": "web"})).await;
    let other = add_server(&store, "two", world.user).await;
    let copy = format!("{source}/copy");
    let there = json!({"target_server_id": other.to_string()});
    world.sql(&format!("UPDATE servers SET architecture = 'arm64' WHERE id = '{other}'")).await;
    let refused = world.client.post(&copy, there.clone()).await.expect(422);
    assert!(refused.json["message"].as_str().unwrap().contains("amd64"), "{}", refused.json);
    world.sql(&format!("UPDATE servers SET architecture = 'amd64', memory_bytes = 1 WHERE id = '{other}'")).await;
    world.client.post(&copy, there.clone()).await.expect(422);
    world.sql(&format!("UPDATE servers SET memory_bytes = 4294967296, linked_to = 'a' WHERE id = '{other}'")).await;
    world.sql(&format!("UPDATE servers SET linked_to = 'b' WHERE id = '{}'", world.server)).await;
    let elsewhere = world.client.post(&copy, there.clone()).await.expect(503);
    assert!(elsewhere.json["message"].as_str().unwrap().contains("replicas"), "{}", elsewhere.json);
    world.sql("UPDATE servers SET linked_to = 'a'").await;
    world.client.post(&copy, there).await.expect(200);
    // Another owner's server.
    let (_, stranger) = Client::new_user(&world.app, "stranger", false).await;
    let theirs = add_server(&store, "three", stranger).await;
    world.client.post(&copy, json!({"target_server_id": theirs.to_string()})).await.expect(404);
}

#[tokio::test]
async fn a_sync_whose_server_stays_away_ends_and_ties_nothing_any_more() {
    each_backend(|store| async move {
        let (world, source, copy) = copied(&store).await;
        let asked = format!("{copy}/sync");
        world.client.post(&asked, json!({})).await.expect(200);
        let id = id(&source).parse().unwrap();
        let tied = async || {
            let mut tx = store.begin().await.unwrap();
            moves::ties(&mut tx, id).await.unwrap().copied_by
        };
        let away = async |seconds: i64| {
            let since = hoody_protocol::time::now_ms() as i64 - seconds * 1000;
            world.sql(&format!("UPDATE servers SET online = 0, online_changed_at = {since}")).await;
            crate::tasks::moves::once(&world.app).await.unwrap();
        };
        away(14 * 60).await;
        assert_eq!((sync::waiting(&store, world.server).await.unwrap().len(), tied().await), (1, 1));
        let late = sync::waiting(&store, world.server).await.unwrap().remove(0);
        away(16 * 60).await;
        assert_eq!((sync::waiting(&store, world.server).await.unwrap().len(), tied().await), (0, 0));
        assert!(logs(&world, &copy).await.contains("target_offline"));
        // Its server is back: the next one begins, and what comes late of the first does nothing.
        world.sql("UPDATE servers SET online = 1").await;
        service::received(&world.app, &late).await.unwrap();
        world.client.post(&asked, json!({})).await.expect(200);
        let begun = sync::waiting(&store, world.server).await.unwrap().remove(0);
        service::received(&world.app, &begun).await.unwrap();
        // One that is being put in place is not ended from under its operation.
        service::failed(&world.app, &begun, &Cause::new("x", "late")).await.unwrap();
        settled(&world, &copy, 2).await;
        let log = logs(&world, &copy).await;
        assert_eq!((log.matches("\"succeeded\"").count(), log.matches("\"failed\"").count()), (1, 1), "{log}");
    })
    .await;
}
