//! `/containers/{id}/snapshots`.

use super::world::World;
use crate::{
    app::testing,
    nodes::simulated::Faults,
    store::{
        snapshot::{self, SnapshotRow, SnapshotState},
        testing::{each_backend, sqlite},
        transfer::{self, Transfer},
    },
    tasks,
};
use hoody_protocol::{
    container::Cause,
    id::{SnapshotId, TransferId},
};
use serde_json::{Value, json};
use std::time::Duration;

async fn names(world: &World, path: &str) -> Vec<String> {
    let listed = world.client.get(&format!("{path}/snapshots")).await.expect(200);
    let all = listed.data()["snapshots"].as_array().unwrap().clone();
    assert_eq!(listed.data()["snapshot_count"], all.len());
    all.iter().map(|snapshot| snapshot["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn snapshots_are_taken_listed_renamed_restored_and_deleted() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let path = world.running().await;
        let snapshots = format!("{path}/snapshots");
        let empty = world.client.get(&snapshots).await.expect(200);
        assert_eq!((&empty.data()["snapshots"], &empty.data()["max_snapshots"]), (&json!([]), &json!(10)));

        let input = json!({"name": "before-upgrade", "alias": "Pre-upgrade snapshot", "expiry": 7});
        let made = world.client.post(&snapshots, input).await.expect(200);
        let snapshot = &made.data()["snapshot"];
        assert_eq!(made.data()["container_id"], path.rsplit('/').next().unwrap());
        assert_eq!(made.data()["project_id"], world.project.as_str());
        assert_eq!((&snapshot["name"], &snapshot["alias"]), (&json!("before-upgrade"), &json!("Pre-upgrade snapshot")));
        assert_eq!((&snapshot["size"], &snapshot["stateful"]), (&json!(4096), &json!(false)));
        assert!(snapshot["expires_at"].is_string() && snapshot["last_used_at"].is_null());
        let other = world.client.post(&snapshots, json!({})).await.expect(200);
        let other = other.data()["snapshot"]["name"].as_str().unwrap().to_owned();
        assert!(other.starts_with("snap-"), "{other}");
        assert_eq!(names(&world, &path).await, ["before-upgrade".to_owned(), other.clone()]);
        let shown = world.client.get(&path).await.expect(200);
        assert_eq!((&shown.data()["snapshot_count"], &shown.data()["last_used_snapshot"]), (&json!(2), &Value::Null));

        let alias = format!("{snapshots}/before-upgrade/alias");
        let renamed = world.client.patch(&alias, json!({"alias": "Renamed snapshot"})).await.expect(200);
        assert_eq!(renamed.data()["snapshot"]["alias"], "Renamed snapshot");
        world.client.put(&alias, json!({})).await.expect_invalid(&["alias"]);
        // By alias too.
        let restored = world.client.put(&format!("{snapshots}/Renamed%20snapshot"), json!({})).await.expect(200);
        assert_eq!(
            (&restored.data()["success"], &restored.data()["snapshot"]["name"]),
            (&json!(true), &json!("before-upgrade"))
        );
        assert!(restored.data()["snapshot"]["last_used_at"].is_string());
        assert_eq!(world.client.get(&path).await.expect(200).data()["last_used_snapshot"], "before-upgrade");

        let removed = world.client.delete(&format!("{snapshots}/{other}")).await.expect(200);
        assert_eq!(removed.data()["snapshot_name"], other.as_str());
        world.client.delete(&format!("{snapshots}/{other}")).await.expect(404);
        world.client.put(&format!("{snapshots}/{other}"), json!({})).await.expect(404);
        assert_eq!(names(&world, &path).await, ["before-upgrade"]);
        assert_eq!(world.client.get(&path).await.expect(200).data()["snapshot_count"], 1);

        let events = world.client.get("/api/v1/events?resource_type=container&limit=100").await.expect(200);
        let kinds: Vec<&str> = events.data()["events"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|event| event["event_type"].as_str())
            .collect();
        for (kind, count) in [("created", 2), ("renamed", 1), ("restored", 1), ("deleted", 1)] {
            let kind = format!("container.snapshot.{kind}");
            assert_eq!(kinds.iter().filter(|found| **found == kind).count(), count, "{kind}");
        }
        // They go with their container.
        world.client.delete(&path).await.expect(200);
        world.client.get(&snapshots).await.expect(404);
    })
    .await;
}

