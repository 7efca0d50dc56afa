//! `/servers/{id}/drain`: what is moved away, what is tried again, and when nothing is left. What the link of a target does is
//! done by the tests.

use super::moves::{Two, id};
use crate::{
    api::testing::Client,
    nodes::simulated::Faults,
    service::{container::moving::steps, server::drain},
    store::{
        StoreError, drain as drains,
        moves::{Move, State},
        testing::{each_backend, sqlite},
    },
};
use hoody_protocol::container::Cause;
use serde_json::json;
use std::time::Duration;

async fn steps_to_the_end(two: &Two, path: &str, starting: &Move) {
    two.until(path, |row| steps::is_started(Some(row))).await;
    steps::started(&two.world.app, starting).await.unwrap();
}

/// Waits until the server says that nothing is left on it.
async fn drained(two: &Two, drain: &str, last: &str) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let world = &two.world;
    let found = world.app.nodes.changes.wait_for(id(last), deadline, || async {
        let read = world.client.get(drain).await.expect(200);
        Ok::<_, StoreError>((read.data()["state"] == "drained").then_some(()))
    });
    assert!(found.await.unwrap().is_some(), "{}", world.client.get(drain).await.json);
    assert_eq!(world.client.get(drain).await.expect(200).data()["held"], 0);
}

