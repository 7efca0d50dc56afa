//! What must not go wrong when a container is stopped for its move, and when it becomes the target's: whatever was changed
//! since the move began.

use super::moves::{Two, id};
use crate::{
    nodes::simulated::Faults,
    service::container::moving::steps,
    store::{
        container, link_testing,
        moves::State,
        testing::{each_backend, sqlite},
        transfer::{self, Transfer},
    },
};
use hoody_protocol::{
    container::{Cause, Desired},
    id::{ServerId, TransferId},
    transfer::MAX_KEPT,
};
use serde_json::json;

/// Changes the specification as it is written, past what requests accept.
async fn change(two: &Two, path: &str, change: impl FnOnce(&mut container::ContainerRow)) {
    let mut tx = two.world.app.store.begin().await.unwrap();
    let mut row = container::lock(&mut tx, id(path)).await.unwrap().unwrap();
    let read = row.spec.version;
    change(&mut row);
    assert!(container::update(&mut tx, &row, read).await.unwrap());
    tx.commit().await.unwrap();
}

async fn code(two: &Two, path: &str) -> String {
    let last = two.last(path).await;
    assert_eq!(last.state, State::Failed);
    assert_eq!(two.reserved().await, (1, 0));
    last.failure.unwrap().code.to_string()
}

#[tokio::test]
async fn a_container_gets_nowhere_where_it_would_not_be_placed_by_then() {
    each_backend(|store| async move {
        let two = Two::new(&store).await;
        let (world, app) = (&two.world, &two.world.app);
        let path = two.create(json!({"name": "machine"})).await;
        let facts = json!({"kvm": true}).to_string();
        world.sql(&format!("UPDATE servers SET facts = '{facts}' WHERE id = '{}'", world.server)).await;
        let begin = async || _ = world.client.post(&format!("{path}/move"), json!({})).await.expect(200);
        let kvm = async |on: bool| _ = world.client.put(&format!("{path}/kvm"), json!({"kvm": on})).await.expect(200);
        // KVM is granted while it is copied, by the server that it is on; the other has none.
        begin().await;
        kvm(true).await;
        steps::arrived(app, &two.last(&path).await).await.unwrap();
        assert_eq!(code(&two, &path).await, "target_not_suited");
        kvm(false).await;
        // The use of the target ends, while it is copied and while it is held.
        for state in [State::Copying, State::Finishing] {
            begin().await;
            let at = two.to(&path, state).await;
            world.sql(&format!("UPDATE servers SET status = 'disabled' WHERE id = '{}'", two.other)).await;
            steps::arrived(app, &at).await.unwrap();
            assert_eq!(code(&two, &path).await, "target_not_suited", "{state:?}");
            world.sql(&format!("UPDATE servers SET status = 'enrolled' WHERE id = '{}'", two.other)).await;
        }
        // It is somebody else's by then, in a pool that its owner does not share.
        begin().await;
        let at = two.to(&path, State::Finishing).await;
        let stranger = crate::api::testing::Client::new_user(app, "stranger", false).await.1;
        world.sql(&format!("UPDATE servers SET owner_id = '{stranger}' WHERE id = '{}'", two.other)).await;
        steps::arrived(app, &at).await.unwrap();
        assert_eq!(code(&two, &path).await, "target_not_usable");
        assert_eq!(two.row(&path).await.server, world.server);
    })
    .await;
}

#[tokio::test]
async fn a_start_that_the_server_has_not_answered_is_not_lost_by_a_move() {
    let (_folder, store) = sqlite().await;
    let two = Two::new(&store).await;
    let (world, app) = (&two.world, &two.world.app);
    let path = two.create(json!({"name": "web"})).await;
    world.client.post(&format!("{path}/move"), json!({})).await.expect(200);
    // Asked for, and not reported: the status word is still the one before.
    world.node.set(Faults { deaf: true, ..Default::default() }).await;
    change(&two, &path, |row| {
        row.attributes.runs += 1;
        row.spec.desired = Desired::Running { run: row.attributes.runs };
        row.spec.version.generation += 1;
    })
    .await;
    assert_eq!(world.status(&path).await, "stopped");
    steps::arrived(app, &two.last(&path).await).await.unwrap();
    world.node.set(Faults::default()).await;
    assert_eq!(two.to(&path, State::Done).await.state, State::Done);
    world.until(&path, "running").await;
    // One whose first process ended by itself is not started.
    let path = two.create(json!({"name": "ended", "autostart": true})).await;
    world.until(&path, "running").await;
    let report = "REPLACE(report, '\"running\"', '\"stopped\"')";
    world.sql(&format!("UPDATE containers SET status = 'stopped', report = {report} WHERE id = '{}'", id(&path))).await;
    world.client.post(&format!("{path}/move"), json!({})).await.expect(200);
    assert_eq!(two.to(&path, State::Stopping).await.desired, Some(Desired::Stopped { force: false }));
}

