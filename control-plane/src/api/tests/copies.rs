//! `/containers/{id}/copy`.

use super::world::World;
use crate::{
    api::testing::Client,
    app::testing,
    service::network,
    store::{
        container::{self, ContainerRow},
        testing::{each_backend, sqlite},
    },
};
use hoody_protocol::egress::EgressSpec;
use serde_json::{Value, json};
use std::time::Duration;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
const OTHER_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKbBQmyWqv5vYcTlPRIsGDcRgRkPVBXvSfRdHRgTSVqF";

async fn row(world: &World, data: &Value) -> ContainerRow {
    let id = data["id"].as_str().unwrap().parse().unwrap();
    container::get(&world.app.store, id).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_copy_has_what_its_origin_has_and_an_identity_of_its_own() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let made = json!({"name": "web", "autostart": true, "ssh_public_key": KEY, "environment_vars": {"A": "b"},
            "specs": {"storage_mb": 2048}, "comment": "the shop"});
        let path = world.create(made).await;
        let from = path.rsplit('/').next().unwrap();
        let rule = json!({"action": "drop", "protocol": "tcp", "port": "80,443", "description": "no web"});
        world.client.post(&format!("{path}/firewall/ingress"), rule).await.expect(200);
        world.client.post(&format!("{path}/snapshots"), json!({"name": "clean"})).await.expect(200);
        let before = world.reserved().await;

        let copied = world.client.post(&format!("{path}/copy"), json!({"alias": "copy-of-web"})).await.expect(200);
        let data = copied.data();
        assert_eq!((&data["name"], &data["source_container_id"]), (&json!("copy-of-web"), &json!(from)));
        assert_eq!((&data["status"], &data["autostart"]), (&json!("running"), &json!(true)));
        assert_eq!((&data["copy_firewall_rules"], &data["copy_network_rules"]), (&json!(true), &json!(true)));
        assert_eq!((&data["ssh_public_key"], &data["kvm"]), (&Value::Null, &json!(false)));
        assert_eq!((&data["environment_vars"], &data["specs"]["storage_mb"]), (&json!({"A": "b"}), &json!(2048)));
        assert_eq!(world.reserved().await.0, before.0 + 1, "it reserves its own room");
        let (source, copy) = (row(&world, &json!({"id": from})).await, row(&world, data).await);
        assert_ne!(source.spec.id, copy.spec.id);
        let (old, new) = (&source.spec.firewall.ingress[0], &copy.spec.firewall.ingress[0]);
        assert_eq!((&old.matches, old.action), (&new.matches, new.action));
        assert_ne!(old.id, new.id);
        assert_eq!(copy.attributes.rule_texts[&new.id].description, "no web");
        let origin = copy.spec.origin.unwrap();
        assert_eq!((origin.container.to_string(), origin.snapshot), (from.to_owned(), None));

        let input = json!({"source_snapshot": "clean", "copy_firewall_rules": false, "ssh_public_key": OTHER_KEY});
        let second = world.client.post(&format!("{path}/copy"), input).await.expect(200);
        let copy = row(&world, second.data()).await;
        assert!(copy.spec.firewall.ingress.is_empty() && copy.attributes.rule_texts.is_empty());
        assert!(copy.spec.origin.unwrap().snapshot.is_some());
        assert_eq!(second.data()["ssh_public_key"], OTHER_KEY);
        let name = second.data()["name"].as_str().unwrap();
        assert!(name.starts_with("web-"), "{name}");
        assert_eq!(world.client.get(&path).await.expect(200).data()["last_used_snapshot"], "clean");
        let logs = format!("/api/v1/containers/{}/status-logs", second.data()["id"].as_str().unwrap());
        let logs = world.client.get(&logs).await.expect(200).json.to_string();
        assert!(logs.contains("copying") && logs.contains("clean"), "{logs}");
    })
    .await;
}

