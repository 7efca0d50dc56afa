//! Containers of images that are pulled first.

use super::world::World;
use crate::{
    app::testing::config,
    service::image::registry::testing::{Answer, TestRegistry},
    store::{
        Store, container,
        testing::{each_backend, sqlite},
    },
    tasks,
};
use hoody_protocol::{id::ContainerId, image::Digest};
use serde_json::{Value, json};
use std::time::Duration;

struct Shop {
    world: World,
    registry: TestRegistry,
    pulling: tokio::task::JoinHandle<()>,
    _data: tempfile::TempDir,
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.pulling.abort();
    }
}

impl Shop {
    async fn new(store: &Store) -> Self {
        let registry = TestRegistry::start().await;
        let data = tempfile::tempdir().unwrap();
        let mut config = config();
        config.data_dir = data.path().to_owned();
        config.desired_state_deadline = Duration::from_secs(20);
        config.registries.allowed_networks = vec!["127.0.0.1/32".parse().unwrap()];
        config.registries.plain_http = vec![registry.address.to_string()];
        let world = World::with_config(store, config).await;
        let pulling = tokio::spawn(tasks::pulls::run(world.app.clone()));
        Self { world, registry, pulling, _data: data }
    }

    fn body(&self, rest: &str) -> Value {
        json!({"name": "web", "image": self.registry.reference(rest)})
    }

    async fn spec(&self, path: &str) -> hoody_protocol::container::ContainerSpec {
        let id: ContainerId = path.rsplit('/').next().unwrap().parse().unwrap();
        container::get(&self.world.app.store, id).await.unwrap().unwrap().spec
    }
}

/// Neither copies nor snapshots, and why.
async fn assert_not_made(shop: &Shop, path: &str, why: &str) {
    for (action, body) in [("copy", json!({"name": "copied"})), ("snapshots", json!({"name": "kept"}))] {
        let refused = shop.world.client.post(&format!("{path}/{action}"), body).await.expect(409);
        assert!(refused.json["message"].as_str().is_some_and(|message| message.contains(why)), "{}", refused.json);
    }
    let held = shop.world.client.get(&format!("{path}/snapshots")).await.expect(200);
    assert_eq!(held.data()["snapshots"], json!([]), "{}", held.json);
}

#[tokio::test]
async fn a_container_waits_for_its_image_and_then_is_like_any_other() {
    each_backend(|store| async move {
        let shop = Shop::new(&store).await;
        shop.registry.image("app/web", Some("v1"), "amd64", &[b"one", b"two"]);
        let made = shop.world.try_create(shop.body("app/web:v1")).await.expect(200);
        let reference = shop.registry.reference("app/web:v1");
        assert_eq!((&made.data()["status"], &made.data()["container_image"]), (&json!("creating"), &json!(reference)));
        assert_eq!(made.data()["image_pull"]["reference"], json!(reference));
        assert_eq!(made.data()["runtime"], "docker", "what registries hold are commands");
        let path = format!("/api/v1/containers/{}", made.data()["id"].as_str().unwrap());
        shop.world.until(&path, "stopped").await;
        let shown = shop.world.client.get(&path).await.expect(200);
        assert!(shown.data().get("image_pull").is_none());
        let spec = shop.spec(&path).await;
        assert_eq!(spec.version.generation, 2);
        let command: Vec<&str> = spec.image.config.command.iter().map(|word| word.as_str()).collect();
        assert_eq!((command, spec.image.config.workdir.as_str()), (vec!["/bin/serve"], "/srv"));
        assert_eq!(spec.image.layers[1].digest, Digest::of(b"two"));
        shop.world.client.post(&format!("{path}/start"), json!({})).await.expect(200);
        shop.world.until(&path, "running").await;

        // A system image runs its own init, as root, whatever command it names.
        let mut body = shop.body("app/web:v1");
        (body["name"], body["runtime"]) = (json!("system"), json!("lxc"));
        let path = shop.world.create(body).await;
        shop.world.until(&path, "stopped").await;
        let config = shop.spec(&path).await.image.config;
        assert!(config.command.is_empty() && config.user.is_empty() && config.workdir.is_empty());
        assert_eq!(config.env.len(), 1);
        let events = shop.world.client.get("/api/v1/events?limit=100").await.expect(200);
        assert!(events.json.to_string().contains("\"changed\":[\"image\"]"), "{}", events.json);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_pulled_fails_with_its_cause_and_is_tried_again_by_a_start() {
    let (_folder, store) = sqlite().await;
    let shop = Shop::new(&store).await;
    let path = shop.world.create(shop.body("app:none")).await;
    shop.world.until(&path, "failed").await;
    let shown = shop.world.client.get(&path).await.expect(200);
    assert_eq!(shown.data()["image_pull"]["state"], "failed");
    assert_eq!(shown.data()["warnings"][0]["type"], "image_not_found", "{}", shown.json);
    let logs = shop.world.client.get(&format!("{path}/status-logs?sort_order=desc")).await.expect(200);
    assert_eq!(logs.data()["logs"][0]["metadata"]["code"], "image_not_found", "{}", logs.json);

    // Its server does not know it: there is nothing to copy or to keep.
    assert_not_made(&shop, &path, "image could not be pulled").await;

    shop.registry.image("app", Some("none"), "amd64", &[b"late"]);
    shop.world.client.post(&format!("{path}/start"), json!({})).await.expect(200);
    shop.world.until(&path, "running").await;
}

#[tokio::test]
async fn a_container_whose_pull_hangs_is_deleted_at_once() {
    let (_folder, store) = sqlite().await;
    let shop = Shop::new(&store).await;
    shop.registry.put("app/manifests/slow", Answer::Silence);
    let path = shop.world.create(shop.body("app:slow")).await;
    assert_eq!(shop.world.status(&path).await, "creating");
    assert_not_made(&shop, &path, "wait until it is made").await;
    assert_eq!(shop.world.reserved().await.0, 1);
    shop.world.client.delete(&path).await.expect(200);
    shop.world.client.get(&path).await.expect(404);
    assert_eq!(shop.world.reserved().await.0, 0);
}

/// Waits for a condition.
async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let fulfilled = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), fulfilled).await.is_ok(), "{what}");
}

