//! Archives of containers: from one installation to another, and what becomes of those that are damaged, hostile, or
//! broken off.

mod crafted;
mod crashes;
mod tree;

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::{Answer, Api},
    cluster::{Cluster, Plan},
    traces, wait,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A cluster with a project.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) api: Api,
    pub(crate) project: String,
}

impl World {
    pub(crate) async fn new(plan: Plan) -> Result<Self> {
        let cluster = Cluster::start(plan).await?;
        let api = cluster.tenant.clone();
        let project = api.project("archives").await?;
        Ok(Self { cluster, api, project })
    }

    pub(crate) async fn container(&self, more: Value) -> Result<String> {
        let mut body = json!({ "name": "web", "autostart": true,
            "specs": { "cpu_cores": 0.2, "storage_mb": 256, "memory_mb": 64 } });
        body.as_object_mut().context("an object")?.extend(more.as_object().cloned().unwrap_or_default());
        self.api.container(&self.project, "busybox", body).await
    }

    /// The request of an export.
    pub(crate) fn request(&self, id: &str) -> Result<reqwest::RequestBuilder> {
        let url = format!("{}/api/v1/containers/{id}/export", self.cluster.control_plane.base_url());
        let token = self.api.token.clone().context("a token")?;
        Ok(reqwest::Client::new().get(url).bearer_auth(token).timeout(DEADLINE))
    }

    /// Begins an export.
    pub(crate) async fn begin(&self, id: &str) -> Result<reqwest::Response> {
        Ok(self.request(id)?.send().await?)
    }

    /// A whole export.
    pub(crate) async fn exported(&self, id: &str) -> Result<Vec<u8>> {
        let response = self.begin(id).await?;
        ensure!(response.status() == 200, "{}: {}", response.status(), response.text().await?);
        Ok(response.bytes().await?.to_vec())
    }

    pub(crate) async fn import(&self, query: &str, archive: Vec<u8>) -> Result<Answer> {
        let path = format!("/api/v1/containers/import?project_id={}{query}", self.project);
        self.api.send_bytes(Method::POST, &path, &[("content-type", "application/zstd")], archive).await
    }

    pub(crate) fn root(&self, id: &str) -> PathBuf {
        self.cluster.servers[0].pool().join("containers").join(id)
    }

