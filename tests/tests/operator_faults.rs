//! What operators do is killed at each of its fault points: a backup is whole or not there, a restore and a new
//! master key are done or not begun, and a decision on an unknown container is carried out once.

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::Api,
    cluster::{ADMIN, Cluster, Plan, TENANT},
    faults::Faults,
    traces, wait,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::Path, time::Duration};

const DEADLINE: Duration = Duration::from_secs(60);
const SECRET: &str = "kept in the vault";

/// The points that one test has to reach; together they are all there are.
const STORED: [&str; 7] = [
    "backup.written",
    "backup.named",
    "restore.loaded",
    "restore.committed",
    "master.made",
    "master.sealed",
    "master.committed",
];
const DECIDED: [&str; 6] = [
    "decision.committed",
    "adoption.writing",
    "adoption.committed",
    "removal.sending",
    "removal.accepted",
    "removal.forgotten",
];

#[test]
fn every_point_is_walked() {
    let walked: BTreeSet<&str> = STORED.iter().chain(&DECIDED).copied().collect();
    assert_eq!(walked, hoody_fault::OPERATOR.iter().copied().collect());
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the path is text")
}

/// The tenant, logged in again: nobody's login outlives a restore.
async fn tenant(cluster: &Cluster) -> Result<Api> {
    Api::login(cluster.control_plane.base_url(), TENANT, &cluster.password).await
}

