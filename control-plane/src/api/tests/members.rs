//! Projects of others: every operation on a project or container, tried with every level of permission.

use super::world::World;
use crate::{
    api::{self, testing::Client},
    store::testing::{each_backend, sqlite},
};
use hoody_protocol::{
    stats::{ContainerStats, NodeStats, StatsBatch},
    time::now_ms,
};
use http::Method;
use serde_json::{Value, json};

/// Who may: those with at least this level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Needs {
    Read,
    Edit,
    Delete,
    Owner,
}
use Needs::{Delete, Edit, Owner, Read};

/// Every operation below `/projects/{id}` and `/containers/{id}` that is built. Those that delete stand last.
const LEVELS: &[(&str, Needs)] = &[
    ("projects.get", Read),
    ("projects.getStats", Read),
    ("projects.listPermissions", Read),
    ("projects.update", Edit),
    ("projects.patch", Edit),
    ("projects.addPermission", Owner),
    ("projects.updatePermission", Owner),
    ("projects.patchPermission", Owner),
    ("containers.listByProject", Read),
    ("containers.create", Edit),
    ("containers.get", Read),
    ("containers.getStats", Read),
    ("containers.getStatusLogs", Read),
    ("containers.getLogs", Read),
    ("containers.exec", Edit),
    ("containers.openTerminal", Edit),
    ("containers.listTerminals", Edit),
    ("containers.endTerminal", Edit),
    ("containers.update", Edit),
    ("containers.patch", Edit),
    ("containers.manage", Edit),
    ("containers.getNetworkConfig", Read),
    ("containers.updateNetworkConfig", Edit),
    ("containers.patchNetworkConfig", Edit),
    ("containers.startNetwork", Edit),
    ("containers.stopNetwork", Edit),
    ("containers.removeNetworkConfig", Edit),
    ("containers.authorize", Edit),
    ("containers.setContainerKvm", Edit),
    ("containers.copy", Edit),
    ("containers.export", Edit),
    ("containers.sync", Edit),
    ("containers.move", Edit),
    ("containers.getMove", Read),
    ("containers.listSnapshots", Read),
    ("containers.createSnapshot", Edit),
    ("containers.restoreSnapshot", Edit),
    ("containers.patchRestoreSnapshot", Edit),
    ("containers.updateSnapshotAlias", Edit),
    ("containers.patchSnapshotAlias", Edit),
    ("containers.deleteSnapshot", Edit),
    ("env.list", Read),
    ("env.bulkSet", Edit),
    ("env.set", Edit),
    ("env.delete", Edit),
    ("firewall.list", Read),
    ("firewall.addIngressRule", Edit),
    ("firewall.addEgressRule", Edit),
    ("firewall.toggleIngressRule", Edit),
    ("firewall.toggleEgressRule", Edit),
    ("firewall.removeIngressRule", Edit),
    ("firewall.removeEgressRule", Edit),
    ("firewall.reset", Edit),
    ("storageShares.list", Read),
    ("storageShares.get", Read),
    ("storageShares.create", Edit),
    ("storageShares.update", Edit),
    ("storageShares.listIncoming", Read),
    ("storageShares.toggleIncomingMount", Edit),
    ("containers.delete", Delete),
    ("projects.removePermission", Owner),
    ("projects.delete", Delete),
];

fn body_of(operation: &str, user: &str) -> Value {
    match operation {
        "projects.addPermission" => json!({"user_id": user, "level": "read"}),
        "projects.updatePermission" | "projects.patchPermission" => json!({"level": "read"}),
        "storageShares.create" => {
            json!({"source_path": "/srv", "mode": "ro", "target_container_id": "0123456789abcdef01234567"})
        }
        "storageShares.toggleIncomingMount" => json!({"mount": true}),
        "containers.exec" => json!({"argv": ["true"]}),
        "containers.setContainerKvm" => json!({"kvm": false}),
        "containers.updateSnapshotAlias" | "containers.patchSnapshotAlias" => json!({"alias": null}),
        "env.set" => json!({"value": "x"}),
        "containers.updateNetworkConfig" | "containers.patchNetworkConfig" => json!({"type": "block"}),
        "env.bulkSet" => json!({"A": "b"}),
        operation if operation.starts_with("firewall.toggle") => json!({"port": "80", "state": "disabled"}),
        operation if operation.starts_with("firewall.") => json!({"action": "allow", "protocol": "tcp", "port": "80"}),
        _ => json!({}),
    }
}

