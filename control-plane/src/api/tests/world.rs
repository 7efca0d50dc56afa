//! An account with a project, a server with a simulated node, and an image: what container tests need.

use crate::{
    api::testing::{Answer, Client},
    app::{App, testing},
    nodes::simulated::SimulatedNode,
    store::{
        Store,
        image::tests::{image, put_image},
    },
};
use hoody_protocol::id::{ContainerId, ServerId, UserId};
use serde_json::{Value, json};
use std::time::Duration;

/// The world.
pub(super) struct World {
    pub(super) app: App,
    pub(super) client: Client,
    pub(super) user: UserId,
    pub(super) server: ServerId,
    pub(super) project: String,
    pub(super) node: SimulatedNode,
}

impl World {
    /// One server with 4 cores, 4 GiB of memory and 40 GiB of disk.
    pub(super) async fn new(store: &Store) -> Self {
        let mut config = testing::config();
        config.desired_state_deadline = Duration::from_secs(20);
        config.operation_deadline = Duration::from_secs(20);
        Self::with_config(store, config).await
    }

    pub(super) async fn with_config(store: &Store, config: crate::config::Config) -> Self {
        let app = testing::with_config(store, config).await;
        let (client, user) = Client::new_user(&app, "ann", false).await;
        let made = client.post("/api/v1/projects", json!({"alias": "Shop"})).await.expect(201);
        let project = made.data()["id"].as_str().unwrap().to_owned();
        let server = add_server(store, "one", user).await;
        put_image(store, &image("debian/12", b"debian")).await;
        let node = SimulatedNode::start(store, &app.nodes, server);
        Self { app, client, user, server, project, node }
    }

    /// The path of the project's containers.
    pub(super) fn containers(&self) -> String {
        format!("/api/v1/projects/{}/containers", self.project)
    }

    pub(super) async fn try_create(&self, body: Value) -> Answer {
        self.client.post(&self.containers(), body).await
    }

    /// Creates a container and gives its path.
    pub(super) async fn create(&self, body: Value) -> String {
        let made = self.try_create(body).await.expect(200);
        format!("/api/v1/containers/{}", made.data()["id"].as_str().unwrap())
    }

    /// Creates a container and starts it.
    pub(super) async fn running(&self) -> String {
        let path = self.create(json!({"name": "web", "autostart": true})).await;
        assert_eq!(self.status(&path).await, "running");
        path
    }

    pub(super) async fn status(&self, path: &str) -> String {
        self.client.get(path).await.expect(200).data()["status"].as_str().unwrap().to_owned()
    }

    /// Containers and memory (MiB) reserved on the server.
    pub(super) async fn reserved(&self) -> (i64, i64) {
        let sql = "SELECT containers_used, memory_bytes_used FROM servers WHERE id = $1";
        let (containers, memory): (i64, i64) =
            sqlx::query_as(sql).bind(self.server.to_string()).fetch_one(self.app.store.reader()).await.unwrap();
        (containers, memory >> 20)
    }

    pub(super) async fn sql(&self, sql: &str) {
        execute(&self.app.store, sql).await;
    }

    pub(super) async fn offline(&self) {
        self.node.set(crate::nodes::simulated::Faults { deaf: true, ..Default::default() }).await;
        self.sql("UPDATE servers SET online = 0").await;
    }

    pub(super) async fn online(&self) {
        self.sql("UPDATE servers SET online = 1").await;
        self.node.set(Default::default()).await;
    }

    /// Waits until the container's status is this one.
    pub(super) async fn until(&self, path: &str, status: &str) {
        let id: ContainerId = path.rsplit('/').next().unwrap().parse().unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        let store = &self.app.store;
        let found = self.app.nodes.changes.wait_for(id, deadline, || async {
            let row = crate::store::container::get(store, id).await?;
            let now = row.map_or("gone", |row| row.status.as_str());
            Ok::<_, crate::store::StoreError>((now == status).then_some(()))
        });
        assert!(found.await.unwrap().is_some(), "{path} did not become {status}");
    }
}

pub(super) async fn execute(store: &Store, sql: &str) {
    let mut tx = store.begin().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
}

pub(super) async fn add_server(store: &Store, name: &str, owner: UserId) -> ServerId {
    let server = ServerId::generate();
    let (memory, disk) = (4i64 << 30, 40i64 << 30);
    let sql = format!(
        "INSERT INTO servers (id, name, owner_id, status, online, architecture, cpu_millis, memory_bytes, disk_bytes, \
         created_at, updated_at) VALUES ('{server}', '{name}', '{owner}', 'enrolled', 1, 'amd64', 4000, {memory}, \
         {disk}, 1, 1)"
    );
    execute(store, &sql).await;
    server
}
