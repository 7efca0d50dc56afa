//! What a container can do to its neighbours and its server: tried from inside, on the real kernel.

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::Api,
    cluster::{Cluster, Plan, Process, Server},
    probe::{self, Web},
    wait,
};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

const PORT: u16 = 8000;
/// A service of the server itself.
const HOST_PORT: u16 = 8001;
/// The containers' default gateway.
const GATEWAY: &str = "169.254.1.1";
const DEADLINE: Duration = Duration::from_secs(20);
const MEMORY_MB: u64 = 64;
const DISK_MB: u64 = 64;
/// The platform's limit of processes where nothing else is said.
const PIDS: usize = 512;

struct World {
    cluster: Cluster,
    /// Two containers of one tenant and one of another, each with a web server.
    mine: [(String, Web); 2],
    theirs: (String, Web),
    other: Api,
}

impl World {
    fn server(&self) -> &Server {
        &self.cluster.servers[0]
    }

    /// Whether a script in a container succeeds.
    fn succeeds(&self, container: &str, script: &str) -> bool {
        self.server().exec(container, &["sh", "-c", script]).is_ok()
    }

    fn fetches(&self, container: &str, address: SocketAddr) -> bool {
        let url = format!("http://{address}/");
        self.server().exec(container, &["timeout", "1", "wget", "-q", "-O", "-", &url]).is_ok()
    }
}

async fn container(server: &Server, api: &Api, project: &str, name: &str) -> Result<(String, Web)> {
    let specs = json!({ "cpu_cores": 0.5, "memory_mb": MEMORY_MB, "storage_mb": DISK_MB });
    let id = api.container(project, "busybox", json!({ "name": name, "server_id": server.id, "specs": specs })).await?;
    api.operate(&id, "start").await?;
    api.wait_status(&id, "running").await?;
    let web = probe::web(server, &id, PORT, name)?;
    probe::answers(&web, true).await?;
    Ok((id, web))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_stays_within_its_bounds() -> Result<()> {
    let cluster = Cluster::start(Plan::default()).await?;
    let other = cluster.second_tenant("other").await?;
    let server = &cluster.servers[0];
    let project = cluster.tenant.project("isolation").await?;
    let one = container(server, &cluster.tenant, &project, "one").await?;
    let two = container(server, &cluster.tenant, &project, "two").await?;
    // The server changes hands for a moment, so that another tenant has a container on it too.
    let row = format!("/api/v1/admin/servers/{}", server.id);
    cluster.admin.patch(&row, json!({ "owner": "other" })).await?.data()?;
    let project = other.project("isolation").await?;
    let theirs = container(server, &other, &project, "theirs").await?;
    cluster.admin.patch(&row, json!({ "owner": hoody_tests::cluster::TENANT })).await?.data()?;
    let world = World { mine: [one, two], theirs, other, cluster };

    let mut problems = Vec::new();
    let mut note = |what: &str, outcome: Result<()>| {
        if let Err(error) = outcome {
            problems.push(format!("{what}: {error:#}"));
        }
    };
    note("network", network(&world));
    note("raw sockets", spoofing(&world));
    note("privileges", privileges(&world));
    note("disk", disk(&world));
    note("processes", processes(&world).await);
    note("memory", memory(&world).await);
    // After all of it the neighbours go on.
    note("the second of the tenant", probe::answers_now(&world.mine[1].1, true));
    note("the other tenant's", probe::answers_now(&world.theirs.1, true));
    ensure!(problems.is_empty(), "{}\n{}", problems.join("\n"), world.cluster.log_tails());
    Ok(())
}

fn network(world: &World) -> Result<()> {
    let (one, two) = (&world.mine[0], &world.mine[1]);
    ensure!(world.fetches(&one.0, two.1.address), "the same tenant's containers do not reach each other");
    ensure!(!world.fetches(&one.0, world.theirs.1.address), "another tenant's container is reached");
    ensure!(!world.fetches(&world.theirs.0, one.1.address), "another tenant's container is reached");

    // Services of the server: on its uplink, on the gateway's address, on loopback of another namespace.
    let server = world.server();
    let folder = server.folder.join("host-web");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("index.html"), "host")?;
    let mut command = server.command("busybox");
    command.args(["httpd", "-f", "-p", &HOST_PORT.to_string(), "-h"]).arg(&folder);
    let _service = Process::start("the server's own service", &mut command, &server.folder.join("host-web.log"))?;
    serves(SocketAddr::from((server.address, HOST_PORT)))?;
    for address in [server.address.to_string(), GATEWAY.to_owned(), "127.0.0.1".to_owned()] {
        let address: SocketAddr = format!("{address}:{HOST_PORT}").parse()?;
        ensure!(!world.fetches(&one.0, address), "the server's own service at {address} is reached");
    }
    ensure!(!world.fetches(&one.0, "169.254.169.254:80".parse()?), "a metadata service is reached");
    // Beyond the server is the world.
    let uplink = server.address.octets();
    let beyond = SocketAddr::from(([uplink[0], uplink[1], uplink[2], uplink[3] - 1], HOST_PORT));
    let mut command = std::process::Command::new("busybox");
    command.args(["httpd", "-f", "-p", &beyond.to_string(), "-h"]).arg(&folder);
    let _beyond = Process::start("a service beyond the server", &mut command, &server.folder.join("beyond.log"))?;
    serves(beyond)?;
    ensure!(world.fetches(&one.0, beyond), "nothing beyond the server is reached");
    Ok(())
}