/// Begins the next moves of the one server that is being emptied.
async fn next(two: &Two) {
    let drains = drains::going_on(&two.world.app.store).await.unwrap();
    drain::begin_next(&two.world.app, &drains[0]).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_emptied_takes_nothing_and_says_what_stays() {
    each_backend(|store| async move {
        let two = Two::new(&store).await;
        let (world, app) = (&two.world, &two.world.app);
        let (one, stays) = (two.running().await, two.create(json!({"name": "stays", "ramdisk": true})).await);
        world.client.post(&format!("{one}/snapshots"), json!({"name": "kept"})).await.expect(200);
        let drain = format!("/api/v1/servers/{}/drain", world.server);
        let (stranger, _) = Client::new_user(app, "stranger", false).await;
        stranger.post(&drain, json!({})).await.expect(404);
        let any = format!("/api/v1/admin/servers/{}/drain", world.server);
        world.client.post(&any, json!({})).await.expect(403);
        assert_eq!(world.client.get(&drain).await.expect(200).data()["state"], "never");
        world.client.delete(&drain).await.expect(409);
        let (admin, _) = Client::new_user(app, "root", true).await;
        let begun = admin.post(&any, json!({})).await.expect(200);
        assert_eq!((&begun.data()["state"], &begun.data()["remaining"]), (&json!("draining"), &json!(2)));
        let here = json!({"name": "new", "server_id": world.server.to_string()});
        let refused = world.try_create(here.clone()).await.expect(422);
        assert!(refused.json.to_string().contains("emptied"), "{}", refused.json);

        let drains = drains::going_on(&app.store).await.unwrap();
        drain::begin_next(app, &drains[0]).await.unwrap();
        drain::begin_next(app, &drains[0]).await.unwrap();
        two.to(&one, State::Done).await;
        let read = admin.get(&any).await.expect(200);
        let (moved, failed) = (&read.data()["moved"], &read.data()["failed"]);
        assert_eq!((moved, failed, &read.data()["remaining"]), (&json!(1), &json!(1), &json!(1)), "{}", read.data());
        assert!(read.data()["containers"].to_string().contains("RAM disk"), "{}", read.data());
        // What could not be moved is tried again when that is asked for.
        world.client.put(&stays, json!({"ramdisk": false})).await.expect(200);
        drain::begin_next(app, &drains[0]).await.unwrap();
        assert_eq!(two.last(&stays).await.state, State::Failed);
        world.client.post(&drain, json!({})).await.expect(200);
        let drains = drains::going_on(&app.store).await.unwrap();
        drain::begin_next(app, &drains[0]).await.unwrap();
        // It is the other's, and has not been seen there: what this server holds is the only copy that ran.
        let starting = two.to(&stays, State::Starting).await;
        let read = world.client.get(&drain).await.expect(200);
        assert_eq!(read.data()["remaining"], 0);
        assert_eq!((&read.data()["state"], &read.data()["held"]), (&json!("draining"), &json!(1)), "{}", read.data());
        steps_to_the_end(&two, &stays, &starting).await;
        drained(&two, &drain, &stays).await;
        assert_eq!(world.client.delete(&drain).await.expect(200).data()["state"], "stopped");
        assert!(drains::going_on(&app.store).await.unwrap().is_empty());
        world.try_create(here).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn what_passes_by_itself_is_tried_again_and_costs_no_container_its_turn() {
    let (_folder, store) = sqlite().await;
    let two = Two::new(&store).await;
    let world = &two.world;
    let (one, copied) = (two.running().await, two.create(json!({"name": "copied"})).await);
    world.client.post(&format!("/api/v1/servers/{}/drain", world.server), json!({})).await.expect(200);
    let read = async |what: &str| {
        let read = world.client.get(&format!("/api/v1/servers/{}/drain", world.server)).await.expect(200);
        read.data()[what].as_array().unwrap().clone()
    };
    let moves = async || read("containers").await.len();
    // What is waited for, of each container.
    let waits = async |why: &str| {
        let waiting = read("waiting").await;
        waiting.iter().filter(|one| one["reason"].as_str().unwrap().contains(why)).count()
    };
    // The only other server is away, then its own is.
    world.sql(&format!("UPDATE servers SET online = 0 WHERE id = '{}'", two.other)).await;
    next(&two).await;
    assert_eq!(moves().await, 0, "an outage was taken for a refusal");
    assert_eq!(waits("offline").await, 2, "{:?}", read("waiting").await);
    world
        .sql(&format!("UPDATE servers SET online = 1 - online WHERE id IN ('{}', '{}')", two.other, world.server))
        .await;
    next(&two).await;
    assert_eq!(moves().await, 0, "an outage was taken for a refusal");
    world.sql("UPDATE servers SET online = 1").await;
    world.sql(&format!("UPDATE containers SET status = 'copying' WHERE id = '{}'", id(&copied))).await;
    next(&two).await;
    assert_eq!(moves().await, 1);
    assert_eq!((waits("").await, read("waiting").await[0]["container_id"] == json!(id(&copied))), (1, true));
    assert_eq!(two.last(&one).await.state, State::Copying);
    world.sql(&format!("UPDATE containers SET status = 'stopped' WHERE id = '{}'", id(&copied))).await;
    next(&two).await;
    assert_eq!(two.last(&copied).await.state, State::Copying);
    assert_eq!(waits("").await, 0);
}

#[tokio::test]
async fn containers_that_do_not_start_elsewhere_hold_up_no_other() {
    each_backend(|store| async move {
        let two = Two::new(&store).await;
        let world = &two.world;
        let mut stuck = Vec::new();
        for name in ["one", "two", "three"] {
            stuck.push(two.create(json!({"name": name})).await);
        }
        let drain = format!("/api/v1/servers/{}/drain", world.server);
        world.client.post(&drain, json!({})).await.expect(200);
        // The target never says that it has them as they should be.
        two.node.set(Faults { silent: true, ..Default::default() }).await;
        next(&two).await;
        for path in &stuck[..2] {
            assert_eq!(two.to(path, State::Starting).await.state, State::Starting);
        }
        next(&two).await;
        assert_eq!(two.last(&stuck[2]).await.state, State::Copying);
        assert_eq!(two.to(&stuck[2], State::Starting).await.state, State::Starting);

        // The target never comes back, and they are deleted: the source lets go of what it holds, and gives the room back.
        let app = &world.app;
        world.sql(&format!("UPDATE servers SET status = 'revoked' WHERE id = '{}'", two.other)).await;
        for path in &stuck {
            world.client.delete(path).await;
        }
        crate::tasks::moves::once(app).await.unwrap();
        assert_eq!(two.last(&stuck[0]).await.state, State::Done);
        drained(&two, &drain, &stuck[0]).await;
        assert_eq!(two.reserved().await.0, 0);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_even_be_read_is_named_and_holds_up_no_other() {
    each_backend(|store| async move {
        let two = Two::new(&store).await;
        let world = &two.world;
        let (broken, fine) = (two.create(json!({"name": "broken"})).await, two.create(json!({"name": "fine"})).await);
        // The broken one's turn comes first.
        world
            .sql(&format!("UPDATE containers SET attributes = 'x', created_at = 1 WHERE id = '{}'", id(&broken)))
            .await;
        let drain = format!("/api/v1/servers/{}/drain", world.server);
        world.client.post(&drain, json!({})).await.expect(200);
        next(&two).await;
        assert_eq!(two.last(&fine).await.state, State::Copying);
        let read = world.client.get(&drain).await.expect(200);
        let waiting = &read.data()["waiting"];
        assert_eq!(waiting[0]["container_id"], json!(id(&broken)), "{waiting}");
        assert!(waiting[0]["reason"].as_str().unwrap().contains("stored"), "{waiting}");
    })
    .await;
}

#[tokio::test]
async fn a_server_that_only_a_move_needs_says_so_when_it_is_deleted() {
    each_backend(|store| async move {
        let two = Two::new(&store).await;
        let (world, app) = (&two.world, &two.world.app);
        let path = two.create(json!({"name": "web"})).await;
        world.client.post(&format!("{path}/move"), json!({})).await.expect(200);
        let (admin, _) = Client::new_user(app, "root", true).await;
        for (server, why) in [(two.other, "moved"), (world.server, "has containers")] {
            let refused = admin.delete(&format!("/api/v1/admin/servers/{server}")).await.expect(409);
            assert!(refused.json["message"].as_str().unwrap().contains(why), "{}", refused.json);
        }
        steps::fail(app, &two.last(&path).await, Cause::new("test", "no")).await.unwrap();
        admin.delete(&format!("/api/v1/admin/servers/{}", two.other)).await.expect(200);
    })
    .await;
}