#[tokio::test]
async fn a_proxy_goes_along_with_its_credentials_or_not_at_all() {
    each_backend(|store| async move {
        let mut config = testing::config();
        config.desired_state_deadline = Duration::from_secs(20);
        config.egress_allowed_networks = vec!["10.9.0.0/16".parse().unwrap()];
        let world = World::with_config(&store, config).await;
        let path = world.running().await;
        let proxy = json!({"type": "socks5", "proxy": "socks5://ann:correct-horse@10.9.1.1:1080"});
        world.client.put(&format!("{path}/network"), proxy).await.expect(200);
        world.client.post(&format!("{path}/network/start"), json!({})).await.expect(200);
        let with = world.client.post(&format!("{path}/copy"), json!({"copy_network_rules": true})).await.expect(200);
        let copy = row(&world, with.data()).await;
        let mut spec = copy.spec.clone();
        network::complete(&world.app.keys, &mut spec, &copy.egress_credentials).unwrap();
        let Some(EgressSpec::Proxy(upstream)) = spec.egress else { panic!("{:?}", spec.egress) };
        assert_eq!(upstream.credentials.unwrap().password.to_string(), "correct-horse");
        // Sealed for the copy alone.
        let mut stolen = row(&world, &json!({"id": path.rsplit('/').next().unwrap()})).await.spec;
        assert!(network::complete(&world.app.keys, &mut stolen, &copy.egress_credentials).is_err());

        let input = json!({"copy_network_rules": false});
        let without = world.client.post(&format!("{path}/copy"), input).await.expect(200);
        let copy = row(&world, without.data()).await;
        assert_eq!((copy.spec.egress, copy.attributes.network, copy.egress_credentials.as_str()), (None, None, ""));
    })
    .await;
}

#[tokio::test]
async fn who_may_copy_what_where() {
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    let path = world.create(json!({"name": "web"})).await;
    let copy = format!("{path}/copy");
    let bad = json!({"target_project_id": "x", "target_server_id": "y", "name": "a", "ssh_public_key": "z", "kvm": true,
        "dev_kvm": false});
    let fields = ["dev_kvm", "name", "ssh_public_key", "target_project_id", "target_server_id"];
    world.client.post(&copy, bad).await.expect_invalid(&fields);
    world.client.post(&copy, json!({"source_snapshot": "none"})).await.expect(404);
    world.client.post(&copy, json!({"target_project_id": "0123456789abcdef01234567"})).await.expect(404);
    world.client.post(&copy, json!({"target_server_id": "0123456789abcdef01234567"})).await.expect(404);
    world.client.post(&copy, json!({"name": "web"})).await.expect(409);
    world.client.post(&copy, json!({"kvm": true})).await.expect(422);
    // A stranger neither sees the container nor copies into a project that is not theirs.
    let (stranger, _) = Client::new_user(&world.app, "stranger", false).await;
    stranger.post(&copy, json!({})).await.expect(404);
    let project = stranger.post("/api/v1/projects", json!({"alias": "Mine"})).await.expect(201);
    let into = json!({"target_project_id": project.data()["id"]});
    world.client.post(&copy, into).await.expect(404);
    // Another project of one's own.
    let second = world.client.post("/api/v1/projects", json!({"alias": "Second"})).await.expect(201);
    let into = json!({"project_id": second.data()["id"], "target_server_id": world.server.to_string()});
    let made = world.client.post(&copy, into).await.expect(200);
    assert_eq!(made.data()["project_id"], second.data()["id"]);
    // As many as a project may have.
    world.client.patch(&format!("/api/v1/projects/{}", world.project), json!({"max_containers": 1})).await.expect(200);
    world.client.post(&copy, json!({})).await.expect(409);
}

#[tokio::test]
async fn a_snapshot_stays_until_what_is_made_from_it_is_made() {
    let (_folder, store) = sqlite().await;
    let mut config = testing::config();
    config.desired_state_deadline = Duration::from_millis(50);
    config.operation_deadline = Duration::from_secs(20);
    let world = World::with_config(&store, config).await;
    let path = world.create(json!({"name": "web"})).await;
    world.until(&path, "stopped").await;
    let snapshot = format!("{path}/snapshots/clean");
    world.client.post(&format!("{path}/snapshots"), json!({"name": "clean"})).await.expect(200);
    world.offline().await;
    let copied = world.client.post(&format!("{path}/copy"), json!({"source_snapshot": "clean"})).await.expect(200);
    assert_eq!(copied.data()["status"], "copying");
    let copy = format!("/api/v1/containers/{}", copied.data()["id"].as_str().unwrap());
    world.client.delete(&snapshot).await.expect(409);
    world.online().await;
    world.until(&copy, "stopped").await;
    world.client.delete(&snapshot).await.expect(200);
}