/// Waits until the server's page is served, as seen from outside.
fn serves(address: SocketAddr) -> Result<()> {
    let web = Web::at(address, "host");
    let end = Instant::now() + DEADLINE;
    while let Err(error) = probe::answers_now(&web, true) {
        ensure!(Instant::now() < end, "the service does not come up: {error:#}");
        std::thread::yield_now();
    }
    Ok(())
}

fn spoofing(world: &World) -> Result<()> {
    let (one, two) = (&world.mine[0], &world.mine[1]);
    let theirs = world.theirs.1.address.ip();
    // Programs that make their packets themselves.
    ensure!(!world.succeeds(&one.0, "ping -c 1 -W 2 127.0.0.1"), "a raw socket was opened");
    ensure!(!world.succeeds(&one.0, "arping -c 1 -w 2 -I eth0 169.254.1.1"), "a raw socket was opened");
    // Capabilities that would help: none of NET_RAW (13), NET_ADMIN (12), SYS_ADMIN (21).
    let status = world.server().exec(&one.0, &["cat", "/proc/1/status"])?;
    for set in ["CapEff", "CapBnd"] {
        let line = status.lines().find_map(|line| line.strip_prefix(set)).context("no capabilities")?;
        let mask = u64::from_str_radix(line.trim_start_matches(':').trim(), 16)?;
        for (bit, name) in
            [(12, "NET_ADMIN"), (13, "NET_RAW"), (16, "SYS_MODULE"), (19, "SYS_PTRACE"), (21, "SYS_ADMIN")]
        {
            ensure!(mask & (1 << bit) == 0, "{set} has {name}");
        }
    }
    // Another's address cannot be taken, nor a route laid.
    for script in [
        format!("ip addr add {theirs}/32 dev eth0"),
        "ip link set eth0 address 02:00:00:00:00:01".to_owned(),
        "ip route add default via 169.254.1.2 dev eth0".to_owned(),
        "ip link set eth0 down".to_owned(),
        "ip link add dummy0 type dummy".to_owned(),
    ] {
        ensure!(!world.succeeds(&one.0, &script), "this works in a container: {script}");
    }
    ensure!(world.fetches(&one.0, two.1.address), "the network is gone after all that");
    Ok(())
}

fn privileges(world: &World) -> Result<()> {
    let (one, server) = (&world.mine[0].0, world.server());
    ensure!(server.exec(one, &["id", "-u"])?.trim() == "0");
    let map = server.exec(one, &["cat", "/proc/self/uid_map"])?;
    let numbers: Vec<u64> = map.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(numbers[0] == 0 && numbers[1] >= 65_536 && numbers[2] == 65_536, "uid_map {map:?}");
    let neighbour = server.exec(&world.mine[1].0, &["cat", "/proc/self/uid_map"])?;
    ensure!(map != neighbour, "two containers share user ids");
    server.exec(one, &["sh", "-c", "echo secret > /root/secret; chmod 600 /root/secret"])?;
    for script in [
        "mount -t tmpfs none /mnt",
        "mkdir /m && mount -t proc proc /m",
        "mount -o remount,rw /proc/sys",
        "mknod /disk b 254 0",
        "echo 1 > /proc/sys/kernel/panic",
        "echo b > /proc/sysrq-trigger",
        "echo x > /sys/kernel/uevent_helper",
        "cat /proc/kcore > /dev/null",
        "cat /proc/keys | grep -q .",
        "dmesg",
        "insmod /bin/busybox",
        "hostname stolen",
        "date -s 2001-01-01; [ $(date +%Y) = 2001 ]",
        "swapoff -a && swapon /disk",
        "unshare -U true",
        "nsenter -t 1 -n -U true && false",
        "chroot / mount -t sysfs none /mnt",
        "reboot -f",
    ] {
        ensure!(!world.succeeds(one, script), "this works in a container: {script}");
    }
    // No other process than its own; no device of the server.
    let processes = server.exec(one, &["sh", "-c", "ls /proc | grep -c '^[0-9]'"])?;
    ensure!(processes.trim().parse::<u32>()? < 12, "{processes} processes are seen");
    let devices = server.exec(one, &["sh", "-c", "find /dev -type b"])?;
    ensure!(devices.is_empty(), "block devices: {devices}");
    Ok(())
}