#[tokio::test]
async fn what_is_refused_because_of_what_tenants_wrote_fails_the_move_and_is_not_tried_for_ever() {
    each_backend(|store| async move {
        let two = Two::new(&store).await;
        let (world, app) = (&two.world, &two.world.app);
        let path = two.running().await;
        let small = two.row(&path).await.spec.env;
        for state in [State::Syncing, State::Finishing] {
            world.client.post(&format!("{path}/move"), json!({})).await.expect(200);
            let at = two.to(&path, state).await;
            // More than fits a message to a node, as the shares of a project could make it.
            change(&two, &path, |row| {
                let big = (0..70).map(|number| {
                    let name = format!("BIG_{number}").as_str().try_into().unwrap();
                    (name, "x".repeat(32_000).as_str().try_into().unwrap())
                });
                row.spec.env = big.collect::<std::collections::BTreeMap<_, _>>().try_into().unwrap();
            })
            .await;
            steps::arrived(app, &at).await.unwrap();
            assert_eq!(code(&two, &path).await, "refused", "{state:?}");
            let row = two.row(&path).await;
            assert!(matches!(row.spec.desired, Desired::Running { .. }) && !row.attributes.held, "{state:?}");
            let small = small.clone();
            change(&two, &path, |row| row.spec.env = small).await;
            world.until(&path, "running").await;
        }
    })
    .await;
}

/// That many transfers of the container that are kept, each to another container on that server.
async fn copies(two: &Two, path: &str, server: ServerId, count: usize) {
    let store = &two.world.app.store;
    for _ in 0..count {
        let copy = link_testing::container(store, server, 1, Vec::new()).await.id;
        let sent = Transfer {
            id: TransferId::generate(),
            container: copy,
            target: server,
            source_container: id(path),
            source: two.world.server,
            snapshot: None,
            base: None,
        };
        let mut tx = store.begin().await.unwrap();
        transfer::insert(&mut tx, &sent, 1).await.unwrap();
        transfer::keep(&mut tx, sent.id, 0, 1).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn copies_on_its_own_server_do_not_keep_a_container_and_too_many_elsewhere_are_named() {
    let (_folder, store) = sqlite().await;
    let two = Two::new(&store).await;
    let (client, path) = (&two.world.client, two.create(json!({"name": "web"})).await);
    // Somewhere that no node deletes them as unknown.
    let quiet = link_testing::server(&store, "quiet").await;
    copies(&two, &path, two.world.server, MAX_KEPT + 1).await;
    client.post(&format!("{path}/move"), json!({})).await.expect(200);
    steps::fail(&two.world.app, &two.last(&path).await, Cause::new("test", "no")).await.unwrap();
    let there = json!({"target_server_id": two.other.to_string()});
    copies(&two, &path, quiet, MAX_KEPT - 1).await;
    client.post(&format!("{path}/copy"), there.clone()).await.expect(200);
    // Whatever becomes of that copy, it has the last place; on its own server there is room for more.
    let open =
        format!("UPDATE transfers SET state = 'kept' WHERE source_container_id = '{}' AND purpose = 'copy'", id(&path));
    two.world.sql(&open).await;
    for asked in ["move", "copy"] {
        let refused = client.post(&format!("{path}/{asked}"), there.clone()).await.expect(409);
        assert!(refused.json["message"].as_str().unwrap().contains("delete a copy"), "{}", refused.json);
    }
    client.post(&format!("{path}/copy"), json!({"name": "here"})).await.expect(200);
}

#[tokio::test]
async fn folders_that_a_moved_container_shares_appear_beside_it() {
    each_backend(|store| async move {
        let two = Two::new(&store).await;
        let world = &two.world;
        let path = two.create(json!({"name": "source"})).await;
        let there = json!({"name": "there", "server_id": two.other.to_string(), "autostart": true});
        let neighbour = world.create(there).await;
        let body = json!({"path": "/data", "target_project_id": world.project, "mode": "readonly", "alias": "data"});
        world.client.post(&format!("{path}/storage/shares"), body).await.expect(201);
        assert!(two.row(&neighbour).await.spec.shares.is_empty());
        world.client.post(&format!("{path}/move"), json!({})).await.expect(200);
        two.to(&path, State::Done).await;
        let mounted = two.row(&neighbour).await.spec.shares;
        assert_eq!(mounted.iter().map(|share| share.source).collect::<Vec<_>>(), [id(&path)]);
        two.until(&neighbour, |row| row.report.as_ref().is_some_and(|report| report.version == row.spec.version)).await;
    })
    .await;
}
