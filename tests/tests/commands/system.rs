//! The commands that change a server: its host name, its time zone, its end. They ask systemd, which the servers of a
//! test do not have: its three programs are stood in for, in a mount namespace of the agent's own, and the host name is
//! that of a UTS namespace. Everything else is real: catalogue, confirmation, policy, command line, account, outcome.

use super::{DEADLINE, execute, until};
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{Cluster, Plan, program, run},
    wait,
};
use serde_json::json;
use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

const POLICY: &str = "built_in = ['hostname', 'time-zone', 'reboot']\n";

/// Each writes down what it was called with; one of them also does it.
const STAND_INS: [(&str, &str); 3] = [
    ("hostnamectl", "[ \"$1\" = set-hostname ] && exec hostname \"$2\""),
    ("timedatectl", "true"),
    ("systemctl", "true"),
];

fn executable(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// The agent's program in namespaces of its own, in which systemd's programs are others.
fn stand_in(folder: &Path) -> Result<()> {
    let mut mounts = String::new();
    for (name, does) in STAND_INS {
        let file = folder.join(name);
        let calls = folder.join(format!("{name}.calls"));
        executable(&file, &format!("#!/bin/sh\necho \"$(id -u) $*\" >>{}\n{does}\n", calls.display()))?;
        mounts.push_str(&format!("mount --bind {} /usr/bin/{name}\n", file.display()));
    }
    let inner = folder.join("inner");
    executable(&inner, &format!("#!/bin/sh\nset -e\n{mounts}exec {} \"$@\"\n", program("hoody-agent").display()))?;
    let outer = format!("#!/bin/sh\nexec unshare --uts --mount --propagation private -- {} \"$@\"\n", inner.display());
    executable(&folder.join("agent"), &outer)
}

fn calls(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(format!("{name}.calls"))).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_gets_another_name_and_zone_and_comes_back_from_a_reboot() -> Result<()> {
    let plan = Plan { commands: POLICY.to_owned(), images: Vec::new(), ..Plan::default() };
    let mut cluster = Cluster::start(plan).await?;
    let folder = cluster.folder().join("programs");
    fs::create_dir(&folder)?;
    stand_in(&folder)?;
    cluster.servers[0].stop_agent()?;
    cluster.servers[0].program = Some(folder.join("agent"));
    cluster.servers[0].start()?;
    cluster.wait_online(&cluster.servers[0], true).await?;
    let ours = run(&mut Command::new("hostname"))?;

    let parameters = json!({ "hostname": "web-1.example.com" });
    let body = json!({ "command": "hostname", "parameters": parameters, "wait": true });
    let named = execute(&cluster, body).await?.data()?;
    ensure!(named["status"] == "completed", "{named}");
    let pid = cluster.servers[0].agent_pid().context("no agent")?.to_string();
    let theirs = run(Command::new("nsenter").args(["--uts", "--target", &pid, "hostname"]))?;
    ensure!(theirs.trim() == "web-1.example.com", "{theirs}");
    ensure!(run(&mut Command::new("hostname"))? == ours, "the machine was renamed");
    for bad in ["--static", "a;reboot", "", "-x"] {
        let body = json!({ "command": "hostname", "parameters": { "hostname": bad } });
        execute(&cluster, body).await?.expect_detail(400, "parameters.hostname")?;
    }
    ensure!(calls(&folder, "hostnamectl") == "0 set-hostname web-1.example.com\n", "it was called otherwise");

    let parameters = json!({ "time_zone": "Europe/Berlin" });
    let body = json!({ "command": "time-zone", "parameters": parameters, "wait": true });
    let set = execute(&cluster, body).await?.data()?;
    ensure!(set["status"] == "completed", "{set}");
    ensure!(calls(&folder, "timedatectl") == "0 set-timezone Europe/Berlin\n", "it was called otherwise");

    // A reboot is asked for twice, and over when the server is another boot.
    let asked = execute(&cluster, json!({ "command": "reboot" })).await?.expect(409)?;
    ensure!(asked["error"]["code"] == "CONFIRMATION_REQUIRED", "{asked}");
    let token = asked["error"]["details"]["confirmation_token"].clone();
    let rebooting = execute(&cluster, json!({ "command": "reboot", "confirmation_token": token })).await?.data()?;
    wait::until("systemd is asked", DEADLINE, async || Ok((calls(&folder, "systemctl") == "0 reboot\n").then_some(())))
        .await?;
    let now = until(&cluster, &rebooting, "running").await?;
    ensure!(now["end_time"].is_null(), "it is not over yet: {now}");
    cluster.servers[0].reboot()?;
    cluster.servers[0].start()?;
    let done = until(&cluster, &rebooting, "completed").await?;
    ensure!(done["exit_code"] == 0, "{done}");
    // At most so often, whatever was confirmed.
    let asked = execute(&cluster, json!({ "command": "reboot" })).await?.expect(409)?;
    let token = asked["error"]["details"]["confirmation_token"].clone();
    let again = execute(&cluster, json!({ "command": "reboot", "confirmation_token": token })).await?;
    ensure!(again.headers.contains_key("retry-after"), "no Retry-After");
    again.expect_refusal(429, "RATE_LIMITED")?;
    ensure!(calls(&folder, "systemctl") == "0 reboot\n", "it was rebooted twice");
    Ok(())
}
