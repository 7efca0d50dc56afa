//! `/containers`: the life of a container, and what is refused.

use super::world::{World, add_server};
use crate::{
    api::testing::Client,
    nodes::simulated::Faults,
    store::{
        image::tests::{image, put_image},
        testing::{each_backend, sqlite},
    },
};
use hoody_protocol::{container::Cause, id::ContainerId};
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn a_container_lives() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let body = json!({
            "alias": "web-server", "image": "debian:12", "container_image": "debian:12", "runtime": "lxc", "color": "#0af", "comment": "shop",
            "specs": {"cpu_cores": 0.5, "memory_mb": 256, "storage_mb": 2048, "network_mbit": 50}, "environment_vars": {"PORT": 8080},
            "hoody_kit": true, "ssh_public_key": null,
        });
        let made = world.try_create(body).await.expect(200);
        let data = made.data().clone();
        assert_eq!((&data["name"], &data["status"]), (&json!("web-server"), &json!("stopped")));
        assert_eq!((&data["container_image"], &data["hoody_kit"]), (&json!("debian/12"), &json!(true)));
        assert_eq!(data["specs"], json!({"cpu_cores": 0.5, "memory_mb": 256, "storage_mb": 2048, "network_mbit": 50}));
        assert_eq!(data["environment_vars"], json!({"PORT": "8080"}));
        assert_eq!((&data["project_alias"], &data["server_name"]), (&json!("Shop"), &json!("one")));
        assert_eq!(world.reserved().await, (1, 256));
        let path = format!("/api/v1/containers/{}", data["id"].as_str().unwrap());

        for (operation, status) in [
            ("start", "running"),
            ("start", "running"),
            ("pause", "paused"),
            ("resume", "running"),
            ("restart", "running"),
            ("stop", "stopped"),
            ("stop", "stopped"),
            ("start", "running"),
            ("force-stop", "stopped"),
        ] {
            let done = world.client.post(&format!("{path}/{operation}/"), json!({})).await.expect(200);
            assert_eq!((&done.data()["status"], &done.data()["operation"]), (&json!(status), &json!(operation)));
            assert_eq!(done.data()["error"], false);
        }
        assert_eq!(*world.node.operations.lock().unwrap(), 1);

        let update = json!({"name": "shop_1", "autostart": true, "comment": null, "color": "fff"});
        let changed = world.client.patch(&path, update).await.expect(200);
        assert_eq!((&changed.data()["name"], &changed.data()["comment"]), (&json!("shop_1"), &json!(null)));
        assert_eq!(changed.data()["color"], "fff");
        let id: ContainerId = path.rsplit('/').next().unwrap().parse().unwrap();
        let row = crate::store::container::get(&store, id).await.unwrap().unwrap();
        assert_eq!((row.spec.hostname.as_str(), row.spec.autostart), ("shop-1", true));

        let logs = world.client.get(&format!("{path}/status-logs?limit=2&sort_order=asc")).await.expect(200);
        assert_eq!(logs.json["pagination"]["total"], 8, "{}", logs.json);
        let log = |index: usize| logs.data()["logs"][index].clone();
        assert_eq!((&log(0)["from_status"], &log(0)["to_status"]), (&json!(null), &json!("creating")));
        assert_eq!((&log(0)["triggered_by"], &log(1)["triggered_by"]), (&json!("scheduler"), &json!("node")));
        assert!(log(1)["duration_ms"].is_u64());
        world.client.get(&format!("{path}/status-logs?sort_by=id")).await.expect_invalid(&["sort_by"]);

        world.client.delete(&path).await.expect(200);
        world.client.get(&path).await.expect(404);
        world.client.delete(&path).await.expect(404);
        assert_eq!(world.reserved().await, (0, 0));
    })
    .await;
}

