//! A control plane that is restored from an older backup, with its server linked before and after: what runs
//! runs on, what the backup knows is accepted again, and what it does not know waits for an operator.

use crate::{DEADLINE, first_process, small};
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::Api,
    cluster::{ADMIN, Cluster, Plan, TENANT},
    probe, traces, wait,
};
use serde_json::{Value, json};

const PORT: u16 = 8000;

#[tokio::test(flavor = "multi_thread")]
async fn an_older_backup_destroys_nothing_and_takes_the_lead_again() -> Result<()> {
    let mut cluster = Cluster::start(Plan::default()).await?;
    let outcome = restored(&mut cluster).await;
    outcome.with_context(|| cluster.log_tails())
}

async fn running(api: &Api, project: &str, name: &str) -> Result<String> {
    let id = api.container(project, "busybox", small(name)).await?;
    api.operate(&id, "start").await?;
    api.wait_status(&id, "running").await?;
    Ok(id)
}

async fn restored(cluster: &mut Cluster) -> Result<()> {
    let api = cluster.tenant.clone();
    let project = api.project("restored").await?;
    let kept = running(&api, &project, "kept").await?;
    let deleted = running(&api, &project, "deleted").await?;
    let file = cluster.folder().join("backup");
    let file = file.to_str().context("the path is text")?;
    cluster.control_plane.cli(&["backup", file])?;
    let again = cluster.control_plane.cli(&["backup", file]).err().context("a backup was overwritten")?;
    ensure!(format!("{again:#}").contains("there already"), "{again:#}");

    // What the backup does not know: changes, operations, a deletion, and two containers.
    for value in ["1", "2", "3", "4"] {
        api.put(&format!("/api/v1/containers/{kept}/env/LATER"), json!({ "value": value })).await?.data()?;
    }
    api.operate(&kept, "restart").await?;
    api.operate(&kept, "restart").await?;
    api.delete(&format!("/api/v1/containers/{deleted}"), None).await?.data()?;
    let adopted = running(&api, &project, "to-adopt").await?;
    let removed = running(&api, &project, "to-remove").await?;
    let server = &cluster.servers[0];
    let (before, adopted_before) = (first_process(server, &kept)?, first_process(server, &adopted)?);
    let web = probe::web(server, &adopted, PORT, "unknown but alive")?;

    let refused = cluster.control_plane.cli(&["restore", file, "--replace"]).err();
    ensure!(format!("{refused:?}").contains("stop it first"), "restored under a serving process: {refused:?}");
    cluster.control_plane.stop()?;
    let refused = cluster.control_plane.cli(&["restore", file]).err();
    ensure!(format!("{refused:?}").contains("--replace"), "{refused:?}");
    cluster.control_plane.cli(&["restore", file, "--replace"])?;
    cluster.control_plane.start().await?;
    // Nobody's login outlives a restore.
    api.get("/api/v1/projects").await?.expect_refusal(401, "UNAUTHORIZED")?;
    cluster.admin = Api::login(cluster.control_plane.base_url(), ADMIN, &cluster.password).await?;
    cluster.tenant = Api::login(cluster.control_plane.base_url(), TENANT, &cluster.password).await?;
    let (admin, api, server) = (cluster.admin.clone(), cluster.tenant.clone(), &cluster.servers[0]);
    cluster.wait_online(server, true).await?;

    // What it knows runs on, and obeys.
    api.wait_status(&deleted, "running").await.context("what was deleted since is there again")?;
    let changed = api.put(&format!("/api/v1/containers/{kept}/env/AFTER"), json!({ "value": "yes" })).await?.data()?;
    ensure!(changed["synced"] == true, "the node does not take what the restored state says: {changed}");
    ensure!(first_process(server, &kept)? == before, "it was restarted");
    api.operate(&kept, "restart").await?;
    let seen = server.exec(&kept, &["cat", "/proc/1/environ"])?;
    ensure!(seen.contains("AFTER=yes") && !seen.contains("LATER"), "{seen:?}");

    // What it does not know runs on too, and is listed.
    probe::answers_now(&web, true)?;
    let path = format!("/api/v1/admin/servers/{}/unknown-containers", server.id);
    let listed = unknown(&admin, &path).await?;
    ensure!(listed.len() == 2 && [&adopted, &removed].iter().all(|id| listed.iter().any(|row| row["id"] == **id)));
    api.get(&path).await?.expect_refusal(403, "FORBIDDEN")?;
    let said = cluster.control_plane.cli(&["admin", "unknown-containers", "list", &server.name])?;
    ensure!(said.contains(&adopted) && said.contains("running"), "{said}");

    // Adopted under a name that is taken: the problem is listed, nothing else happens.
    let adopt = format!("{path}/{adopted}/adopt");
    admin.post(&adopt, json!({ "project_id": project, "name": "x" })).await?.expect_detail(400, "name")?;
    admin.post(&adopt, json!({ "project_id": project, "name": "kept" })).await?.data()?;
    wait::until("the problem is listed", DEADLINE, async || {
        let rows = unknown(&admin, &path).await?;
        Ok(rows.iter().any(|row| row["problem"].as_str().is_some_and(|text| text.contains("in use"))).then_some(()))
    })
    .await?;
    // Into another project of the same tenant, which its node does not know it in.
    let other = api.project("other").await?;
    admin.post(&adopt, json!({ "project_id": other, "name": "adopted" })).await?.data()?;
    wait::until("it is adopted", DEADLINE, async || {
        Ok((api.get(&format!("/api/v1/containers/{adopted}")).await?.status == 200).then_some(()))
    })
    .await?;
    let row = api.wait_status(&adopted, "running").await?;
    ensure!(row["name"] == "adopted" && row["project_id"] == other.as_str(), "{row}");
    ensure!(first_process(server, &adopted)? == adopted_before, "adopting restarted it");
    probe::answers_now(&web, true)?;
    api.operate(&adopted, "restart").await?;

    // Removed by the command line: nothing is left of it.
    ensure!(!traces::of_container(server, &removed)?.is_empty());
    cluster.control_plane.cli(&["admin", "unknown-containers", "remove", &server.name, &removed])?;
    wait::until("it is removed", DEADLINE, async || {
        Ok(traces::of_container(server, &removed)?.is_empty().then_some(()))
    })
    .await?;
    wait::until("nothing is unknown", DEADLINE, async || Ok(unknown(&admin, &path).await?.is_empty().then_some(())))
        .await?;
    for id in [&kept, &deleted, &adopted] {
        api.delete(&format!("/api/v1/containers/{id}"), None).await?.data()?;
        ensure!(traces::of_container(server, id)?.is_empty(), "{id} left something");
    }
    Ok(())
}

async fn unknown(admin: &Api, path: &str) -> Result<Vec<Value>> {
    Ok(admin.get(path).await?.data()?["containers"].as_array().context("no list")?.clone())
}
