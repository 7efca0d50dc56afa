//! Three servers: placement, capacity, what tenants and operators see of servers, and a server that is
//! away for a while.

use anyhow::{Context, Result};
use hoody_tests::{
    api::Api,
    cluster::{Cluster, Plan, Server, TENANT},
    wait,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

const SERVERS: usize = 3;
/// An id that nothing has.
const NOBODY: &str = "0123456789abcdef01234567";
/// The control plane's reports arrive within this.
const REPORT_DEADLINE: Duration = Duration::from_secs(20);

/// Small enough for many on one machine.
fn small(name: &str) -> Value {
    json!({ "name": name, "specs": { "cpu_cores": 0.1, "memory_mb": 32, "storage_mb": 64 } })
}

#[tokio::test(flavor = "multi_thread")]
async fn three_servers() -> Result<()> {
    let mut cluster = Cluster::start(Plan { servers: SERVERS, ..Plan::default() }).await?;
    let outcome = async {
        what_tenants_see(&cluster).await.context("what tenants see")?;
        placement_and_capacity(&cluster).await.context("placement and capacity")?;
        what_operators_do(&cluster).await.context("what operators do")?;
        operations_are_listed(&cluster).await.context("operations")?;
        a_server_that_is_away(&mut cluster).await.context("a server that is away")
    };
    let outcome = outcome.await;
    outcome.with_context(|| cluster.log_tails())
}

async fn used(cluster: &Cluster, server: &Server) -> Result<Value> {
    Ok(cluster.server_row(server).await?["used"].clone())
}

async fn what_tenants_see(cluster: &Cluster) -> Result<()> {
    let api = &cluster.tenant;
    let listed = api.get("/api/v1/servers").await?.data()?;
    let ids = |list: &Value| -> BTreeSet<String> {
        list.as_array().into_iter().flatten().filter_map(|row| row["id"].as_str().map(str::to_owned)).collect()
    };
    let expected: BTreeSet<String> = cluster.servers.iter().map(|server| server.id.clone()).collect();
    assert_eq!(ids(&listed), expected);
    for server in &cluster.servers {
        let one = api.get(&format!("/api/v1/servers/{}", server.id)).await?.data()?;
        assert_eq!((&one["server"]["name"], &one["status"]), (&json!(server.name), &json!("active")));
        assert_eq!(one["server"]["is_ready"], true);
        assert!(one["server"]["specs"]["ram"]["capacity_gb"].as_f64() > Some(0.0), "{one}");
        for path in [format!("/api/v1/servers/{}/runtime", server.id), format!("/api/v1/rentals/{}/runtime", server.id)]
        {
            let runtime = wait::until("a measurement", REPORT_DEADLINE, async || {
                let runtime = api.get(&path).await?.data()?;
                Ok((runtime["stale"] == false).then_some(runtime))
            })
            .await?;
            assert_eq!(runtime["scope"], "server");
            assert!(runtime["mem"]["total_bytes"].as_u64() > Some(0), "{runtime}");
            assert!(runtime["storage"]["total_bytes"].as_u64() > Some(0), "{runtime}");
            assert!(runtime["cache_age_ms"].as_u64() < Some(10_000), "{runtime}");
        }
    }
    // Somebody else's servers do not exist, and rented ones are not on offer.
    let stranger = cluster.second_tenant("stranger").await?;
    assert_eq!(stranger.get("/api/v1/servers").await?.data()?, json!([]));
    for path in ["", "/runtime"] {
        let path = format!("/api/v1/servers/{}{path}", cluster.servers[0].id);
        stranger.get(&path).await?.expect_refusal(404, "NOT_FOUND")?;
    }
    assert_eq!(stranger.get("/api/v1/servers/available").await?.data()?, json!([]));
    let owner = format!("/api/v1/admin/servers/{}", cluster.servers[2].id);
    cluster.admin.patch(&owner, json!({ "owner": null, "country": "NL", "region": "eu" })).await?.data()?;
    let offered = stranger.get("/api/v1/servers/available?country=NL&min_cpu_cores=1").await?.data()?;
    assert_eq!(offered[0]["id"], cluster.servers[2].id);
    assert_eq!(stranger.get("/api/v1/servers/available?country=DE").await?.data()?, json!([]));
    stranger.get("/api/v1/servers/available?min_cpu_cores=many").await?.expect_detail(400, "min_cpu_cores")?;
    cluster.admin.patch(&owner, json!({ "owner": TENANT })).await?.data()?;
    Ok(())
}

async fn placement_and_capacity(cluster: &Cluster) -> Result<()> {
    let api = &cluster.tenant;
    let project = api.project("spread").await?;
    let mut placed = Vec::new();
    for number in 0..SERVERS {
        let id = api.container(&project, "busybox", small(&format!("spread-{number}"))).await?;
        let row = api.get(&format!("/api/v1/containers/{id}")).await?.data()?;
        placed.push((id, row["server_id"].as_str().context("no server")?.to_owned()));
    }
    let servers: BTreeSet<&String> = placed.iter().map(|(_, server)| server).collect();
    assert_eq!(servers.len(), SERVERS, "the project is not spread: {placed:?}");
    for server in &cluster.servers {
        let expected = json!({ "cpu_millis": 100, "memory_bytes": 32 << 20, "disk_bytes": 64 << 20, "containers": 1 });
        assert_eq!(used(cluster, server).await?, expected, "{}", server.name);
    }

    // A server of one's choice, though another has fewer containers of the project.
    let chosen = &cluster.servers[1];
    let mut body = small("chosen");
    body["server_id"] = json!(chosen.id);
    let id = api.container(&project, "busybox", body).await?;
    assert_eq!(api.get(&format!("/api/v1/containers/{id}")).await?.data()?["server_id"], chosen.id);
    assert_eq!(used(cluster, chosen).await?["containers"], 2);

    // Nowhere to go: every server says why, and nothing is taken.
    let path = format!("/api/v1/projects/{project}/containers");
    let full = json!({ "max_containers": 1 });
    let servers = "/api/v1/admin/servers";
    cluster.admin.patch(&format!("{servers}/{}", cluster.servers[0].id), full).await?.data()?;
    cluster.admin.post(&format!("{servers}/{}/disable", chosen.id), json!({})).await?.data()?;
    let memory = json!({ "memory_bytes": 33 << 20 });
    cluster.admin.patch(&format!("{servers}/{}", cluster.servers[2].id), memory).await?.data()?;
    let mut before = Vec::new();
    for server in &cluster.servers {
        before.push(used(cluster, server).await?);
    }
    let mut body = small("nowhere");
    body["container_image"] = json!("busybox");
    let refused = api.post(&path, body.clone()).await?.expect_refusal(422, "UNPROCESSABLE")?;
    let reasons = &refused["error"]["details"];
    for (server, word) in cluster.servers.iter().zip(["containers", "service", "memory"]) {
        let reason = reasons[&server.name].as_str().unwrap_or_default();
        assert!(reason.contains(word), "{}: {reason:?} does not speak of {word}: {reasons}", server.name);
    }
    // The same by name.
    for server in &cluster.servers {
        body["server_id"] = json!(server.id);
        api.post(&path, body.clone()).await?.expect_detail(422, &server.name)?;
    }
    body["server_id"] = json!(NOBODY);
    api.post(&path, body.clone()).await?.expect_refusal(404, "NOT_FOUND")?;
    for (server, before) in cluster.servers.iter().zip(&before) {
        assert_eq!(&used(cluster, server).await?, before, "a refused creation took something of {}", server.name);
    }
    let listed = api.get(&format!("{path}?limit=100")).await?.data()?;
    assert_eq!(listed["pagination"]["total"], SERVERS + 1);

    // Given back on deletion; then there is room again.
    let (first, _) = placed.iter().find(|(_, on)| *on == cluster.servers[0].id).context("nothing on the first")?;
    api.delete(&format!("/api/v1/containers/{first}"), None).await?.data()?;
    wait::until("the capacity is given back", REPORT_DEADLINE, async || {
        Ok((used(cluster, &cluster.servers[0]).await?["containers"] == 0).then_some(()))
    })
    .await?;
    let nothing = json!({ "cpu_millis": 0, "memory_bytes": 0, "disk_bytes": 0, "containers": 0 });
    assert_eq!(used(cluster, &cluster.servers[0]).await?, nothing);
    let again = api.container(&project, "busybox", small("again")).await?;
    let row = api.get(&format!("/api/v1/containers/{again}")).await?.data()?;
    assert_eq!(row["server_id"], cluster.servers[0].id);

    cluster.admin.post(&format!("{servers}/{}/enable", chosen.id), json!({})).await?.data()?;
    cluster.wait_online(chosen, true).await?;
    let everything = json!({ "max_containers": 100, "memory_bytes": 4_u64 << 30 });
    for server in &cluster.servers {
        cluster.admin.patch(&format!("{servers}/{}", server.id), everything.clone()).await?.data()?;
    }
    // The project goes with all its containers, on every server.
    let gone = api.delete(&format!("/api/v1/projects/{project}?include_deleted_items=true"), None).await?.data()?;
    assert_eq!(gone["deleted"]["containers"], SERVERS + 1);
    for server in &cluster.servers {
        assert_eq!(used(cluster, server).await?, nothing, "{}", server.name);
    }
    Ok(())
}

async fn what_operators_do(cluster: &Cluster) -> Result<()> {
    let (admin, api) = (&cluster.admin, &cluster.tenant);
    let servers = "/api/v1/admin/servers";
    let one = format!("{servers}/{}", cluster.servers[0].id);
    // Nobody else does.
    for path in [servers, "/api/v1/admin/operations", &one] {
        api.get(path).await?.expect_refusal(403, "FORBIDDEN")?;
        api.with_token(None).get(path).await?.expect_refusal(401, "UNAUTHORIZED")?;
    }
    api.post(servers, json!({ "name": "mine" })).await?.expect_refusal(403, "FORBIDDEN")?;
    api.post(&format!("{one}/disable"), json!({})).await?.expect_refusal(403, "FORBIDDEN")?;
    api.delete(&one, None).await?.expect_refusal(403, "FORBIDDEN")?;

    let row = admin.get(&one).await?.data()?;
    assert_eq!((&row["status"], &row["online"]), (&json!("enrolled"), &json!(true)));
    assert!(row["facts"]["cpu_cores"].as_u64() >= Some(1), "{row}");
    let page = admin.get(&format!("{servers}?page=2&limit=2")).await?;
    assert_eq!(page.body["pagination"]["has_more"], false);
    let page = page.data()?;
    assert_eq!((&page["pagination"]["total"], page["servers"].as_array().map(Vec::len)), (&json!(SERVERS), Some(1)));

    let made = admin.post(servers, json!({ "name": "spare", "owner": TENANT, "city": "Utrecht" })).await?;
    let made = made.expect(201)?["data"].clone();
    assert_eq!(
        (&made["status"], &made["online"], &made["city"]),
        (&json!("created"), &json!(false), &json!("Utrecht"))
    );
    let spare = format!("{servers}/{}", made["id"].as_str().context("no id")?);
    admin.post(servers, json!({ "name": "spare" })).await?.expect_refusal(409, "CONFLICT")?;
    admin.patch(&spare, json!({ "name": cluster.servers[0].name })).await?.expect_refusal(409, "CONFLICT")?;
    for (body, field) in [
        (json!({}), "name"),
        (json!({ "name": "../etc" }), "name"),
        (json!({ "name": "a".repeat(65) }), "name"),
        (json!({ "name": "x", "owner": "nobody-at-all" }), "owner"),
        (json!({ "name": "x", "memory_bytes": -1 }), "memory_bytes"),
        (json!({ "name": "x", "max_containers": -1 }), "max_containers"),
        (json!({ "name": "x", "rental_end": "tomorrow" }), "rental_end"),
        (
            json!({ "name": "x", "rental_start": "2026-02-01T00:00:00Z", "rental_end": "2026-01-01T00:00:00Z" }),
            "rental_end",
        ),
    ] {
        admin.post(servers, body).await?.expect_detail(400, field)?;
    }
    let changed = admin.put(&spare, json!({ "city": "Delft" })).await?.data()?;
    assert_eq!((&changed["city"], &changed["name"]), (&json!("Delft"), &json!("spare")));
    let token = admin.post(&format!("{spare}/join-token"), json!({})).await?.expect(201)?;
    assert!(token["data"]["token"].as_str().is_some_and(|token| token.starts_with("hoody-join-1.")));
    for path in [format!("{servers}/{NOBODY}"), format!("/api/v1/admin/operations/{NOBODY}")] {
        admin.get(&path).await?.expect_refusal(404, "NOT_FOUND")?;
    }
    admin.get(&format!("{servers}/nope")).await?.expect_detail(400, "id")?;

    // A server with a container stays.
    let project = api.project("keeps").await?;
    let mut body = small("keeper");
    body["server_id"] = json!(cluster.servers[0].id);
    let keeper = api.container(&project, "busybox", body).await?;
    admin.delete(&one, None).await?.expect_refusal(409, "CONFLICT")?;
    assert_eq!(admin.get(&one).await?.data()?["used"]["containers"], 1);
    assert_eq!(api.get(&format!("/api/v1/containers/{keeper}")).await?.data()?["status"], "stopped");
    admin.delete(&spare, None).await?.data()?;
    admin.get(&spare).await?.expect_refusal(404, "NOT_FOUND")?;

    // Disabled: its link is closed, its container runs on, and enabling lets it in again.
    api.operate(&keeper, "start").await?;
    api.wait_status(&keeper, "running").await?;
    admin.post(&format!("{one}/disable"), json!({})).await?.data()?;
    cluster.wait_online(&cluster.servers[0], false).await?;
    assert_eq!(cluster.servers[0].exec(&keeper, &["echo", "on"])?.trim(), "on");
    admin.post(&format!("{one}/enable"), json!({})).await?.data()?;
    cluster.wait_online(&cluster.servers[0], true).await?;
    api.delete(&format!("/api/v1/projects/{project}"), None).await?.data()?;
    Ok(())
}

async fn operations_are_listed(cluster: &Cluster) -> Result<()> {
    let (admin, api) = (&cluster.admin, &cluster.tenant);
    let project = api.project("operations").await?;
    let id = api.container(&project, "busybox", small("restarted")).await?;
    api.operate(&id, "start").await?;
    api.wait_status(&id, "running").await?;
    api.operate(&id, "restart").await?;
    let path = format!("/api/v1/admin/operations?container_id={id}");
    let listed = admin.get(&path).await?.data()?;
    assert_eq!(listed["pagination"]["total"], 1, "{listed}");
    let operation = &listed["operations"][0];
    assert_eq!((&operation["container_id"], &operation["state"]), (&json!(id), &json!("succeeded")));
    assert!(operation["finished_at"].is_string() && operation["failure"].is_null(), "{operation}");
    let one = format!("/api/v1/admin/operations/{}", operation["id"].as_str().context("no id")?);
    assert_eq!(&admin.get(&one).await?.data()?, operation);
    let failed = admin.get(&format!("{path}&state=failed")).await?.data()?;
    assert_eq!(failed["pagination"]["total"], 0);
    admin.get("/api/v1/admin/operations?state=odd").await?.expect_detail(400, "state")?;
    api.delete(&format!("/api/v1/projects/{project}"), None).await?.data()?;
    Ok(())
}

async fn a_server_that_is_away(cluster: &mut Cluster) -> Result<()> {
    let api = cluster.tenant.clone();
    let project = api.project("away").await?;
    let on = |name: &str, server: &Server| {
        let mut body = small(name);
        body["server_id"] = json!(server.id);
        body
    };
    let runs = api.container(&project, "busybox", on("runs", &cluster.servers[0])).await?;
    let rests = api.container(&project, "busybox", on("rests", &cluster.servers[0])).await?;
    let goes = api.container(&project, "busybox", on("goes", &cluster.servers[0])).await?;
    let elsewhere = api.container(&project, "busybox", on("elsewhere", &cluster.servers[1])).await?;
    api.operate(&runs, "start").await?;
    api.wait_status(&runs, "running").await?;
    let path = |id: &str| format!("/api/v1/containers/{id}");
    let server = format!("/api/v1/servers/{}", cluster.servers[0].id);

    cluster.servers[0].stop_agent()?;
    cluster.wait_online(&cluster.servers[0], false).await?;
    for (id, status) in [(&runs, "running"), (&rests, "stopped")] {
        let row = api.get(&path(id)).await?.data()?;
        assert_eq!((&row["status"], &row["server_online"]), (&json!(status), &json!(false)));
        assert!(row["reported_age_ms"].is_u64(), "a last known state has an age: {row}");
    }
    assert_eq!(cluster.servers[0].exec(&runs, &["echo", "on"])?.trim(), "on");
    let runtime = wait::until("the runtime is stale", REPORT_DEADLINE, async || {
        let runtime = api.get(&format!("{server}/runtime")).await?.data()?;
        Ok((runtime["stale"] == true).then_some(runtime))
    })
    .await?;
    assert!(runtime["mem"]["total_bytes"].as_u64() > Some(0), "the last measurement stays: {runtime}");
    assert_eq!(api.get(&server).await?.data()?["server"]["is_ready"], false);

    // Writes are accepted, operations are refused and never run; the others go on.
    let begun = std::time::Instant::now();
    let started = api.post(&format!("{}/start", path(&rests)), json!({})).await?.expect(200)?;
    assert_eq!((&started["data"]["status"], &started["data"]["error"]), (&json!("stopped"), &json!(false)));
    let refused = api.post(&format!("{}/restart", path(&runs)), json!({})).await?;
    refused.expect_refusal(503, "UNAVAILABLE")?;
    assert!(begun.elapsed() < Duration::from_secs(5), "writes wait for a server that is known to be away");
    let deleted = api.delete(&path(&goes), None).await?;
    assert!(matches!(deleted.status, 200 | 202), "{}", deleted.body);
    let env = api.put(&format!("{}/env/GREETING", path(&rests)), json!({ "value": "late" })).await?.data()?;
    assert_eq!(env["synced"], false);
    api.operate(&elsewhere, "start").await?;
    api.wait_status(&elsewhere, "running").await?;
    let mut anywhere = small("placed");
    anywhere["image"] = json!("busybox");
    let placed = api.post(&format!("/api/v1/projects/{project}/containers"), anywhere).await?.data()?;
    let placed_on = &placed["server_id"];
    assert_ne!(*placed_on, cluster.servers[0].id, "placed on a server that is away");

    let before = cluster.servers[0].exec(&runs, &["sh", "-c", "stat -c %Y /proc/1"])?;
    cluster.servers[0].start()?;
    cluster.wait_online(&cluster.servers[0], true).await?;
    api.wait_status(&rests, "running").await?;
    let seen = cluster.servers[0].exec(&rests, &["cat", "/proc/1/environ"])?;
    assert!(seen.contains("GREETING=late"), "{seen:?}");
    wait::until("the deletion is done", REPORT_DEADLINE, async || {
        Ok((api.get(&path(&goes)).await?.status == 404).then_some(()))
    })
    .await?;
    let after = cluster.servers[0].exec(&runs, &["sh", "-c", "stat -c %Y /proc/1"])?;
    assert_eq!(before, after, "the refused restart ran later");
    once_only(&api, &rests).await?;
    api.delete(&format!("/api/v1/projects/{project}"), None).await?.data()?;
    Ok(())
}

/// The start was applied once: the log has one change to running.
async fn once_only(api: &Api, id: &str) -> Result<()> {
    let logs = api.get(&format!("/api/v1/containers/{id}/status-logs?limit=100")).await?.data()?;
    let logs = logs["logs"].as_array().context("no logs")?;
    let running = logs.iter().filter(|log| log["to_status"] == "running").count();
    assert_eq!(running, 1, "{logs:#?}");
    Ok(())
}
