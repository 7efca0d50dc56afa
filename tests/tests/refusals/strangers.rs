//! Every operation that the control plane documents, asked by nobody, by another tenant, and for what does
//! not exist.

use super::{NOBODY, Problems, World};
use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

/// A body that the operation would accept from the owner.
fn body(operation: &str) -> Option<Value> {
    Some(match operation {
        "containers.create" => json!({ "image": "busybox", "name": "intruder" }),
        "projects.update" | "projects.patch" => json!({ "alias": "taken-over" }),
        "containers.update" | "containers.patch" => json!({ "name": "taken-over" }),
        "env.bulkSet" => json!({ "INTRUDER": "1" }),
        "projects.addPermission" => json!({ "user_id": NOBODY, "permission_level": "delete" }),
        "projects.updatePermission" | "projects.patchPermission" => json!({ "permission_level": "delete" }),
        "env.set" => json!({ "value": "intruder" }),
        "containers.setContainerKvm" => json!({ "kvm": true }),
        "containers.exec" => json!({ "argv": ["true"] }),
        "containers.updateSnapshotAlias" | "containers.patchSnapshotAlias" => json!({ "alias": "taken-over" }),
        "storageShares.create" => {
            json!({ "source_path": "/srv", "mode": "readonly", "target_container_id": NOBODY })
        }
        "storageShares.toggleIncomingMount" => json!({ "mount": true }),
        "storageShares.update" => json!({ "enabled": false }),
        operation if operation.starts_with("firewall.add") => {
            json!({ "action": "drop", "protocol": "tcp", "port": 1, "description": "" })
        }
        operation if operation.starts_with("firewall.toggle") => json!({ "port": 4444, "state": "disabled" }),
        operation if operation.starts_with("firewall.remove") => json!({ "all": true }),
        _ => return None,
    })
}

struct Operation {
    id: String,
    method: Method,
    path: String,
    /// The document says that nobody needs to sign in for it; the table of rights is held to that elsewhere.
    open: bool,
}

async fn documented(world: &World) -> Result<Vec<Operation>> {
    let document = world.api.get("/openapi.json").await?.body;
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().context("no paths")? {
        for (method, operation) in item.as_object().context("no methods")? {
            let Some(id) = operation["operationId"].as_str() else { continue };
            let method = method.to_uppercase().parse()?;
            let open = operation["security"].as_array().is_some_and(|ways| ways.contains(&json!({})));
            operations.push(Operation { id: id.to_owned(), method, path: path.clone(), open });
        }
    }
    ensure!(operations.len() > 50, "only {} operations are documented", operations.len());
    let closed = operations.iter().filter(|operation| !operation.open).count();
    ensure!(closed > 100, "only {closed} operations need somebody to sign in");
    Ok(operations)
}

pub(super) async fn see_nothing(world: &World) -> Result<()> {
    let mut problems = Problems::default();
    let nobody = world.api.with_token(None);
    for operation in documented(world).await? {
        let Operation { id, method, path, open } = &operation;
        let server = &world.cluster.servers[0].id;
        let owned = match path.split('/').nth(3) {
            Some("projects") => Some(world.project.as_str()),
            Some("containers") => Some(world.container.as_str()),
            Some("servers" | "rentals") => Some(server.as_str()),
            _ => None,
        };
        let filled = |id: &str| {
            let path = path.replacen("{id}", id, 1).replace("{permissionId}", NOBODY);
            let path = path.replace("{terminalId}", NOBODY).replace("{execution}", NOBODY);
            let path = path.replace("{shareId}", NOBODY).replace("{name}", "kept");
            path.replace("{operation}", "start").replace("{key}", "KEPT")
        };
        let send = async |api: &hoody_tests::api::Api, path: &str| api.send(method.clone(), path, body(id)).await;
        let what = format!("{method} {path}");
        if path.starts_with("/api/") && !open {
            let answer = send(&nobody, &filled(owned.unwrap_or(NOBODY))).await?;
            problems.note(&what, answer.expect_refusal(401, "UNAUTHORIZED").map(drop));
        }
        if path.starts_with("/api/v1/admin/") {
            let answer = send(&world.api, &filled(server)).await?;
            problems.note(&what, answer.expect_refusal(403, "FORBIDDEN").map(drop));
        }
        let Some(owned) = owned.filter(|_| path.contains("{id}")) else { continue };
        // What is somebody else's does not exist, nor does what nobody has; a wrong form is another matter.
        for id in [owned, NOBODY] {
            let answer = send(&world.stranger, &filled(id)).await?;
            problems.note(&what, answer.expect_refusal(404, "NOT_FOUND").map(drop));
        }
        problems.note(&what, send(&world.api, &filled("no-id")).await?.expect_detail(400, "id"));
    }
    // Nor can it be named in what is one's own.
    let own = world.stranger.project("strangers-own").await?;
    let on_theirs = json!({ "image": "busybox", "server_id": world.cluster.servers[0].id });
    let path = format!("/api/v1/projects/{own}/containers");
    world.stranger.post(&path, on_theirs).await?.expect_refusal(404, "NOT_FOUND")?;
    world.stranger.post(&path, json!({ "image": "busybox" })).await?.expect_refusal(422, "UNPROCESSABLE")?;
    world.stranger.delete(&format!("/api/v1/projects/{own}"), None).await?.data()?;
    problems.none()
}