async fn check_vault(cluster: &Cluster, value: &str) -> Result<()> {
    let found = tenant(cluster).await?.get("/api/v1/vault/keys/word").await?.data()?;
    ensure!(found["value"] == value, "the vault has {}", found["value"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vault_survives_backups_restores_and_new_master_keys_that_are_killed() -> Result<()> {
    let mut cluster = Cluster::start(Plan { servers: 0, images: Vec::new(), ..Plan::default() }).await?;
    let outcome = stored(&mut cluster).await;
    outcome.with_context(|| cluster.log_tails())
}

async fn stored(cluster: &mut Cluster) -> Result<()> {
    hoody_tests::secrets::note(SECRET);
    cluster.tenant.put("/api/v1/vault/keys/word", json!({ "value": SECRET })).await?.data()?;
    let folder = cluster.folder().to_owned();

    // A backup that has its name is whole; killed before, it is asked for again.
    let backup = folder.join("backup");
    cluster.control_plane.cli_killed_at("backup.written", &["backup", text(&backup)?])?;
    ensure!(!backup.exists(), "a backup that was killed has its name");
    cluster.control_plane.cli_killed_at("backup.named", &["backup", text(&backup)?])?;
    ensure!(backup.exists());

    // Changed since; a restore that is killed before its commit leaves that, one that is killed behind it does not.
    cluster.tenant.put("/api/v1/vault/keys/word", json!({ "value": "later" })).await?.data()?;
    for (point, value) in [("restore.loaded", "later"), ("restore.committed", SECRET)] {
        cluster.control_plane.stop()?;
        cluster.control_plane.cli_killed_at(point, &["restore", text(&backup)?, "--replace"])?;
        cluster.control_plane.start().await?;
        check_vault(cluster, value).await.context(point)?;
    }

    // A new master key: until the commit the old one opens everything, then the new one does, and never neither.
    let mut current = cluster.control_plane.data_dir().join("master.key");
    for (number, point) in ["master.made", "master.sealed", "master.committed"].into_iter().enumerate() {
        let new = folder.join(format!("master-{number}.key"));
        cluster.control_plane.stop()?;
        cluster.control_plane.set("HOODY_MASTER_KEY_FILE", text(&current)?);
        let rotate = ["admin", "rotate-master-key", text(&new)?];
        let file = [("HOODY_MASTER_KEY_FILE", text(&current)?)];
        cluster.control_plane.cli_killed_with(point, &file, &rotate)?;
        ensure!(new.exists(), "{point}: nothing is sealed with a key that is not on disk");
        if point == "master.committed" {
            current = new;
        } else {
            // Asked again with the same file it is done.
            cluster.control_plane.start().await?;
            check_vault(cluster, SECRET).await.context(point)?;
            cluster.control_plane.stop()?;
            cluster.control_plane.cli_with(&file, &rotate)?;
            current = new;
        }
        cluster.control_plane.set("HOODY_MASTER_KEY_FILE", text(&current)?);
        cluster.control_plane.start().await?;
        check_vault(cluster, SECRET).await.context(point)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_on_unknown_containers_are_carried_out_once_wherever_the_control_plane_is_killed() -> Result<()> {
    let mut cluster = Cluster::start(Plan::default()).await?;
    let outcome = decided(&mut cluster).await;
    outcome.with_context(|| cluster.log_tails())
}

async fn decided(cluster: &mut Cluster) -> Result<()> {
    let faults = Faults::new()?;
    faults.disarm()?;
    cluster.control_plane.environment.push(faults.environment());
    let project = cluster.tenant.project("decided").await?;
    let backup = cluster.folder().join("backup");
    cluster.control_plane.cli(&["backup", text(&backup)?])?;
    let mut containers = Vec::new();
    for point in DECIDED {
        let name = point.replace('.', "-");
        let specs = json!({ "name": name, "specs": { "cpu_cores": 0.2, "memory_mb": 48, "storage_mb": 64 } });
        let id = cluster.tenant.container(&project, "busybox", specs).await?;
        containers.push((point, id));
    }
    cluster.control_plane.stop()?;
    cluster.control_plane.cli(&["restore", text(&backup)?, "--replace"])?;
    cluster.control_plane.start().await?;
    cluster.admin = Api::login(cluster.control_plane.base_url(), ADMIN, &cluster.password).await?;
    cluster.tenant = tenant(cluster).await?;
    cluster.wait_online(&cluster.servers[0], true).await?;
    let path = format!("/api/v1/admin/servers/{}/unknown-containers", cluster.servers[0].id);

    for (point, id) in containers {
        let removed = point.starts_with("removal.");
        faults.arm(point)?;
        let admin = cluster.admin.clone();
        let one = format!("{path}/{id}");
        let body = json!({ "project_id": project, "name": point.replace('.', "-") });
        let asked = tokio::spawn(async move {
            match removed {
                true => admin.delete(&one, None).await,
                false => admin.post(&format!("{one}/adopt"), body).await,
            }
        });
        wait::until(&format!("the death at {point}"), DEADLINE, async || {
            Ok(cluster.control_plane.process()?.killed()?.map(drop))
        })
        .await?;
        // It may have been answered, or cut off: what was decided is in the database either way.
        drop(asked.await?);
        faults.disarm()?;
        cluster.control_plane.start().await?;
        cluster.wait_online(&cluster.servers[0], true).await?;
        wait::until(&format!("nothing of {point} waits"), DEADLINE, async || {
            let rows = cluster.admin.get(&path).await?.data()?;
            let rows: &Vec<Value> = rows["containers"].as_array().context("no list")?;
            ensure!(rows.iter().all(|row| row["id"] != id.as_str() || row["problem"].is_null()), "{rows:?}");
            Ok(rows.iter().all(|row| row["id"] != id.as_str()).then_some(()))
        })
        .await?;
        let container = format!("/api/v1/containers/{id}");
        if removed {
            wait::until(&format!("{point}: it is removed"), DEADLINE, async || {
                Ok(traces::of_container(&cluster.servers[0], &id)?.is_empty().then_some(()))
            })
            .await?;
            ensure!(cluster.tenant.get(&container).await?.status == 404, "{point}: it is somebody's");
        } else {
            let row = cluster.tenant.wait_status(&id, "stopped").await.context(point)?;
            ensure!(row["project_id"] == project.as_str(), "{row}");
            cluster.tenant.operate(&id, "start").await?;
            cluster.tenant.wait_status(&id, "running").await.context(point)?;
            // Room was taken once, and is given back.
            cluster.tenant.delete(&container, None).await?.data()?;
        }
    }
    wait::until("everything is given back", DEADLINE, async || {
        let used = cluster.server_row(&cluster.servers[0]).await?["used"].clone();
        Ok((used == json!({ "cpu_millis": 0, "memory_bytes": 0, "disk_bytes": 0, "containers": 0 })).then_some(()))
    })
    .await
}