    /// What exports have on the server's pool.
    pub(crate) fn kept(&self) -> Result<Vec<String>> {
        let kept = std::fs::read_dir(self.cluster.servers[0].pool().join("exports"))?;
        kept.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    pub(crate) async fn nothing_kept(&self) -> Result<()> {
        wait::until("no export on the pool", DEADLINE, async || Ok(self.kept()?.is_empty().then_some(()))).await
    }

    /// Blobs of the control plane, and what is not a blob yet.
    pub(crate) fn blobs(&self) -> Result<BTreeSet<String>> {
        let found = std::fs::read_dir(self.cluster.control_plane.data_dir().join("blobs"))?;
        found.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// Containers of the project.
    pub(crate) async fn containers(&self) -> Result<Vec<Value>> {
        let listed = self.api.get(&format!("/api/v1/projects/{}/containers", self.project)).await?.data()?;
        Ok(listed["containers"].as_array().cloned().unwrap_or_default())
    }

    pub(crate) async fn delete(&self, id: &str) -> Result<()> {
        self.api.delete(&format!("/api/v1/containers/{id}"), None).await?.data()?;
        let left = traces::of_container(&self.cluster.servers[0], id)?;
        ensure!(left.is_empty(), "left: {left:?}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_container_moves_to_another_installation() -> Result<()> {
    let (here, there) = (World::new(Plan::default()).await?, World::new(Plan::default()).await?);
    let more = json!({ "environment_vars": { "GREETING": "hello" }, "color": "#ABCDEF", "comment": "mine" });
    let id = here.container(more).await?;
    let rule = json!({ "action": "allow", "protocol": "tcp", "port": "80", "description": "web" });
    here.api.post(&format!("/api/v1/containers/{id}/firewall/ingress"), rule).await?.data()?;
    let proxy = json!({ "type": "socks5", "proxy": "socks5://user:geheim-im-archiv@9.9.9.9:1080" });
    here.api.put(&format!("/api/v1/containers/{id}/network"), proxy).await?.data()?;
    tree::odd_files(&here.root(&id))?;
    std::fs::write(here.root(&id).join("etc/machine-id"), "0123456789abcdef0123456789abcdef\n")?;

    let begun = Instant::now();
    let archive = here.exported(&id).await?;
    println!("exported {} bytes in {:?}", archive.len(), begun.elapsed());
    here.nothing_kept().await?;
    assert_eq!(here.api.get(&format!("/api/v1/containers/{id}")).await?.data()?["status"], "running");
    let plain = zstd::decode_all(&archive[..])?;
    ensure!(!plain.windows(16).any(|text| text == b"geheim-im-archiv"), "the proxy's password is in the archive");
    let expected = tree::listed(&here.root(&id))?;

    let begun = Instant::now();
    let made = there.import("&autostart=false&name=moved", archive.clone()).await?.data()?;
    println!("imported in {:?}", begun.elapsed());
    let new = made["id"].as_str().context("an id")?.to_owned();
    ensure!(new != id && made["name"] == "moved", "{made}");
    there.api.wait_status(&new, "stopped").await?;
    let mut found = tree::listed(&there.root(&new))?;
    // A machine of its own.
    ensure!(std::fs::read(there.root(&new).join("etc/machine-id"))?.is_empty(), "the machine id came along");
    found.remove("etc/machine-id");
    let mut expected = expected;
    expected.remove("etc/machine-id");
    for (path, about) in &expected {
        assert_eq!(found.get(path), Some(about), "{path}");
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());

    let row = there.api.get(&format!("/api/v1/containers/{new}")).await?.data()?;
    assert_eq!((&row["color"], &row["comment"]), (&json!("#ABCDEF"), &json!("mine")));
    let rules = there.api.get(&format!("/api/v1/containers/{new}/firewall/rules")).await?.data()?.to_string();
    ensure!(rules.contains("\"web\""), "{rules}");
    let network = there.api.get(&format!("/api/v1/containers/{new}/network")).await?.data()?.to_string();
    ensure!(network.contains("9.9.9.9") && !network.contains("geheim"), "{network}");
    there.api.operate(&new, "start").await?;
    let said = there
        .api
        .post(
            &format!("/api/v1/containers/{new}/exec"),
            json!({ "argv": ["sh", "-c", "echo $GREETING; stat -c %a /odd/setuid"] }),
        )
        .await?
        .data()?;
    assert_eq!(said["stdout"]["data"], "hello\n6755\n", "{said}");
    let used = there.api.get(&format!("/api/v1/containers/{new}")).await?.data()?;
    ensure!(used["status"] == "running", "{used}");

    // Twice is two containers, with one blob.
    let twice = there.import("&autostart=false&name=twice", archive).await?.data()?;
    let twice = twice["id"].as_str().context("an id")?.to_owned();
    there.api.wait_status(&twice, "stopped").await?;
    for container in [&new, &twice] {
        there.delete(container).await?;
    }
    let collected = there.cluster.control_plane.cli(&["image", "collect"])?;
    ensure!(collected.starts_with("1 blobs removed"), "{collected}");
    here.cluster.check_logs()?;
    there.cluster.check_logs()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_or_hostile_leaves_nothing() -> Result<()> {
    let world = World::new(Plan::default()).await?;
    let before = world.blobs()?;
    for (name, archive) in crafted::refused_at_once()? {
        let answer = world.import("&name=refused", archive).await?;
        answer.expect_detail(400, "archive").with_context(|| name.to_owned())?;
        assert_eq!(world.blobs()?, before, "{name}");
        ensure!(world.containers().await?.is_empty(), "{name}");
    }
    let fits = crafted::archive(&[crafted::file("rootfs/big", &[7; 17 << 20])], 16)?;
    world.import("&name=large", fits).await?.expect_detail(422, "storage_mb")?;
    assert_eq!(world.blobs()?, before);

    for (name, archive) in crafted::refused_by_the_node()? {
        let made = world.import("&name=hostile", archive).await?.data()?;
        let id = made["id"].as_str().context("an id")?.to_owned();
        let failed = world.api.wait_status(&id, "failed").await.with_context(|| name.to_owned())?;
        ensure!(failed.to_string().contains("does not accept"), "{name}: {failed}");
        world.delete(&id).await?;
        let staged = std::fs::read_dir(world.cluster.servers[0].pool().join("staging"))?.count();
        ensure!(staged == 0, "{name}: {staged} staged");
    }
    // What can be unpacked without harm is: devices are not made, links lead where they lead inside.
    let made = world.import("&name=harmless&autostart=false", crafted::harmless()?).await?.data()?;
    let id = made["id"].as_str().context("an id")?.to_owned();
    world.api.wait_status(&id, "stopped").await?;
    let found = tree::listed(&world.root(&id))?;
    ensure!(!found.contains_key("dev/sda") && found.contains_key("passwd"), "{found:?}");
    assert_eq!(std::fs::read_link(world.root(&id).join("passwd"))?, PathBuf::from("/etc/passwd"));
    world.delete(&id).await?;
    let collected = world.cluster.control_plane.cli(&["image", "collect"])?;
    println!("{collected}");
    assert_eq!(world.blobs()?, before);
    world.cluster.check_logs()
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_those_who_may_less_get_nothing() -> Result<()> {
    let world = World::new(Plan::default()).await?;
    let id = world.container(json!({ "autostart": false })).await?;
    let stranger = world.cluster.second_tenant("stranger").await?;
    stranger.get(&format!("/api/v1/containers/{id}/export")).await?.expect_refusal(404, "NOT_FOUND")?;
    let path = format!("/api/v1/containers/import?project_id={}", world.project);
    stranger.send_bytes(Method::POST, &path, &[], b"x".to_vec()).await?.expect_refusal(404, "NOT_FOUND")?;
    let nobody = world.api.with_token(None);
    nobody.get(&format!("/api/v1/containers/{id}/export")).await?.expect(401)?;
    nobody.send_bytes(Method::POST, &path, &[], b"x".to_vec()).await?.expect(401)?;
    world
        .api
        .send_bytes(Method::POST, "/api/v1/containers/import", &[], b"x".to_vec())
        .await?
        .expect_detail(400, "project_id")?;
    // An export is in the record of the container's owner.
    world.exported(&id).await?;
    let events = world.api.get("/api/v1/events?event_type=activity.logged").await?.body.to_string();
    ensure!(events.contains("container.exported"), "{events}");
    Ok(())
}
