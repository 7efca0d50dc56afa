//! `/containers/{id}/move`. What the link of the target does is done by the tests: they take the
//! steps when they say so.

use super::world::{World, add_server};
use crate::{
    api::testing::Client,
    nodes::simulated::SimulatedNode,
    service::container::moving::steps,
    store::{
        Store, StoreError, container, dispatch,
        moves::{self, Move, State},
        testing::{each_backend, sqlite},
    },
};
use hoody_protocol::{
    container::{Cause, Desired},
    id::{ContainerId, ServerId},
};
use serde_json::json;
use std::time::Duration;

/// Two servers of one owner.
pub(super) struct Two {
    pub(super) world: World,
    pub(super) other: ServerId,
    pub(super) node: SimulatedNode,
}

impl Two {
    pub(super) async fn new(store: &Store) -> Self {
        let world = World::new(store).await;
        let other = add_server(store, "two", world.user).await;
        let node = SimulatedNode::start(store, &world.app.nodes, other);
        Self { world, other, node }
    }

    /// A container of the first server.
    pub(super) async fn create(&self, mut body: serde_json::Value) -> String {
        body["server_id"] = json!(self.world.server.to_string());
        self.world.create(body).await
    }

    pub(super) async fn running(&self) -> String {
        let path = self.create(json!({"name": "web", "autostart": true})).await;
        assert_eq!(self.world.status(&path).await, "running");
        path
    }

    pub(super) async fn last(&self, path: &str) -> Move {
        moves::last(self.world.app.store.reader(), id(path)).await.unwrap().unwrap()
    }

    pub(super) async fn row(&self, path: &str) -> container::ContainerRow {
        container::get(&self.world.app.store, id(path)).await.unwrap().unwrap()
    }

    pub(super) async fn until(&self, path: &str, what: impl Fn(&container::ContainerRow) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        let found = self.world.app.nodes.changes.wait_for(id(path), deadline, || async {
            let row = container::get(&self.world.app.store, id(path)).await?;
            Ok::<_, StoreError>(row.filter(|row| what(row)).map(|_| ()))
        });
        assert!(found.await.unwrap().is_some(), "{:?}", self.row(path).await);
    }

    /// Takes steps until the move is in that state.
    pub(super) async fn to(&self, path: &str, state: State) -> Move {
        let app = &self.world.app;
        loop {
            let now = self.last(path).await;
            if now.state == state || now.ended_at.is_some() {
                return now;
            }
            match now.state {
                State::Stopping => {
                    self.until(path, |row| steps::is_stopped(&now, row)).await;
                    steps::stopped(app, &now).await.unwrap();
                }
                State::Starting => {
                    self.until(path, |row| steps::is_started(Some(row))).await;
                    steps::started(app, &now).await.unwrap();
                }
                _ => steps::arrived(app, &now).await.unwrap(),
            }
        }
    }

    /// Containers that are reserved on the two servers.
    pub(super) async fn reserved(&self) -> (i64, i64) {
        let sql = "SELECT containers_used FROM servers WHERE id = $1";
        let of = |server: ServerId| {
            sqlx::query_scalar(sql).bind(server.to_string()).fetch_one(self.world.app.store.reader())
        };
        (of(self.world.server).await.unwrap(), of(self.other).await.unwrap())
    }
}