#[tokio::test]
async fn bad_input_is_refused_with_details_and_changes_nothing() {
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    let long = "x".repeat(101);
    let cases: Vec<(Value, &[&str])> = vec![
        (json!({"name": "../../etc/passwd"}), &["name"]),
        (json!({"name": "ab"}), &["name"]),
        (json!({"alias": long}), &["alias"]),
        (json!({"name": "web", "alias": "other"}), &["alias"]),
        (json!({"name": 5}), &["name"]),
        (json!({"image": "../../etc/passwd"}), &["image"]),
        (json!({"container_image": ""}), &["container_image"]),
        (json!({"container_image": "debian/12", "image": "debian/11"}), &["image"]),
        // Also where both would lead to the same image: who writes both writes the same.
        (json!({"container_image": "debian/12", "image": "debian:12"}), &["image"]),
        (json!({"container_image": "", "image": "debian/12"}), &["container_image", "image"]),
        (json!({"server_id": "one"}), &["server_id"]),
        (json!({"runtime": "vm"}), &["runtime"]),
        (json!({"color": "red"}), &["color"]),
        (json!({"comment": "x".repeat(16001)}), &["comment"]),
        (json!({"realm_ids": ["xyz"]}), &["realm_ids"]),
        (json!({"specs": {"cpu_cores": 0}}), &["specs.cpu_cores"]),
        (
            json!({"specs": {"cpu_cores": -1, "memory_mb": 1, "storage_mb": u64::MAX}}),
            &["specs.cpu_cores", "specs.memory_mb", "specs.storage_mb"],
        ),
        (json!({"specs": {"memory_mb": -5}}), &["specs.memory_mb"]),
        (
            json!({"environment_vars": {"HOODY_X": "1", "1A": "x", "OK": null}}),
            &["environment_vars.1A", "environment_vars.HOODY_X", "environment_vars.OK"],
        ),
    ];
    for (body, fields) in cases {
        world.try_create(body).await.expect_invalid(fields);
    }
    world.try_create(json!({"ramdisk_scope": "planet"})).await.expect_invalid(&["ramdisk_scope"]);
    let unknown = world.try_create(json!({"image": "plan9/4"})).await.expect(422);
    assert!(unknown.json["error"]["details"]["container_image"].is_string());
    world.try_create(json!({"server_id": "0123456789abcdef01234567"})).await.expect(404);
    let huge = world.try_create(json!({"specs": {"memory_mb": 8192}})).await.expect(422);
    assert_eq!(huge.json["error"]["details"]["one"], "8192 MiB of memory are needed, 4096 MiB are free");
    world.client.post("/api/v1/projects/0123456789abcdef01234567/containers", json!({})).await.expect(404);
    world.client.post("/api/v1/projects/nonsense/containers", json!({})).await.expect_invalid(&["id"]);
    assert_eq!(world.reserved().await, (0, 0));
    assert_eq!(world.client.get("/api/v1/containers").await.expect(200).json["pagination"]["total"], 0);

    let path = world.create(json!({"name": "web"})).await;
    world.try_create(json!({"name": "web"})).await.expect(409);
    let other = world.create(json!({"name": "other"})).await;
    world.client.put(&other, json!({"name": "web"})).await.expect(409);
    world.client.put(&path, json!({"name": "a b", "color": "x", "ramdisk_scope": "y"})).await.expect_invalid(&[
        "color",
        "name",
        "ramdisk_scope",
    ]);
    assert_eq!(world.reserved().await, (2, 1024));
    for path in ["/api/v1/containers/nonsense", "/api/v1/containers/0123456789ABCDEF01234567"] {
        world.client.get(path).await.expect_invalid(&["id"]);
    }
    world.client.post(&format!("{path}/explode"), json!({})).await.expect_invalid(&["operation"]);
    for operation in ["pause", "resume", "restart"] {
        world.client.post(&format!("{path}/{operation}"), json!({})).await.expect(409);
    }
    for query in
        ["page=0", "limit=101", "sort_by=owner", "sort_order=up", "runtime=vm", "include_deleting=maybe", "realm_id=x"]
    {
        world.client.get(&format!("/api/v1/containers?{query}")).await.expect(400);
    }
}

