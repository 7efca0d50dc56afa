//! The main job through the public API, each step with its time.

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::Api,
    cluster::{Cluster, Plan},
    probe, traces, wait,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const WEB_PORT: u16 = 8000;
/// Who signs up.
const NEWCOMER: &str = "newcomer";
const PAGE: &str = "hello from inside";

#[derive(Debug, Default)]
struct Steps(Vec<(String, Duration)>);

impl Steps {
    async fn step<T>(&mut self, what: &str, work: impl Future<Output = Result<(T, String)>>) -> Result<T> {
        let begun = Instant::now();
        let (value, shown) = work.await.with_context(|| what.to_owned())?;
        let took = begun.elapsed();
        println!("{:>8.1} ms  {what:<42} {shown}", took.as_secs_f64() * 1000.0);
        self.0.push((what.to_owned(), took));
        Ok(value)
    }
}

pub(super) async fn run() -> Result<()> {
    let mut steps = Steps::default();
    let begun = Instant::now();
    println!("starting a control plane on SQLite and one server; images are built the first time");
    let plan = Plan { images: super::IMAGES.to_vec(), ..Plan::default() };
    let cluster = steps.step("start the cluster", async { Ok((Cluster::start(plan).await?, String::new())) }).await?;
    let result = main_job(&mut steps, &cluster).await;
    let folder = cluster.folder().to_owned();
    if result.is_err() {
        eprintln!("{}", cluster.log_tails());
    }
    steps.step("end the cluster", async { Ok((drop(cluster), String::new())) }).await?;
    result?;
    ensure!(!folder.exists(), "{} is left behind", folder.display());
    println!(
        "\nthe main job is done: {} steps in {:.1} s; nothing is left behind",
        steps.0.len(),
        begun.elapsed().as_secs_f64()
    );
    let mut slowest = steps.0;
    slowest.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
    for (what, took) in slowest.iter().take(5) {
        println!("  slowest: {:>8.1} ms  {what}", took.as_secs_f64() * 1000.0);
    }
    Ok(())
}

async fn main_job(steps: &mut Steps, cluster: &Cluster) -> Result<()> {
    let server = &cluster.servers[0];
    let api = steps
        .step("sign up and verify the address with the token of the mail", async {
            same_api(cluster.sign_up(NEWCOMER, &cluster.password, &cluster.control_plane.mails()).await?)
        })
        .await?;
    steps
        .step("rent the server to the new account, as the operator", async {
            let path = format!("/api/v1/admin/servers/{}", server.id);
            cluster.admin.patch(&path, json!({ "owner": NEWCOMER })).await?.data()?;
            Ok(((), server.name.clone()))
        })
        .await?;
    steps
        .step("show the enrolled server", async {
            let servers = api.get("/api/v1/servers").await?.data()?;
            let name = servers[0]["server"]["name"].as_str().context("no server is listed")?.to_owned();
            Ok(((), name))
        })
        .await?;
    let project = steps.step("create a project", async { same(api.project("demo").await?) }).await?;
    let container = steps
        .step("create a container from debian/12", async {
            same(api.container(&project, "debian/12", json!({ "name": "web" })).await?)
        })
        .await?;
    steps
        .step("start it", async {
            api.operate(&container, "start").await?;
            let seen = api.wait_status(&container, "running").await?;
            Ok(((), shown(&seen["status"])))
        })
        .await?;
    let web = steps
        .step("run a web server in it", async {
            let web = probe::web(server, &container, WEB_PORT, PAGE)?;
            let shown = format!("busybox httpd on {}", web.address);
            Ok((web, shown))
        })
        .await?;
    steps.step("reach it", async { Ok(((), probe::answers(&web, true).await?)) }).await?;
    let firewall = format!("/api/v1/containers/{container}/firewall/ingress");
    let rule = json!({ "action": "drop", "protocol": "tcp", "destination_port": WEB_PORT.to_string(), "description": "no web" });
    steps
        .step("add an ingress rule that drops the port", async {
            api.post(&firewall, rule).await?.data()?;
            Ok(((), String::new()))
        })
        .await?;
    steps.step("it is unreachable", async { Ok(((), probe::answers(&web, false).await?)) }).await?;
    steps
        .step("toggle the rule off", async {
            api.patch(&firewall, json!({ "port": WEB_PORT, "state": "disabled" })).await?.data()?;
            Ok(((), String::new()))
        })
        .await?;
    steps.step("it answers again", async { Ok(((), probe::answers(&web, true).await?)) }).await?;
    steps
        .step("set an environment variable", async {
            let path = format!("/api/v1/containers/{container}/env/GREETING");
            api.put(&path, json!({ "value": "good morning" })).await?.data()?;
            Ok(((), "GREETING=good morning".to_owned()))
        })
        .await?;
    steps
        .step("restart", async {
            api.operate(&container, "restart").await?;
            Ok(((), String::new()))
        })
        .await?;
    steps
        .step("show it inside", async {
            let seen = server.exec(&container, &["sh", "-c", "tr '\\0' '\\n' < /proc/1/environ | grep GREETING"])?;
            ensure!(seen.trim() == "GREETING=good morning", "the first process has {seen:?}");
            Ok(((), seen.trim().to_owned()))
        })
        .await?;
    steps.step("print stats", stats(&api, &container)).await?;
    steps
        .step("force-stop", async {
            api.operate(&container, "force-stop").await?;
            Ok(((), shown(&api.wait_status(&container, "stopped").await?["status"])))
        })
        .await?;
    steps
        .step("delete", async {
            api.delete(&format!("/api/v1/containers/{container}"), None).await?.data()?;
            Ok(((), String::new()))
        })
        .await?;
    steps.step("the server holds no trace of it", no_trace(server, &container)).await
}

fn same_api(api: Api) -> Result<(Api, String)> {
    Ok((api, NEWCOMER.to_owned()))
}

fn same(id: String) -> Result<(String, String)> {
    Ok((id.clone(), id))
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

async fn stats(api: &Api, container: &str) -> Result<((), String)> {
    let path = format!("/api/v1/containers/{container}/stats");
    let stats = wait::until("measurements", Duration::from_secs(20), async || {
        let stats = api.get(&path).await?.data()?;
        Ok(stats["memory"]["usage"].as_f64().is_some_and(|usage| usage > 0.0).then_some(stats))
    })
    .await?;
    let mib = |value: &Value| value.as_f64().unwrap_or(0.0) / f64::from(1 << 20);
    let text = format!(
        "memory {:.1} MiB, disk {:.1} MiB, {} processes",
        mib(&stats["memory"]["usage"]),
        mib(&stats["disk"]["root"]["usage"]),
        stats["processes"]
    );
    Ok(((), text))
}

async fn no_trace(server: &hoody_tests::cluster::Server, container: &str) -> Result<((), String)> {
    let mut seen = Vec::new();
    let gone = wait::until("no trace is left", Duration::from_secs(15), async || {
        let traces = traces::of_container(server, container)?;
        seen = traces;
        Ok(seen.is_empty().then_some(()))
    })
    .await;
    gone.with_context(|| format!("still there: {seen:#?}"))?;
    Ok(((), "no process, mount, link, route, nft chain, subvolume, cgroup or file".to_owned()))
}