#[tokio::test]
async fn names_aliases_and_their_number_are_limited_whoever_asks_at_once() {
    each_backend(|store| async move {
        let mut config = testing::config();
        config.operation_deadline = Duration::from_secs(20);
        config.snapshot_max_per_container = 3;
        let world = World::with_config(&store, config).await;
        let path = world.create(json!({"name": "web"})).await;
        let snapshots = format!("{path}/snapshots");
        world.client.post(&snapshots, json!({"name": "one", "alias": "first"})).await.expect(200);
        for taken in
            [json!({"name": "one"}), json!({"name": "first"}), json!({"alias": "first"}), json!({"alias": "one"})]
        {
            world.client.post(&snapshots, taken).await.expect(409);
        }
        world.client.post(&snapshots, json!({"name": "two"})).await.expect(200);
        world.client.put(&format!("{snapshots}/two/alias"), json!({"alias": "one"})).await.expect(409);
        let same = world.client.put(&format!("{snapshots}/one/alias"), json!({"alias": "one"})).await.expect(200);
        assert_eq!(same.data()["snapshot"]["alias"], "one");
        // Of many at once, one finds room.
        let answers = futures::future::join_all((0..4).map(|_| world.client.post(&snapshots, json!({})))).await;
        let taken = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!((taken, answers.iter().filter(|answer| answer.status == 409).count()), (1, 3));
        world
            .client
            .post(&snapshots, json!({"name": "a b", "alias": "x".repeat(101), "expiry": 0}))
            .await
            .expect_invalid(&["alias", "expiry", "name"]);
    })
    .await;
}

#[tokio::test]
async fn what_the_node_does_not_do_leaves_nothing_behind() {
    each_backend(|store| async move {
        let mut config = testing::config();
        config.operation_deadline = Duration::from_secs(2);
        let world = World::with_config(&store, config).await;
        let path = world.create(json!({"name": "web"})).await;
        let snapshots = format!("{path}/snapshots");
        world.client.post(&snapshots, json!({"name": "kept"})).await.expect(200);
        let fails = Some(Cause::new("no_space", "a disk of the server is full"));
        world.node.set(Faults { fails, ..Faults::default() }).await;
        let failed = world.client.post(&snapshots, json!({"name": "lost"})).await.expect(502);
        assert_eq!(failed.json["error"]["details"]["cause"], "no_space");
        world.client.delete(&format!("{snapshots}/kept")).await.expect(502);
        world.client.put(&format!("{snapshots}/kept"), json!({})).await.expect(502);
        // Never sent: it never runs.
        world.node.set(Faults { deaf: true, ..Faults::default() }).await;
        world.client.post(&snapshots, json!({"name": "late"})).await.expect(504);
        world.offline().await;
        let carried_out = *world.node.operations.lock().unwrap();
        let offline = world.client.post(&snapshots, json!({"name": "offline"})).await.expect(503);
        assert!(offline.json["message"].as_str().unwrap().contains("offline"));
        world.client.delete(&format!("{snapshots}/kept")).await.expect(503);
        assert_eq!(names(&world, &path).await, ["kept"], "listed while the server is offline too");
        world.online().await;
        world.client.post(&snapshots, json!({"name": "late"})).await.expect(200);
        assert_eq!(*world.node.operations.lock().unwrap(), carried_out + 1);
        assert_eq!(names(&world, &path).await, ["kept", "late"]);
    })
    .await;
}