fn disk(world: &World) -> Result<()> {
    let (one, two) = (&world.mine[0].0, &world.mine[1].0);
    let fill = format!("dd if=/dev/urandom of=/filler bs=1M count={} conv=fsync", DISK_MB * 2);
    let outcome = world.server().exec(one, &["sh", "-c", &fill]);
    let text = outcome.err().context("twice the disk limit was written")?.to_string();
    ensure!(text.contains("quota") || text.contains("No space"), "another failure than the disk limit: {text}");
    // The neighbour has all that it was promised.
    let half = format!("dd if=/dev/urandom of=/half bs=1M count={} conv=fsync && rm /half", DISK_MB / 2);
    world.server().exec(two, &["sh", "-c", &half]).context("the neighbour cannot write")?;
    // The container itself can make room and go on.
    world.server().exec(one, &["sh", "-c", "rm /filler && sync && echo again > /again"])?;
    Ok(())
}

async fn processes(world: &World) -> Result<()> {
    let (one, server) = (&world.mine[0].0, world.server());
    // Every process sleeps, so that the bomb costs memory and process ids, no processor time.
    // The shell ends where it cannot fork.
    let bomb = "i=0; while [ $i -lt 2000 ]; do sleep 300 < /dev/null > /dev/null 2>&1 & i=$((i+1)); done; wait";
    let outcome = server.exec(one, &["timeout", "60", "sh", "-c", bomb]);
    let text = outcome.err().context("2000 processes were made")?.to_string();
    ensure!(text.contains("fork"), "another failure than the limit: {text}");
    let seen = hoody_tests::traces::processes_of(one)?.len();
    ensure!((PIDS / 2..=PIDS).contains(&seen), "{seen} processes run");
    server.exec(&world.mine[1].0, &["true"]).context("the neighbour cannot start a process")?;
    // A full container can still be stopped, and starts again.
    let api = &world.cluster.tenant;
    api.operate(one, "force-stop").await?;
    api.wait_status(one, "stopped").await?;
    ensure!(hoody_tests::traces::processes_of(one)?.is_empty());
    api.operate(one, "start").await?;
    api.wait_status(one, "running").await?;
    Ok(())
}

async fn memory(world: &World) -> Result<()> {
    let (one, server, api) = (&world.mine[0].0, world.server(), &world.cluster.tenant);
    // The first process is made the kernel's first choice, before many that take a little each; making
    // that worse is anybody's right.
    server.exec(one, &["sh", "-c", "echo 1000 > /proc/1/oom_score_adj"])?;
    server.exec_detached(one, &["sh", "-c", "for i in $(seq 16); do tail /dev/zero & done; wait"])?;
    let row = wait::until("the container is ended", DEADLINE, async || {
        let row = api.get(&format!("/api/v1/containers/{one}")).await?.data()?;
        Ok(matches!(row["status"].as_str(), Some("stopped" | "failed")).then_some(row))
    })
    .await?;
    let warned = row["warnings"].as_array().into_iter().flatten().any(|warning| warning["type"] == "out_of_memory");
    ensure!(warned, "the container does not say why it ended: {row}");
    let logs = api.get(&format!("/api/v1/containers/{one}/status-logs?sort_order=desc")).await?.data()?;
    let last: &Value = &logs["logs"][0];
    ensure!(last["from_status"] == "running" && last["triggered_by"] == "node", "{last}");
    ensure!(last["metadata"].to_string().contains("out_of_memory"), "the log does not say why it ended: {last}");
    ensure!(last["duration_ms"].as_i64() > Some(0), "{last}");
    // Asked for again it runs again, without the mark.
    api.operate(one, "start").await?;
    let row = api.wait_status(one, "running").await?;
    ensure!(row["warnings"].as_array().is_none_or(Vec::is_empty), "{row}");
    // The other tenant saw nothing.
    let theirs = format!("/api/v1/containers/{}/status-logs?limit=100", world.theirs.0);
    let logs = world.other.get(&theirs).await?.data()?;
    ensure!(logs["logs"][0]["to_status"] == "running", "{logs}");
    Ok(())
}
