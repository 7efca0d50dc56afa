//! The product as an operator installs it, on a machine of its own with systemd, the shipped units and cgroup v2: the
//! main job, the commands that change the server itself, a real reboot. `make test-cgroup2` boots a virtual machine and
//! runs the first test in it, and the second after the reboot that the first one ends with.
//!
//! The machine is emulated: every wait is generous, and nothing is measured.

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::Api,
    cluster::{program, run},
    image, wait,
};
use serde_json::{Value, json};
use std::{fs, io::Write, process::Command, time::Duration};

const PATIENCE: Duration = Duration::from_secs(300);
const URL: &str = "http://127.0.0.1:8080";
const SETTINGS: &str = "/etc/hoody/control-plane.env";
const POOL: &str = "/var/lib/hoody-agent/pool";
/// `cgroup_parent` of the default settings.
const CGROUPS: &str = "/sys/fs/cgroup/hoody";
/// What the second test has to know.
const NOTES: &str = "/var/lib/hoody-installed.json";
const PASSWORD: &str = "Emulated-machine-7";
const POLICY: &str = "built_in = ['agent-restart', 'disk-usage', 'hostname', 'log-tail', 'reboot', 'time-zone']\n";

fn shell(script: &str) -> Result<String> {
    run(Command::new("sh").args(["-ec", script])).with_context(|| script.to_owned())
}