pub(super) fn id(path: &str) -> ContainerId {
    path.rsplit('/').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_container_moves_with_what_it_is_and_one_server_alone_may_run_it() {
    each_backend(|store| async move {
        let two = Two::new(&store).await;
        let (world, source) = (&two.world, two.world.server);
        let path = two.running().await;
        let rule = json!({"action": "drop", "protocol": "tcp", "port": 8000});
        world.client.post(&format!("{path}/firewall/ingress"), rule).await.expect(200);
        let before = two.row(&path).await;
        let begun = world.client.post(&format!("{path}/move"), json!({})).await.expect(200);
        assert_eq!(begun.data()["state"], "copying");
        assert_eq!(begun.data()["target_server_id"], two.other.to_string());
        assert_eq!(two.reserved().await, (1, 1));
        world.client.post(&format!("{path}/move"), json!({})).await.expect(409);

        // While it is copied it is as free as ever.
        let env = format!("{path}/env/A");
        world.client.put(&env, json!({"value": "b"})).await.expect(200);
        two.to(&path, State::Finishing).await;
        let held = two.row(&path).await;
        assert_eq!((held.server, held.spec.desired), (source, Desired::Stopped { force: false }));
        world.client.put(&env, json!({"value": "c"})).await.expect(409);
        for what in ["start", "restart"] {
            world.client.post(&format!("{path}/{what}"), json!({})).await.expect(409);
        }
        world.client.post(&format!("{path}/snapshots"), json!({})).await.expect(409);
        world.client.post(&format!("{path}/copy"), json!({"name": "other"})).await.expect(409);

        two.to(&path, State::Starting).await;
        let app = &world.app;
        assert_eq!(dispatch::items(&app.store, source, id(&path)).await.unwrap(), [], "its only other copy");
        two.to(&path, State::Done).await;
        let after = two.row(&path).await;
        assert_eq!((after.server, after.spec.desired), (two.other, before.spec.desired));
        assert_eq!((after.spec.firewall.clone(), after.name.clone()), (before.spec.firewall.clone(), before.name));
        assert!(after.spec.moved && after.spec.transfer.is_some() && !after.attributes.held);
        assert_eq!(world.status(&path).await, "running");
        let last = world.client.get(&format!("{path}/move")).await.expect(200);
        assert_eq!(last.data()["state"], "done");
        assert!(last.data()["pause_ms"].is_i64(), "{}", last.data());
        let log = world.client.get(&format!("{path}/status-logs")).await.expect(200).json.to_string();
        for word in ["started", "switched", "succeeded"] {
            assert!(log.contains(&format!("\"move\":\"{word}\"")), "{log}");
        }
        // The source says that nothing is left; what was reserved there is given back.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        let given_back = app.nodes.changes.wait_for(id(&path), deadline, || async {
            Ok::<_, StoreError>((two.reserved().await == (0, 1)).then_some(()))
        });
        assert!(given_back.await.unwrap().is_some(), "{:?}", two.reserved().await);
        world.client.put(&env, json!({"value": "c"})).await.expect(200);
        // And back again.
        world.client.post(&format!("{path}/move"), json!({"target_server_id": source.to_string()})).await.expect(200);
        two.to(&path, State::Done).await;
        assert_eq!(two.row(&path).await.server, source);
    })
    .await;
}

#[tokio::test]
async fn a_move_that_fails_anywhere_leaves_the_container_where_it_was() {
    each_backend(|store| async move {
        let two = Two::new(&store).await;
        let (world, app) = (&two.world, &two.world.app);
        let path = two.running().await;
        for state in [State::Copying, State::Syncing, State::Stopping, State::Finishing] {
            world.client.post(&format!("{path}/move"), json!({})).await.expect(200);
            let at = two.to(&path, state).await;
            assert_eq!(at.state, state);
            steps::fail(app, &at, Cause::new("test", "it was not to be")).await.unwrap();
            // Whatever comes late finds that it is over.
            steps::arrived(app, &at).await.unwrap();
            steps::stopped(app, &at).await.unwrap();
            let ended = two.last(&path).await;
            assert_eq!(ended.state, State::Failed, "{state:?}");
            two.until(&path, |row| {
                let alive = matches!(row.spec.desired, Desired::Running { .. });
                alive && row.report.as_ref().is_some_and(|r| r.version == row.spec.version && r.converged)
            })
            .await;
            assert_eq!((two.row(&path).await.server, two.reserved().await), (world.server, (1, 0)), "{state:?}");
            assert_eq!(world.status(&path).await, "running", "{state:?}");
            let seen = world.client.get(&format!("{path}/move")).await.expect(200);
            assert_eq!(seen.data()["cause"]["code"], "test");
        }
        // Once it is the target's, nothing takes it back.
        world.client.post(&format!("{path}/move"), json!({})).await.expect(200);
        let late = two.to(&path, State::Finishing).await;
        steps::arrived(app, &late).await.unwrap();
        steps::fail(app, &late, Cause::new("test", "too late")).await.unwrap();
        assert_eq!(two.to(&path, State::Done).await.state, State::Done);
        assert_eq!(two.row(&path).await.server, two.other);
    })
    .await;
}

