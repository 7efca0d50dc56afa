//! Throughput and new connections a second to a container, through its firewall, beside the same way with
//! no firewall: a routed veth pair behind another router, which has no rules.

use super::{bare::checked, crowd, table};
use anyhow::{Context, Result, ensure};
use hoody_tests::{api::Api, cluster::Cluster, probe};
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const SECONDS: u64 = 3;
const ROUNDS: usize = 3;
const ECHO_PORT: u16 = 7070;
/// The plain way's names and addresses. The benchmark's cluster is the only user of them.
const ROUTER: &str = "hoody-b-router";
const LEAF: &str = "hoody-b-leaf";
const UPLINK: [&str; 2] = ["10.239.255.1", "10.239.255.2"];
const LEAF_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 239, 254, 2);

pub(super) async fn run(cluster: &Cluster, api: &Api) -> Result<()> {
    crowd::make_room(cluster).await?;
    let ids = crowd::grow(api, "traffic", 1).await?;
    let container = ids.first().context("a container")?;
    // Some rules to pass, none of which matches.
    for number in 0..10 {
        let rule = json!({ "action": "drop", "protocol": "tcp", "port": 20_000 + number });
        api.post(&format!("/api/v1/containers/{container}/firewall/ingress"), rule).await?.data()?;
    }
    let address = probe::address(&cluster.servers[0], container)?;
    let namespace = PathBuf::from(format!("/proc/{}/ns/net", first_pid(cluster, container)?));
    let plain = Plain::make()?;
    table::part(&format!("traffic into a container, best of {ROUNDS} times {SECONDS} s"));
    let (mut through, mut without) = ((0.0, 0.0), (0.0, 0.0));
    for _ in 0..ROUNDS {
        for (best, namespace, address) in
            [(&mut through, namespace.as_path(), address), (&mut without, &plain.namespace, LEAF_ADDRESS)]
        {
            *best =
                (f64::max(best.0, throughput(namespace, address)?), f64::max(best.1, connections(namespace, address)?));
        }
    }
    row("iperf3, one stream, Gbit/s", through.0, without.0);
    row("new TCP connections a second", through.1, without.1);
    api.delete(&format!("/api/v1/containers/{container}"), None).await?.data().map(drop)
}

fn row(what: &str, through: f64, without: f64) {
    let share = through / without;
    table::value(what, &format!("{through:.1} of {without:.1}: {share:.2}"));
}

pub(super) fn first_pid(cluster: &Cluster, container: &str) -> Result<i32> {
    let path = cluster.servers[0].run_dir().join(format!("runtime/containers/{container}/pid"));
    Ok(std::fs::read_to_string(&path).context(path.display().to_string())?.trim().parse()?)
}

/// The way without a firewall; removed when dropped.
struct Plain {
    namespace: PathBuf,
}

impl Plain {
    fn make() -> Result<Self> {
        remove();
        let this = Self { namespace: PathBuf::from(format!("/run/netns/{LEAF}")) };
        for line in [
            format!("netns add {ROUTER}"),
            format!("netns add {LEAF}"),
            format!("link add {ROUTER} type veth peer name uplink netns {ROUTER}"),
            format!("addr add {}/30 dev {ROUTER}", UPLINK[0]),
            format!("link set {ROUTER} up"),
            format!("-n {ROUTER} addr add {}/30 dev uplink", UPLINK[1]),
            format!("-n {ROUTER} link set uplink up"),
            format!("-n {ROUTER} link add leaf type veth peer name eth0 netns {LEAF}"),
            format!("-n {ROUTER} addr add 10.239.254.1/30 dev leaf"),
            format!("-n {ROUTER} link set leaf up"),
            format!("-n {LEAF} addr add {LEAF_ADDRESS}/30 dev eth0"),
            format!("-n {LEAF} link set eth0 up"),
            format!("-n {LEAF} route add default via 10.239.254.1"),
            format!("-n {ROUTER} route add default via {}", UPLINK[0]),
            format!("route add 10.239.254.0/30 via {}", UPLINK[1]),
        ] {
            checked(Command::new("ip").args(line.split_whitespace()))?;
        }
        checked(Command::new("ip").args(["netns", "exec", ROUTER, "sysctl", "-qw", "net.ipv4.ip_forward=1"]))?;
        Ok(this)
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        remove();
    }
}

fn remove() {
    for arguments in [["link", "del", ROUTER], ["netns", "del", ROUTER], ["netns", "del", LEAF]] {
        // Absent is what is wanted.
        let _ = Command::new("ip").args(arguments).stderr(Stdio::null()).status();
    }
}

/// A child that is killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Gbit/s into the namespace.
fn throughput(namespace: &Path, address: Ipv4Addr) -> Result<f64> {
    let server = Command::new("nsenter")
        .arg(format!("--net={}", namespace.display()))
        .args(["iperf3", "-s", "-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("iperf3")?;
    let _server = Killed(server);
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let output = Command::new("iperf3")
            .args(["-c", &address.to_string(), "-t", &SECONDS.to_string(), "-J"])
            .stdin(Stdio::null())
            .output()?;
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if let Some(bits) = report["end"]["sum_received"]["bits_per_second"].as_f64() {
            return Ok(bits / 1e9);
        }
        // It may not listen yet.
        ensure!(Instant::now() < end, "iperf3: {}", report["error"]);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Connections a second, one after the other: opened, one byte there and back, closed.
fn connections(namespace: &Path, address: Ipv4Addr) -> Result<f64> {
    let namespace = File::open(namespace)?;
    let (ready, listening) = std::sync::mpsc::channel();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let server = std::thread::spawn(move || -> Result<()> {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, ECHO_PORT))?;
        ready.send(())?;
        // Dropping `stop` is followed by one more connection.
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let (mut stream, _) = listener.accept()?;
            let mut byte = [0];
            if stream.read(&mut byte)? == 1 {
                stream.write_all(&byte)?;
            }
        }
        Ok(())
    });
    listening.recv().context("the listener ended")?;
    let target = SocketAddr::from((address, ECHO_PORT));
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < Duration::from_secs(SECONDS) {
        let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(2))?;
        stream.write_all(b"x")?;
        ensure!(stream.read(&mut [0])? == 1, "no echo");
        count += 1;
    }
    let rate = f64::from(count) / begun.elapsed().as_secs_f64();
    drop(stop);
    let _ = TcpStream::connect_timeout(&target, Duration::from_secs(2));
    server.join().map_err(|_| anyhow::anyhow!("the listener failed"))??;
    Ok(rate)
}