#[tokio::test]
async fn nothing_is_left_of_the_pull_of_a_container_that_is_deleted() {
    let (_folder, store) = sqlite().await;
    let shop = Shop::new(&store).await;
    let layer: Vec<u8> = vec![7; 100_000];
    shop.registry.image("app", Some("v1"), "amd64", &[b"done", &layer]);
    let blob = format!("app/blobs/{}", Digest::of(&layer));
    shop.registry.put(&blob, Answer::Trickle(1000, Duration::from_secs(1), layer));
    let path = shop.world.create(shop.body("app:v1")).await;
    let files = || {
        let found = std::fs::read_dir(shop._data.path().join("blobs")).into_iter().flatten();
        let files = found.map(|entry| entry.unwrap()).map(|entry| {
            let bytes = entry.metadata().map_or(0, |found| found.len());
            (entry.file_name().into_string().unwrap(), bytes)
        });
        files.filter(|(name, _)| name != ".lock").collect::<Vec<_>>()
    };
    until("one layer is there, and the other on its way", async || {
        let found = files();
        let has = |prefix: &str| found.iter().any(|(name, bytes)| name.starts_with(prefix) && *bytes > 0);
        has(".pulling-") && has(".pulled-")
    })
    .await;
    shop.world.client.delete(&path).await.expect(200);
    until("nothing is left", async || files().is_empty()).await;
}

#[tokio::test]
async fn a_pull_whose_end_cannot_be_written_down_is_tried_again() {
    let (_folder, store) = sqlite().await;
    let shop = Shop::new(&store).await;
    let refused = "CREATE TRIGGER refused BEFORE UPDATE ON image_pulls WHEN NEW.state = 'failed' \
                   BEGIN SELECT RAISE(ABORT, 'staged'); END";
    shop.world.sql(refused).await;
    let path = shop.world.create(shop.body("app:late")).await;
    // Neither the pull nor whoever gives it up can say that it failed.
    until("it is tried again", async || shop.registry.asked("app/manifests/late").len() > 1).await;
    assert_eq!(shop.world.status(&path).await, "creating");
    shop.world.sql("DROP TRIGGER refused").await;
    shop.world.until(&path, "failed").await;
}

#[tokio::test]
async fn references_and_credentials_are_checked_and_sealed() {
    let (_folder, store) = sqlite().await;
    let shop = Shop::new(&store).await;
    shop.registry.put("app/manifests/v1", Answer::Silence);
    let mut body = shop.body("app:v1");
    body["registry_credentials"] = json!({"username": "ann", "password": "secret-word"});
    let made = shop.world.try_create(body.clone()).await.expect(200);
    assert!(!made.json.to_string().contains("secret-word"));
    let sealed: String =
        sqlx::query_scalar("SELECT credentials FROM image_pulls").fetch_one(store.reader()).await.unwrap();
    assert!(!sealed.is_empty() && !sealed.contains("secret-word"), "{sealed}");

    body["registry_credentials"] = json!({"username": "a:b", "password": "secret-word"});
    shop.world.try_create(body.clone()).await.expect_invalid(&["registry_credentials"]);
    body["image"] = json!("debian/12");
    shop.world.try_create(body).await.expect_invalid(&["registry_credentials"]);
    for image in ["a.example/Upper:v1", "a.example/b@sha256:00", "a.example/b:"] {
        shop.world.try_create(json!({"image": image, "name": "web2"})).await.expect_invalid(&["image"]);
    }
    let refused = shop.world.try_create(json!({"image": "nginx:1.27", "name": "web2"})).await.expect(422);
    assert!(refused.json["message"].as_str().unwrap().contains("docker.io/library"), "{}", refused.json);
}