#[tokio::test]
async fn a_container_that_changes_while_it_is_held_does_not_move() {
    let (_folder, store) = sqlite().await;
    let two = Two::new(&store).await;
    let (world, app) = (&two.world, &two.world.app);
    let path = two.running().await;
    world.client.post(&format!("{path}/move"), json!({})).await.expect(200);
    let finishing = two.to(&path, State::Finishing).await;
    // As what is shared in its project would: past the requests that are refused.
    let mut tx = app.store.begin().await.unwrap();
    let mut row = container::lock(&mut tx, id(&path)).await.unwrap().unwrap();
    let read = row.spec.version;
    row.spec.version.generation += 1;
    assert!(container::update(&mut tx, &row, read).await.unwrap());
    tx.commit().await.unwrap();
    steps::arrived(app, &finishing).await.unwrap();
    let ended = two.last(&path).await;
    assert_eq!((ended.state, &*ended.failure.unwrap().code), (State::Failed, "changed"));
    world.until(&path, "running").await;
    assert_eq!(two.row(&path).await.server, world.server);
    // Deleted while it is held: nothing of it is anywhere.
    world.client.post(&format!("{path}/move"), json!({})).await.expect(200);
    two.to(&path, State::Finishing).await;
    world.client.delete(&path).await;
    crate::tasks::moves::once(app).await.unwrap();
    assert_eq!((two.last(&path).await.state, two.reserved().await), (State::Failed, (0, 0)));
}

#[tokio::test]
async fn what_cannot_move_is_refused_with_the_reason() {
    let (_folder, store) = sqlite().await;
    let two = Two::new(&store).await;
    let world = &two.world;
    let path = two.running().await;
    let to = |server: String| json!({"target_server_id": server});
    let asked = format!("{path}/move");
    world.client.get(&asked).await.expect(404);
    world.client.post(&asked, to("x".to_owned())).await.expect(400);
    world.client.post(&asked, to(world.server.to_string())).await.expect(409);
    world.client.post(&asked, to(ServerId::generate().to_string())).await.expect(404);
    let (stranger, strangers) = Client::new_user(&world.app, "stranger", false).await;
    stranger.post(&asked, json!({})).await.expect(404);
    let foreign = add_server(&store, "foreign", strangers).await;
    world.client.post(&asked, to(foreign.to_string())).await.expect(404);
    world.sql(&format!("UPDATE servers SET memory_bytes = 0 WHERE id = '{}'", two.other)).await;
    let full = world.client.post(&asked, json!({})).await.expect(422);
    assert!(full.json.to_string().contains("memory"), "{}", full.json);
    world.sql(&format!("UPDATE servers SET memory_bytes = 4294967296 WHERE id = '{}'", two.other)).await;
    world.client.post(&format!("{path}/pause"), json!({})).await.expect(200);
    assert!(world.client.post(&asked, json!({})).await.expect(409).json.to_string().contains("paused"));
    world.client.post(&format!("{path}/resume"), json!({})).await.expect(200);
    world.sql(&format!("UPDATE servers SET online = 0 WHERE id = '{}'", world.server)).await;
    world.client.post(&asked, json!({})).await.expect(503);
    assert_eq!(two.reserved().await, (1, 0));
}