/// A command line of the control plane, as its user and with its settings: docs/operations.md.
fn control_plane(arguments: &str, stdin: &str) -> Result<String> {
    let line = format!(
        "systemd-run --pipe --quiet --wait --collect --uid=hoody -p EnvironmentFile={SETTINGS} hoody-control-plane {arguments}"
    );
    let mut command = Command::new("sh");
    command.args(["-ec", &line]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("no standard input")?.write_all(stdin.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "hoody-control-plane {arguments} ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

fn install() -> Result<()> {
    let programs = program("hoody-agent").parent().context("a folder of programs")?.display().to_string();
    let systemd = image::workspace().join("systemd");
    for role in ["control-plane", "proxy", "agent"] {
        shell(&format!("{}/install.sh {role} {programs}", systemd.display()))?;
    }
    fs::write(
        SETTINGS,
        format!(
            "HOODY_DATA_DIR=/var/lib/hoody-control-plane\nHOODY_HTTP_ADDRESS=127.0.0.1:8080\nHOODY_PUBLIC_URL={URL}\n\
             HOODY_NODE_ADDRESS=127.0.0.1:7443\nHOODY_NODE_PUBLIC_ADDRESSES=127.0.0.1:7443\n"
        ),
    )?;
    fs::write("/etc/hoody/commands.toml", POLICY)?;
    shell(&format!(
        "truncate -s 8G /var/lib/pool.img; mkfs.btrfs -q /var/lib/pool.img\n\
         mkdir -p {POOL}; chmod 700 /var/lib/hoody-agent\n\
         echo '/var/lib/pool.img {POOL} btrfs loop,noatime,nosuid,nodev 0 0' >>/etc/fstab\n\
         systemctl daemon-reload; mount {POOL}"
    ))?;
    Ok(())
}

/// Waits for the API and logs in.
async fn tenant() -> Result<Api> {
    wait::until("the API answers", PATIENCE, async || {
        let answer = reqwest::get(format!("{URL}/readyz")).await;
        Ok(answer.is_ok_and(|answer| answer.status().is_success()).then_some(()))
    })
    .await?;
    Ok(Api::login(URL.to_owned(), "alice", PASSWORD).await?.unchecked())
}

async fn is(api: &Api, path: &str, field: &str, value: &str) -> Result<Value> {
    let mut last = Value::Null;
    let found = wait::until(&format!("{field} of {path} is {value}"), PATIENCE, async || {
        let answer = api.get(path).await?;
        last = answer.body["data"].clone();
        Ok((last[field] == value).then(|| last.clone()))
    })
    .await;
    found.with_context(|| format!("last seen: {last}"))
}

/// An operation, repeated while the emulated machine is slower than a request's time.
async fn operate(api: &Api, container: &str, operation: &str, status: &str) -> Result<()> {
    let path = format!("/api/v1/containers/{container}");
    let answer = api.post(&format!("{path}/{operation}"), json!({})).await?;
    ensure!(answer.status < 300 || answer.status == 504, "{operation}: {} {}", answer.status, answer.body);
    is(api, &path, "status", status).await.map(drop)
}

async fn create(api: &Api, project: &str, name: &str) -> Result<String> {
    let body = json!({
        "container_image": "busybox", "name": name, "autostart": true,
        "specs": { "cpu_cores": 0.5, "memory_mb": 128 },
    });
    let made = api.post(&format!("/api/v1/projects/{project}/containers"), body).await?;
    let id = made.body["data"]["id"].as_str().with_context(|| format!("no container: {}", made.body))?.to_owned();
    is(api, &format!("/api/v1/containers/{id}"), "status", "running").await?;
    Ok(id)
}

async fn inside(api: &Api, container: &str, script: &str) -> Result<String> {
    let body = json!({ "argv": ["sh", "-c", script] });
    let done = api.post(&format!("/api/v1/containers/{container}/exec"), body).await?.data()?;
    Ok(done["stdout"]["data"].as_str().unwrap_or_default().trim().to_owned())
}

/// What the kernel holds of a container.
fn limit(container: &str, file: &str) -> Result<String> {
    let path = format!("{CGROUPS}/{container}/{file}");
    Ok(fs::read_to_string(&path).context(path)?.trim().to_owned())
}

async fn command(api: &Api, server: &str, body: Value) -> Result<Value> {
    let path = format!("/api/v1/servers/{server}");
    let started = api.post(&format!("{path}/execute-command"), body).await?.data()?;
    let id = started["command_log_id"].as_str().context("no execution")?;
    is(api, &format!("{path}/command-executions/{id}"), "status", "completed").await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a machine of its own: make test-cgroup2"]
async fn first_it_is_installed_used_and_rebooted() -> Result<()> {
    install()?;
    shell("systemctl start hoody-control-plane hoody-proxy")?;
    control_plane("admin create-user alice --email alice@example.com --password-stdin", PASSWORD)?;
    let archive = image::archive("busybox")?;
    fs::copy(archive, "/var/tmp/busybox.tar")?;
    control_plane("image import busybox /var/tmp/busybox.tar", "")?;
    let token = control_plane("admin join-token server-1 --create --owner alice", "")?;
    let token = token.split_whitespace().find(|word| word.starts_with("hoody-join-1.")).context("no token")?;
    // Its deadlines are those of a real machine, so that a check may fail here; what the kernel has is there or is not.
    let doctor = Command::new("hoody-agent").args(["doctor", "--json"]).output()?;
    let checks: Vec<Value> = serde_json::from_slice(&doctor.stdout)?;
    for check in &checks {
        println!("doctor: {} {}: {} {}", check["group"], check["name"], check["status"], check["found"]);
    }
    for name in ["user namespaces", "idmapped mounts", "cgroups"] {
        let passed = |check: &&Value| check["group"] == "kernel" && check["name"] == name && check["status"] == "ok";
        ensure!(checks.iter().any(|check| passed(&check)), "{name} is not found to be there");
    }
    fs::write("/run/token", token)?;
    shell("hoody-agent join - </run/token; systemctl enable --now hoody-control-plane hoody-proxy hoody-agent")?;

    let api = tenant().await?;
    let server = wait::until("the server is ready", PATIENCE, async || {
        let data = api.get("/api/v1/servers").await?.data()?;
        Ok(Some(data[0].clone()).filter(|one| one["server"]["is_ready"] == true))
    })
    .await?;
    let server = server["id"].as_str().context("no server")?.to_owned();
    let project = api.project("installed").await?;
    let container = create(&api, &project, "web").await?;
    println!("a container runs");
    assert_eq!(limit(&container, "memory.max")?, (128 << 20).to_string());
    assert_eq!(limit(&container, "cpu.max")?, "50000 100000");
    assert_eq!(inside(&api, &container, "id -u; echo kept >/root/file; sync").await?, "0");
    operate(&api, &container, "pause", "paused").await?;
    assert!(limit(&container, "cgroup.events")?.contains("frozen 1"));
    operate(&api, &container, "resume", "running").await?;
    let stats = wait::until("measurements", PATIENCE, async || {
        let stats = api.get(&format!("/api/v1/containers/{container}/stats")).await?.body["data"].clone();
        Ok((stats["memory"]["usage"].as_f64() > Some(0.0) && stats["processes"].as_u64() >= Some(1)).then_some(stats))
    })
    .await?;
    println!("{stats}");

    // The unit of the agent ends and starts; what runs in its group beside it stays.
    let first = limit(&container, "cgroup.procs")?;
    shell("systemctl restart hoody-agent")?;
    wait::until("the agent is back", PATIENCE, async || {
        let answer = api.post(&format!("/api/v1/containers/{container}/exec"), json!({ "argv": ["true"] })).await?;
        Ok((answer.status == 200).then_some(()))
    })
    .await?;
    assert_eq!(limit(&container, "cgroup.procs")?, first);
    println!("the agent was restarted");

    let parameters = json!({ "hostname": "web-1.example.com" });
    command(&api, &server, json!({ "command": "hostname", "parameters": parameters })).await?;
    assert_eq!(shell("hostname; cat /etc/hostname")?, "web-1.example.com\nweb-1.example.com\n");
    let parameters = json!({ "time_zone": "Europe/Berlin" });
    command(&api, &server, json!({ "command": "time-zone", "parameters": parameters })).await?;
    let zone = fs::read_link("/etc/localtime")?;
    ensure!(zone.ends_with("usr/share/zoneinfo/Europe/Berlin"), "{}", zone.display());
    command(&api, &server, json!({ "command": "disk-usage" })).await?;
    println!("the server has another name and zone");

    // From the next boot on, with the other runtime.
    shell(
        "sed -i '/^#*runtime =/d' /etc/hoody/agent.toml; sed -i '1i runtime = \"/usr/bin/crun\"' /etc/hoody/agent.toml",
    )?;
    let path = format!("/api/v1/servers/{server}/execute-command");
    let asked = api.post(&path, json!({ "command": "reboot" })).await?.expect(409)?;
    let confirmed = &asked["error"]["details"]["confirmation_token"];
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let notes = json!({ "server": server, "project": project, "container": container, "boot": boot });
    fs::write(NOTES, notes.to_string())?;
    shell("sync")?;
    let started = api.post(&path, json!({ "command": "reboot", "confirmation_token": confirmed })).await?.data()?;
    fs::write("/var/lib/hoody-installed.execution", started["command_log_id"].as_str().context("no execution")?)?;
    println!("the server reboots");
    // Ended with the machine.
    tokio::time::sleep(PATIENCE).await;
    anyhow::bail!("the server was not rebooted")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a machine of its own: make test-cgroup2"]
async fn then_it_is_as_it_was_and_runs_containers_with_crun() -> Result<()> {
    let notes: Value = serde_json::from_slice(&fs::read(NOTES)?)?;
    let text = |name: &str| notes[name].as_str().map(str::to_owned).context("a note");
    ensure!(fs::read_to_string("/proc/sys/kernel/random/boot_id")? != text("boot")?, "it is the same boot");
    let (server, container) = (text("server")?, text("container")?);
    let api = tenant().await?;
    is(&api, &format!("/api/v1/containers/{container}"), "status", "running").await?;
    let execution = fs::read_to_string("/var/lib/hoody-installed.execution")?;
    let rebooted =
        is(&api, &format!("/api/v1/servers/{server}/command-executions/{execution}"), "status", "completed").await?;
    assert_eq!(rebooted["exit_code"], 0, "{rebooted}");
    assert_eq!(shell("hostname")?, "web-1.example.com\n");
    println!("the server was rebooted");

    assert_eq!(inside(&api, &container, "cat /root/file").await?, "kept");
    let container = create(&api, &text("project")?, "another").await?;
    assert_eq!(limit(&container, "memory.max")?, (128 << 20).to_string());
    assert_eq!(limit(&container, "cpu.max")?, "50000 100000");
    assert_eq!(limit(&container, "memory.swap.max")?, "0");
    operate(&api, &container, "pause", "paused").await?;
    operate(&api, &container, "resume", "running").await?;
    assert_eq!(inside(&api, &container, "id -u").await?, "0");
    operate(&api, &container, "restart", "running").await?;
    operate(&api, &container, "stop", "stopped").await?;
    let path = format!("/api/v1/containers/{container}");
    api.delete(&path, None).await?;
    wait::until("the container is gone", PATIENCE, async || Ok((api.get(&path).await?.status == 404).then_some(())))
        .await?;
    let left = shell(&format!("find /sys/fs/cgroup /run/hoody-agent -name '*{container}*' 2>/dev/null; true"))?;
    assert_eq!(left, "");
    println!("crun runs containers");
    Ok(())
}
