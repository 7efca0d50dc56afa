//! Two control planes on one PostgreSQL: a server that is linked to one is operated through the other, events come
//! to listeners of both, and when the one is killed its server goes to the other and nothing is lost. What needs the
//! server's node at once goes through the one that has its link.

mod interrupted;
mod through;

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::Api,
    cluster::{Cluster, ControlPlane, Database, Plan, TENANT},
    postgres::FreshDatabase,
    wait,
};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::task::JoinHandle;

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_operated_through_either_and_survives_the_death_of_one() -> Result<()> {
    let database = FreshDatabase::create()?;
    let plan = Plan { database: Database::Postgres(database.url()), replicas: 1, ..Plan::default() };
    let mut cluster = Cluster::start(plan).await?;
    let outcome = replicas(&mut cluster).await;
    outcome.with_context(|| cluster.log_tails())?;
    // The cluster lets go of the database before it is dropped.
    drop(cluster);
    Ok(())
}

/// Server-sent events of one connection: id → event.
struct Listener {
    seen: Arc<Mutex<Vec<(i64, Value)>>>,
    task: JoinHandle<Result<()>>,
}

impl Listener {
    async fn open(api: &Api, plane: &ControlPlane, after: Option<i64>) -> Result<Self> {
        let url = format!("{}/api/v1/events/stream", plane.base_url());
        let token = api.token.clone().context("not logged in")?;
        let mut request = reqwest::Client::new().get(url).bearer_auth(token);
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let mut response = request.send().await?.error_for_status()?;
        let seen: Arc<Mutex<Vec<(i64, Value)>>> = Arc::default();
        let noted = seen.clone();
        let task = tokio::spawn(async move {
            let mut text = String::new();
            while let Some(chunk) = response.chunk().await? {
                text.push_str(&String::from_utf8_lossy(&chunk));
                while let Some((message, rest)) = text.split_once("\n\n") {
                    let field = |name: &str| message.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                    if let (Some(Ok(id)), Some(Ok(data)), None) = (
                        field("id:").map(str::parse::<i64>),
                        field("data:").map(serde_json::from_str::<Value>),
                        field("event:"),
                    ) {
                        noted.lock().unwrap_or_else(PoisonError::into_inner).push((id, data["event"].clone()));
                    }
                    text = rest.to_owned();
                }
            }
            Ok(())
        });
        Ok(Self { seen, task })
    }

