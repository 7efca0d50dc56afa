//! How long a firewall rule takes from the request to the first packet that it stops, with few and many
//! rules and containers on the node. Also the memory of many containers.

use super::{crowd, resident, table, traffic};
use crate::measure::Times;
use anyhow::{Context, Result, ensure};
use hoody_tests::{api::Api, cluster::Cluster, probe};
use nix::sched::{CloneFlags, setns};
use serde_json::json;
use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const ROUNDS: usize = 20;
const CONTAINERS: usize = 200;
/// Rules on the node in the end.
const RULES: usize = 1000;
/// Rules of one container.
const RULES_EACH: usize = 20;
const PORT: u16 = 7007;
/// Pause between two packets: how exactly the moment is known.
const PACKET_PAUSE: Duration = Duration::from_micros(200);

pub(super) async fn run(cluster: &Cluster, api: &Api) -> Result<()> {
    crowd::make_room(cluster).await?;
    let mut ids = crowd::grow(api, "few", 10).await?;
    resident(cluster, "10 containers")?;
    let target = ids[0].clone();
    let address = probe::address(&cluster.servers[0], &target)?;
    echo(cluster, &target)?;
    table::part("firewall rule, request to the first packet stopped");
    table::head();
    measure(api, &target, address, "10 containers, 1 rule").await?;
    ids.extend(crowd::grow(api, "many", CONTAINERS / 2 - ids.len()).await?);
    resident(cluster, "100 containers")?;
    ids.extend(crowd::grow(api, "more", CONTAINERS / 2).await?);
    resident(cluster, "200 containers")?;
    measure(api, &target, address, "200 containers, 1 rule").await?;
    for id in ids[1..].iter().take(RULES / RULES_EACH) {
        for number in 0..RULES_EACH {
            let rule = json!({ "action": "drop", "protocol": "tcp", "port": 10_000 + number });
            api.post(&format!("/api/v1/containers/{id}/firewall/ingress"), rule).await?.data()?;
        }
    }
    measure(api, &target, address, &format!("200 containers, {RULES} rules")).await?;
    resident(cluster, "200 containers, 1000 rules")
}

/// An echo service in the container's network, until the container is gone or this program ends.
fn echo(cluster: &Cluster, container: &str) -> Result<()> {
    let namespace = File::open(format!("/proc/{}/ns/net", traffic::first_pid(cluster, container)?))?;
    let (ready, listening) = std::sync::mpsc::channel();
    std::thread::spawn(move || -> Result<()> {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
        ready.send(())?;
        let mut packet = [0; 64];
        loop {
            let (count, from) = socket.recv_from(&mut packet)?;
            // An answer that cannot be sent is a packet that does not come back.
            let _ = socket.send_to(&packet[..count], from);
        }
    });
    listening.recv().context("the echo service ended")
}

async fn measure(api: &Api, container: &str, address: Ipv4Addr, what: &str) -> Result<()> {
    let path = format!("/api/v1/containers/{container}/firewall/ingress");
    let (mut answered, mut enforced) = (Times::default(), Times::default());
    for _ in 0..ROUNDS {
        let stop = Arc::new(AtomicBool::new(false));
        let prober = {
            let stop = stop.clone();
            tokio::task::spawn_blocking(move || probe_until((address, PORT).into(), &stop))
        };
        // The first answers show that packets go through.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let rule = json!({ "action": "drop", "protocol": "udp", "port": PORT });
        let begun = Instant::now();
        api.post(&path, rule.clone()).await?.data()?;
        answered.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(30)).await;
        stop.store(true, Ordering::Relaxed);
        let last = prober.await??.context("no packet came through before the rule")?;
        ensure!(last >= begun, "packets had stopped before the rule was asked for");
        enforced.push(last - begun);
        api.delete(&path, Some(rule)).await?.data()?;
    }
    table::times(&format!("{what}: enforced"), &enforced, None);
    table::times(&format!("{what}: answered"), &answered, None);
    Ok(())
}

/// Sends packets and reads their echoes; when the last one that was answered had been sent.
fn probe_until(target: SocketAddr, stop: &AtomicBool) -> Result<Option<Instant>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(target)?;
    socket.set_nonblocking(true)?;
    let mut sent: Vec<Instant> = Vec::new();
    let mut last = None;
    let mut echo = [0; 8];
    while !stop.load(Ordering::Relaxed) {
        let number = sent.len() as u64;
        sent.push(Instant::now());
        // A full queue or a refusal is a packet that does not come back.
        let _ = socket.send(&number.to_be_bytes());
        std::thread::sleep(PACKET_PAUSE);
        while let Ok(count) = socket.recv(&mut echo) {
            if count == echo.len() {
                last = last.max(sent.get(u64::from_be_bytes(echo) as usize).copied());
            }
        }
    }
    Ok(last)
}