#[tokio::test]
async fn expired_snapshots_are_deleted_once_and_when_their_server_is_there() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let path = world.create(json!({"name": "web"})).await;
        let snapshots = format!("{path}/snapshots");
        for (name, expiry) in [("short", json!(1)), ("long", json!(2)), ("kept", Value::Null)] {
            world.client.post(&snapshots, json!({"name": name, "expiry": expiry})).await.expect(200);
        }
        tasks::snapshots::once(&world.app).await.unwrap();
        assert_eq!(names(&world, &path).await, ["short", "long", "kept"]);
        world.sql("UPDATE snapshots SET expires_at = 1 WHERE name = 'short'").await;
        world.offline().await;
        tasks::snapshots::once(&world.app).await.unwrap();
        assert_eq!(names(&world, &path).await.len(), 3);
        world.online().await;
        let before = *world.node.operations.lock().unwrap();
        // Two replicas at once.
        let (one, other) = tokio::join!(tasks::snapshots::once(&world.app), tasks::snapshots::once(&world.app));
        one.and(other).unwrap();
        let id = path.rsplit('/').next().unwrap().parse().unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        let gone = world.app.nodes.changes.wait_for(id, deadline, || async {
            let gone = crate::store::snapshot::list(world.app.store.reader(), id).await?.len() == 2;
            Ok::<_, crate::store::StoreError>(gone.then_some(()))
        });
        assert!(gone.await.unwrap().is_some(), "it was not deleted");
        assert_eq!(names(&world, &path).await, ["long", "kept"]);
        assert_eq!(*world.node.operations.lock().unwrap(), before + 1);
    })
    .await;
}

#[tokio::test]
async fn containers_without_a_root_file_system_have_no_snapshots() {
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    let path = world.create(json!({"name": "web"})).await;
    world.sql("UPDATE containers SET status = 'creating'").await;
    world.client.post(&format!("{path}/snapshots"), json!({})).await.expect(409);
    world.client.post(&format!("{path}/copy"), json!({})).await.expect(409);
    let unknown = "/api/v1/containers/0123456789abcdef01234567";
    world.client.get(&format!("{unknown}/snapshots")).await.expect(404);
    world.client.post(&format!("{unknown}/snapshots"), json!({})).await.expect(404);
    world.client.post("/api/v1/containers/nonsense/snapshots", json!({})).await.expect(400);
}

#[tokio::test]
async fn what_cannot_be_deleted_keeps_no_other_snapshot_from_its_turn() {
    const STUCK: usize = 300;
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let (path, other) = (world.create(json!({"name": "web"})).await, world.create(json!({"name": "other"})).await);
        let id = |path: &str| path.rsplit('/').next().unwrap().parse().unwrap();
        let mut tx = store.begin().await.unwrap();
        for number in 0..STUCK {
            let row = SnapshotRow {
                id: SnapshotId::generate(),
                container: id(&path),
                name: format!("stuck-{number}"),
                alias: None,
                state: SnapshotState::Ready,
                size_bytes: 0,
                created_at: 1,
                expires_at: Some(1),
                last_used_at: None,
            };
            snapshot::insert(&mut tx, &row).await.unwrap();
            // A copy of it is on its way, for ever.
            let copy = Transfer {
                id: TransferId::generate(),
                container: id(&other),
                target: world.server,
                source_container: id(&path),
                source: world.server,
                snapshot: Some(row.id),
                base: None,
            };
            transfer::insert(&mut tx, &copy, 1).await.unwrap();
        }
        tx.commit().await.unwrap();
        world.client.post(&format!("{other}/snapshots"), json!({"name": "late", "expiry": 1})).await.expect(200);
        world.sql("UPDATE snapshots SET expires_at = 2 WHERE name = 'late'").await;
        let (mut turns, now) = (tasks::snapshots::Turns::default(), tokio::time::Instant::now());
        for _ in 0..STUCK / 64 + 1 {
            turns.round(&world.app, now).await.unwrap();
        }
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        let gone = world.app.nodes.changes.wait_for(id(&other), deadline, || async {
            Ok::<_, crate::store::StoreError>(
                snapshot::list(store.reader(), id(&other)).await?.is_empty().then_some(()),
            )
        });
        assert!(gone.await.unwrap().is_some(), "others stopped it");
        assert_eq!(snapshot::list(store.reader(), id(&path)).await.unwrap().len(), STUCK);
    })
    .await;
}