    fn seen(&self) -> Vec<(i64, Value)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for an event of this type about the container.
    async fn wait(&self, kind: &str, container: &str) -> Result<i64> {
        wait::until(&format!("{kind} of {container}"), DEADLINE, async || {
            let found = self
                .seen()
                .into_iter()
                .find(|(_, event)| event["event_type"] == kind && event["payload"]["container_id"] == container);
            Ok(found.map(|(id, _)| id))
        })
        .await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn links(plane: &ControlPlane) -> Result<usize> {
    let log = std::fs::read_to_string(plane.log())?;
    Ok(log.lines().filter(|line| line.contains("link up")).count())
}

/// The second replica lists the server as online (or offline).
async fn online(admin: &Api, server: &str, online: bool) -> Result<()> {
    wait::until("the server's link", DEADLINE, async || {
        let row = admin.get(&format!("/api/v1/admin/servers/{server}")).await?.data()?;
        Ok((row["online"] == online).then_some(()))
    })
    .await
}

async fn replicas(cluster: &mut Cluster) -> Result<()> {
    ensure!(links(&cluster.control_plane)? == 1 && links(&cluster.replicas[0])? == 0, "the server is not at the first");
    let one = cluster.tenant.clone();
    let two = Api::login(cluster.replicas[0].base_url(), TENANT, &cluster.password).await?;
    let admin = Api::login(cluster.replicas[0].base_url(), hoody_tests::cluster::ADMIN, &cluster.password).await?;
    let first = Listener::open(&one, &cluster.control_plane, None).await?;
    let second = Listener::open(&two, &cluster.replicas[0], None).await?;

    // Everything asked of the second, for a server that only the first can reach.
    let project = two.project("replicas").await?;
    let container = two.container(&project, "busybox", json!({ "name": "web" })).await?;
    let path = format!("/api/v1/containers/{container}");
    two.operate(&container, "start").await?;
    two.wait_status(&container, "running").await?;
    two.put(&format!("{path}/env/GREETING"), json!({ "value": "hello" })).await?.data()?;
    let drop_rule = json!({ "action": "drop", "protocol": "tcp", "port": 8000, "description": "no web" });
    two.post(&format!("{path}/firewall/ingress"), drop_rule).await?.data()?;
    two.operate(&container, "restart").await?;
    let seen = cluster.servers[0].exec(&container, &["cat", "/proc/1/environ"])?;
    ensure!(seen.contains("GREETING=hello"), "{seen:?}");
    for listener in [&first, &second] {
        listener.wait("container.running", &container).await?;
        listener.wait("firewall.rule.added", &container).await?;
    }

    // Measurements are with the replica that has the link; the other asks it.
    let seen = wait::until("a measurement at the other", DEADLINE, async || {
        let stats = two.get(&format!("{path}/stats")).await?.data()?;
        Ok((stats["memory"]["usage"].as_u64() > Some(0)).then_some(stats))
    })
    .await?;
    ensure!(seen["status"] == "running" && seen["measured_age_ms"].as_u64() < Some(60_000), "{seen}");
    let runtime = two.get(&format!("/api/v1/servers/{}/runtime", cluster.servers[0].id)).await?.data()?;
    ensure!(runtime["cores"].is_u64() && runtime["mem"]["used_bytes"].as_u64() > Some(0), "{runtime}");

    // Killed while writes go through it: what it had accepted is there, and the server comes to the other.
    let first_process = cluster.servers[0].exec(&container, &["sh", "-c", "cut -d' ' -f22 /proc/1/stat"])?;
    let mut accepted = Vec::new();
    for number in 0..5 {
        let value = json!({ "value": "kept" });
        one.put(&format!("{path}/env/KEPT_{number}"), value).await?.data()?;
        accepted.push(format!("KEPT_{number}"));
    }
    let resume = first.seen().last().map(|(id, _)| *id).context("no event")?;
    let last_write = tokio::spawn({
        let (one, path) = (one.clone(), path.clone());
        async move { one.put(&format!("{path}/env/AMID"), json!({ "value": "kill" })).await }
    });
    cluster.control_plane.kill()?;
    if last_write.await?.is_ok_and(|answer| answer.status == 200) {
        accepted.push("AMID".to_owned());
    }
    wait::until(
        "the server is at the second",
        DEADLINE,
        async || Ok((links(&cluster.replicas[0])? >= 1).then_some(())),
    )
    .await?;
    online(&admin, &cluster.servers[0].id, true).await?;
    let now = cluster.servers[0].exec(&container, &["sh", "-c", "cut -d' ' -f22 /proc/1/stat"])?;
    ensure!(now == first_process, "it was restarted");
    let stored = two.get(&format!("{path}/env")).await?.data()?["environment_vars"].clone();
    ensure!(accepted.iter().all(|name| stored[name].is_string()), "{accepted:?} in {stored}");

    // Who listened at the first goes on at the second, and misses nothing.
    let resumed = Listener::open(&one, &cluster.replicas[0], Some(resume)).await?;
    two.operate(&container, "stop").await?;
    two.wait_status(&container, "stopped").await?;
    resumed.wait("container.stopped", &container).await?;
    second.wait("container.stopped", &container).await?;
    let here: Vec<i64> = second.seen().into_iter().map(|(id, _)| id).filter(|id| *id > resume).collect();
    let there: Vec<i64> = resumed.seen().into_iter().map(|(id, _)| id).collect();
    let both = here.len().min(there.len());
    ensure!(both > 0 && here[..both] == there[..both], "{here:?} and {there:?}");
    ensure!(here.is_sorted_by(|one, next| one < next), "out of order: {here:?}");

    // The first comes back beside it; the server stays where it is, and is operated through it.
    cluster.control_plane.start().await?;
    one.operate(&container, "start").await?;
    one.wait_status(&container, "running").await?;
    one.delete(&path, None).await?.data()?;
    wait::until("the container is gone", DEADLINE, async || Ok((two.get(&path).await?.status == 404).then_some(())))
        .await?;
    Ok(())
}