#[tokio::test]
async fn what_is_anothers_does_not_exist() {
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    let path = world.create(json!({"name": "web"})).await;
    let (other, _) = Client::new_user(&world.app, "bob", false).await;
    other.get(&path).await.expect(404);
    other.put(&path, json!({"name": "mine"})).await.expect(404);
    other.delete(&path).await.expect(404);
    for call in ["start", "stop", "restart"] {
        other.post(&format!("{path}/{call}"), json!({})).await.expect(404);
    }
    for call in ["stats", "status-logs", "env", "firewall/rules"] {
        other.get(&format!("{path}/{call}")).await.expect(404);
    }
    other.put(&format!("{path}/env/A"), json!({"value": "b"})).await.expect(404);
    other.post(&format!("{path}/firewall/ingress"), json!({"action": "drop", "protocol": "tcp"})).await.expect(404);
    other.get(&world.containers()).await.expect(404);
    other.post(&world.containers(), json!({})).await.expect(404);
    assert_eq!(other.get("/api/v1/containers").await.expect(200).json["pagination"]["total"], 0);
    let mut anonymous = other.clone();
    anonymous.token = None;
    anonymous.get(&path).await.expect(401);
    // Nobody rents this one: it is not a candidate, by name neither.
    let made = other.post("/api/v1/projects", json!({"alias": "B"})).await.expect(201);
    let containers = format!("/api/v1/projects/{}/containers", made.data()["id"].as_str().unwrap());
    other.post(&containers, json!({})).await.expect(422);
    other.post(&containers, json!({"server_id": world.server.to_string()})).await.expect(404);
    let (admin, _) = Client::new_user(&world.app, "root", true).await;
    admin.get(&path).await.expect(200);
    assert_eq!(world.status(&path).await, "stopped");
}

#[tokio::test]
async fn limits_hold_when_many_are_created_at_once() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        world.sql("UPDATE projects SET max_containers = 3").await;
        let creations = (0..8).map(|_| world.try_create(json!({"specs": {"memory_mb": 64}})));
        let answers = futures::future::join_all(creations).await;
        let created = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!((created, answers.iter().filter(|answer| answer.status == 409).count()), (3, 5));
        // Four fit by processor; the quota is out of the way.
        world.sql("UPDATE projects SET max_containers = 100").await;
        world.sql("UPDATE servers SET cpu_millis = 4000, cpu_millis_used = 0").await;
        let creations = (0..8).map(|_| world.try_create(json!({"specs": {"memory_mb": 64, "cpu_cores": 1}})));
        let answers = futures::future::join_all(creations).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 4);
        assert_eq!(answers.iter().filter(|answer| answer.status == 422).count(), 4);
        assert_eq!(world.reserved().await, (7, 7 * 64));
    })
    .await;
}

#[tokio::test]
async fn containers_of_a_project_are_spread_over_healthy_servers() {
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    let two = add_server(&store, "two", world.user).await;
    let _node = crate::nodes::simulated::SimulatedNode::start(&store, &world.app.nodes, two);
    let mut servers = Vec::new();
    for _ in 0..2 {
        let made = world.try_create(json!({})).await.expect(200);
        servers.push(made.data()["server_name"].as_str().unwrap().to_owned());
    }
    servers.sort();
    assert_eq!(servers, ["one", "two"]);
    world.sql("UPDATE servers SET online = 0 WHERE name = 'one'").await;
    world.sql("UPDATE servers SET status = 'disabled' WHERE name = 'two'").await;
    let refused = world.try_create(json!({})).await.expect(422);
    assert_eq!(refused.json["error"]["details"], json!({"one": "it is offline", "two": "it is out of service"}));
    put_image(&store, &crate::store::image::NewImage { architecture: "arm64".into(), ..image("alpine/3", b"a") }).await;
    world.sql("UPDATE servers SET online = 1, status = 'enrolled'").await;
    world.try_create(json!({"image": "alpine"})).await.expect(422);
}

#[tokio::test]
async fn an_offline_server_does_it_when_it_is_back() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let path = world.create(json!({"name": "web"})).await;
        world.offline().await;
        let begun = std::time::Instant::now();
        let started = world.client.post(&format!("{path}/start"), json!({})).await.expect(200);
        assert_eq!(started.data()["status"], "stopped");
        assert!(begun.elapsed() < Duration::from_secs(10), "an offline server is not waited for");
        let body = json!({"name": "later", "server_id": world.server.to_string()});
        assert_eq!(world.try_create(body).await.expect(200).data()["status"], "creating");
        world.sql("UPDATE containers SET status = 'running' WHERE name = 'web'").await;
        let restarted = world.client.post(&format!("{path}/restart"), json!({})).await.expect(503);
        assert!(restarted.json["message"].as_str().unwrap().contains("offline"));
        world.sql("UPDATE containers SET status = 'stopped' WHERE name = 'web'").await;
        world.online().await;
        world.until(&path, "running").await;
        assert_eq!(*world.node.operations.lock().unwrap(), 0, "what was answered 503 never runs");
        world.offline().await;
        world.client.delete(&path).await.expect(200);
        world.client.delete(&path).await.expect(200);
        assert_eq!(world.status(&path).await, "deleting");
        world.client.post(&format!("{path}/start"), json!({})).await.expect(409);
        world.client.put(&path, json!({"name": "other"})).await.expect(409);
        let total = |answer: crate::api::testing::Answer| answer.json["pagination"]["total"].clone();
        assert_eq!(total(world.client.get("/api/v1/containers").await), 1);
        assert_eq!(total(world.client.get("/api/v1/containers?include_deleting=true").await), 2);
        // The name is free at once.
        world.try_create(json!({"name": "web", "server_id": world.server.to_string()})).await.expect(200);
        world.online().await;
        world.until(&path, "gone").await;
    })
    .await;
}