#[tokio::test]
async fn every_operation_on_a_project_asks_for_its_level() {
    let document = api::openapi();
    let operations = api::operations(&document);
    for (id, _, path) in &operations {
        let inside = ["/api/v1/projects/{id}", "/api/v1/containers/{id}"].iter().any(|base| path.starts_with(base));
        let listed = LEVELS.iter().any(|(listed, _)| listed == id);
        assert_eq!(inside, listed, "{id} {path}: say in LEVELS which level it needs");
    }
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    let container = world.create(json!({"name": "web"})).await;
    // From here on nothing waits for a node.
    world.offline().await;
    let project = format!("/api/v1/projects/{}", world.project);
    let (_, target) = Client::new_user(&world.app, "target", false).await;
    let given = json!({"user_id": target.to_string(), "permission_level": "read"});
    let targets = world.client.post(&format!("{project}/permissions"), given).await.expect(201);
    let (stranger, extra) = Client::new_user(&world.app, "stranger", false).await;

    let members = [("reader", Some(Read)), ("editor", Some(Edit)), ("deleter", Some(Delete))];
    let mut callers = vec![("stranger", None, stranger)];
    for (name, level) in members {
        let (client, user) = Client::new_user(&world.app, name, false).await;
        let word = format!("{:?}", level.unwrap()).to_lowercase();
        let given = json!({"user_id": user.to_string(), "permission": word});
        world.client.post(&format!("{project}/permissions"), given).await.expect(201);
        callers.push((name, level, client));
    }
    let mut wrong = Vec::new();
    for (id, needs) in LEVELS {
        let (_, method, path) = operations.iter().find(|(found, ..)| found == id).expect("the list is complete");
        let path = path
            .replace("/api/v1/projects/{id}", &project)
            .replace("/api/v1/containers/{id}", &container)
            .replace("{permissionId}", targets.data()["id"].as_str().unwrap())
            .replace("{operation}", "stop")
            .replace("{key}", "A")
            .replace("{shareId}", "0123456789abcdef01234567")
            .replace("{name}", "none")
            .replace("{terminalId}", "0123456789abcdef01234567");
        for (name, level, client) in &callers {
            let body = (*method != Method::GET).then(|| body_of(id, &extra.to_string()));
            let answer = client.with(method.clone(), &path, &[], body).await;
            let status = answer.status.as_u16();
            let message = answer.json["message"].as_str().unwrap_or_default().to_owned();
            let right = match level {
                None => status == 404,
                Some(level) if level < needs => status == 403,
                Some(_) => {
                    status != 403 && !message.contains("project not found") && !message.contains("container not")
                }
            };
            if !right {
                wrong.push(format!("{id} by {name}: {status} {message}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn permissions_are_given_changed_listed_and_taken() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let path = format!("/api/v1/projects/{}", world.project);
        let permissions = format!("{path}/permissions");
        let (bob, user) = Client::new_user(&world.app, "bob", false).await;
        bob.get(&path).await.expect(404);
        let both = ["permission_level", "user_id"];
        world.client.post(&permissions, json!({"level": "all"})).await.expect_invalid(&both);
        let nobody = json!({"user_id": "0123456789abcdef01234567", "level": "read"});
        world.client.post(&permissions, nobody).await.expect(404);
        let myself = json!({"user_id": world.user.to_string(), "level": "read"});
        world.client.post(&permissions, myself).await.expect(409);

        let given = json!({"user_id": user.to_string(), "level": "read"});
        let made = world.client.post(&permissions, given.clone()).await.expect(201);
        assert_eq!(made.data()["user"]["username"], "bob");
        assert_eq!(made.data()["permission_level"], "read");
        world.client.post(&permissions, given).await.expect(409);
        let listed = bob.get(&format!("{permissions}?sort_by=user_id&sort_order=asc")).await.expect(200);
        assert_eq!(listed.data()["permissions"], json!([made.data()]));
        let with = bob.get(&format!("{path}?include_permissions=true")).await.expect(200);
        assert_eq!(with.data()["permissions"], json!([made.data()]));
        // What is shared is listed beside what is one's own.
        let shared = bob.get("/api/v1/projects").await.expect(200);
        assert_eq!(shared.data()["projects"][0]["id"], world.project.as_str());
        let container = world.create(json!({"name": "web"})).await;
        assert_eq!(bob.get("/api/v1/containers").await.expect(200).json["pagination"]["total"], 1);
        bob.post(&format!("{container}/stop"), json!({})).await.expect(403);
        bob.post(&world.containers(), json!({"name": "mine"})).await.expect(403);

        let one = format!("{permissions}/{}", made.data()["id"].as_str().unwrap());
        world.client.patch(&one, json!({"permission": "edit"})).await.expect(200);
        // What an editor adds is the owner's.
        let added = bob.post(&world.containers(), json!({"name": "added"})).await.expect(200);
        let added = format!("/api/v1/containers/{}", added.data()["id"].as_str().unwrap());
        world.client.get(&added).await.expect(200);
        bob.delete(&added).await.expect(403);
        world.client.delete(&one).await.expect(200);
        bob.get(&container).await.expect(404);
        bob.get(&path).await.expect(404);
        assert_eq!(bob.get("/api/v1/containers").await.expect(200).json["pagination"]["total"], 0);
        world.client.delete(&one).await.expect(404);

        // Members leave by themselves, and a deleted project takes its permissions along.
        let given = json!({"user_id": user.to_string(), "level": "delete"});
        let again = world.client.post(&permissions, given.clone()).await.expect(201);
        bob.delete(&format!("{permissions}/{}", again.data()["id"].as_str().unwrap())).await.expect(200);
        bob.get(&path).await.expect(404);
        world.client.post(&permissions, given).await.expect(201);
        // Without the permission to delete containers a token does not delete them with their project.
        let only = json!({"permissions": {"projects": {"delete": true}}});
        let token = world.client.post("/api/v1/auth/tokens", only).await.expect(201);
        let token = world.client.with_token(token.data()["token"].as_str().unwrap());
        token.delete(&path).await.expect(403);
        let gone = bob.delete(&path).await.expect(200);
        assert_eq!(gone.data()["deleted"], json!({"aliases": 0, "containers": 2, "permissions": 1}));
        world.client.get(&path).await.expect(404);
    })
    .await;
}

#[tokio::test]
async fn stats_of_a_project_name_the_servers_that_did_not_answer() {
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    let path = world.running().await;
    let stats = format!("/api/v1/projects/{}/stats", world.project);
    let silent = world.client.get(&stats).await.expect(200);
    assert_eq!(silent.data()["summary"]["unanswered_servers"], json!(["one"]));
    assert_eq!(silent.data()["summary"]["container_count"], 1);
    assert_eq!(silent.data()["stats"][0]["cpu"], json!(null));
    let id = path.rsplit('/').next().unwrap().parse().unwrap();
    let used = ContainerStats {
        container: id,
        cpu_usage_ns: None,
        cpu_percent: None,
        memory_bytes: Some(1 << 20),
        memory_peak_bytes: None,
        swap_bytes: None,
        disk_bytes: None,
        ramdisk: None,
        processes: Some(1),
        network: None,
        rules: Default::default(),
    };
    let batch = StatsBatch { at: now_ms(), node: NodeStats::default(), containers: vec![used].try_into().unwrap() };
    world.app.nodes.measurements.record(world.server, batch, |_| true);
    let answered = world.client.get(&stats).await.expect(200);
    assert_eq!(answered.data()["summary"]["unanswered_servers"], json!([]));
    assert!(answered.data()["stats"][0]["memory"]["usage"].as_u64().unwrap() > 0);
    assert!(answered.data()["stats"][0]["measured_age_ms"].is_u64());
    world.offline().await;
    let offline = world.client.get(&stats).await.expect(200);
    assert_eq!(offline.data()["summary"]["unanswered_servers"], json!(["one"]));
}
