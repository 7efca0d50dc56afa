//! `dev bench`: create and start through the public API beside a bare `runc run` of the same root file
//! system with the same configuration, in one run; p50, p95 and ratios.

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{Cluster, Plan},
    image,
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const ROUNDS: usize = 30;

#[derive(Debug)]
struct Row {
    what: &'static str,
    times: Vec<Duration>,
}

impl Row {
    fn percentile(&self, percent: usize) -> f64 {
        let mut times = self.times.clone();
        times.sort();
        times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1000.0
    }
}

pub(super) async fn run() -> Result<()> {
    let cluster = Cluster::start(Plan::default()).await?;
    let api = &cluster.tenant;
    let project = api.project("bench").await?;
    let first = api.container(&project, "busybox", json!({ "name": "first", "autostart": true })).await?;
    let bundle = bare_bundle(&cluster, &first)?;
    let mut rows = [
        Row { what: "create and start through the API", times: Vec::new() },
        Row { what: "start of a stopped container", times: Vec::new() },
        Row { what: "stop", times: Vec::new() },
        Row { what: "delete", times: Vec::new() },
        Row { what: "firewall rule added", times: Vec::new() },
        Row { what: "bare runc run, same configuration", times: Vec::new() },
        Row { what: "bare runc run, without seccomp", times: Vec::new() },
    ];
    // Interleaved, so that whatever else the machine does meets all of them alike.
    for round in 0..ROUNDS {
        let begun = Instant::now();
        let body = json!({ "container_image": "busybox", "name": format!("round-{round}"), "autostart": true });
        let made = api.post(&format!("/api/v1/projects/{project}/containers"), body).await?.data()?;
        rows[0].times.push(begun.elapsed());
        ensure!(made["status"] == "running", "the container is not running when the API answers: {made}");
        let id = made["id"].as_str().context("an id")?.to_owned();
        let path = format!("/api/v1/containers/{id}");
        let rule = json!({ "action": "drop", "protocol": "tcp", "port": 80, "description": "" });
        rows[4].times.push(timed(api.post(&format!("{path}/firewall/ingress"), rule)).await?);
        rows[2].times.push(timed(api.post(&format!("{path}/force-stop"), json!({}))).await?);
        rows[1].times.push(timed(api.post(&format!("{path}/start"), json!({}))).await?);
        rows[3].times.push(timed(api.delete(&path, None)).await?);
        rows[5].times.push(bare_run(&bundle, "config.json", round)?);
        rows[6].times.push(bare_run(&bundle, "without-seccomp.json", round)?);
    }
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!("{ROUNDS} rounds, {profile} build, image on the node\n");
    println!("{:<38} {:>9} {:>9} {:>22}", "", "p50 ms", "p95 ms", "p50 / bare runc run");
    let bare = rows[5].percentile(50);
    for row in &rows {
        let (p50, p95) = (row.percentile(50), row.percentile(95));
        println!("{:<38} {p50:>9.1} {p95:>9.1} {:>22.2}", row.what, p50 / bare);
    }
    memory(&cluster)?;
    Ok(())
}

async fn timed(request: impl Future<Output = Result<hoody_tests::api::Answer>>) -> Result<Duration> {
    let begun = Instant::now();
    request.await?.data()?;
    Ok(begun.elapsed())
}

/// A bundle with the configuration that the agent made for `container`, on a plain copy of its root.
fn bare_bundle(cluster: &Cluster, container: &str) -> Result<PathBuf> {
    let server = &cluster.servers[0];
    let bundle = cluster.folder().join("bare");
    let root = bundle.join("rootfs");
    std::fs::create_dir_all(&root)?;
    let archive = image::archive("busybox")?;
    checked(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&root))?;
    let config = server.run_dir().join(format!("runtime/containers/{container}/config.json"));
    let mut config: Value = serde_json::from_slice(&std::fs::read(&config).context(config.display().to_string())?)?;
    let first = config["linux"]["uidMappings"][0]["hostID"].as_u64().context("an id mapping")?;
    checked(Command::new("chown").args(["-R", &format!("{first}:{first}")]).arg(&root))?;
    config["root"]["path"] = json!(root);
    config["process"]["args"] = json!(["/bin/true"]);
    config["linux"]["cgroupsPath"] = json!(format!("/{}/bare", server.name));
    // What the agent prepares beside the root file system is not there for a bare run.
    let own = server.run_dir();
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.retain(|mount| !mount["source"].as_str().is_some_and(|source| Path::new(source).starts_with(&own)));
    }
    std::fs::write(bundle.join("config.json"), config.to_string())?;
    config["linux"]["seccomp"] = Value::Null;
    std::fs::write(bundle.join("without-seccomp.json"), config.to_string())?;
    // runc enters the root file system as the container's root.
    for folder in [cluster.folder(), &bundle] {
        checked(Command::new("chmod").arg("0711").arg(folder))?;
    }
    Ok(bundle)
}

fn bare_run(bundle: &Path, config: &str, round: usize) -> Result<Duration> {
    let own = bundle.join("own");
    std::fs::create_dir_all(&own)?;
    std::fs::copy(bundle.join(config), own.join("config.json"))?;
    let begun = Instant::now();
    checked(
        Command::new("runc")
            .args(["--root".as_ref(), bundle.join("state").as_os_str()])
            .args(["run", "--bundle"])
            .arg(&own)
            .arg(format!("bare-{round}")),
    )?;
    Ok(begun.elapsed())
}

fn checked(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn memory(cluster: &Cluster) -> Result<()> {
    for (what, pid) in [("agent", cluster.servers[0].agent_pid()), ("control plane", cluster.control_plane.pid())] {
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.context("it runs")?))?;
        let rss = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
        println!("{what}: {}", rss.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    Ok(())
}