#[tokio::test]
async fn a_restart_answers_the_nodes_cause_or_expires() {
    each_backend(|store| async move {
        let mut config = crate::app::testing::config();
        config.operation_deadline = Duration::from_secs(2);
        let world = World::with_config(&store, config).await;
        let path = world.running().await;
        let restart = format!("{path}/restart");
        world
            .node
            .set(Faults { fails: Some(Cause::new("runtime_failed", "it did not start")), ..Faults::default() })
            .await;
        let failed = world.client.post(&restart, json!({})).await.expect(502);
        assert_eq!(failed.json["error"]["details"]["cause"], "runtime_failed");
        assert!(failed.json["message"].as_str().unwrap().contains("it did not start"));
        let carried_out = *world.node.operations.lock().unwrap();
        world.node.set(Faults { deaf: true, ..Faults::default() }).await;
        world.client.post(&restart, json!({})).await.expect(504);
        world.node.set(Faults::default()).await;
        world.client.post(&restart, json!({})).await.expect(200);
        assert_eq!(*world.node.operations.lock().unwrap(), carried_out + 1, "what was answered 504 never runs");
    })
    .await;
}

#[tokio::test]
async fn a_failing_node_is_answered_with_its_cause_and_deleting_works() {
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    world.node.set(Faults { fails: Some(Cause::new("image_unavailable", "no such layer")), ..Faults::default() }).await;
    let made = world.try_create(json!({"name": "web"})).await.expect(200);
    assert_eq!(made.data()["status"], "failed");
    assert_eq!(made.data()["warnings"][0]["type"], "image_unavailable");
    let path = format!("/api/v1/containers/{}", made.data()["id"].as_str().unwrap());
    let started = world.client.post(&format!("{path}/start"), json!({})).await.expect(200);
    assert_eq!((&started.data()["status"], &started.data()["error"]), (&json!("failed"), &json!(true)));
    let stats = world.client.get(&format!("{path}/stats")).await.expect(200);
    assert_eq!((&stats.data()["status_code"], &stats.data()["cpu"]), (&json!(112), &json!(null)));
    world.sql("UPDATE servers SET status = 'revoked', online = 0").await;
    world.client.delete(&path).await.expect(200);
    world.client.get(&path).await.expect(404);
    assert_eq!(world.reserved().await, (0, 0));
}

#[tokio::test]
async fn realms_scope_lists_and_containers() {
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    let realm = "0123456789abcdef01234567";
    world.create(json!({"name": "in-realm", "realm_ids": [realm]})).await;
    world.create(json!({"name": "outside", "comment": format!("\"{realm}\""), "runtime": "docker"})).await;
    let names = |answer: crate::api::testing::Answer| -> Vec<String> {
        let containers = answer.expect(200).data()["containers"].as_array().unwrap().clone();
        containers.iter().map(|container| container["name"].as_str().unwrap().to_owned()).collect()
    };
    let list = |query: &str| format!("{}?{query}", world.containers());
    assert_eq!(names(world.client.get(&format!("/api/v1/containers?realm_id={realm}")).await), ["in-realm"]);
    assert_eq!(names(world.client.get(&list("runtime=docker")).await), ["outside"]);
    assert_eq!(names(world.client.get(&list("sort_by=name&sort_order=asc")).await), ["in-realm", "outside"]);
    assert_eq!(names(world.client.get(&list("sort_by=name&sort_order=asc&limit=1&page=2")).await), ["outside"]);
}
