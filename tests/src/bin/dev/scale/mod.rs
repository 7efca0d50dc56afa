//! `dev bench-scale`: thousands of simulated agents on one control plane. Connections, reports, commands
//! and the API are real; servers enrol through the API, containers are copied in the database.

mod load;
mod seed;

use crate::measure::{Usage, memory, profile};
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{Cluster, Plan},
    ports::Port,
    simulated::Fleet,
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// AGENTS=… sets another number.
const AGENTS: usize = 10_000;
/// Containers of one agent.
const CONTAINERS: usize = 10;
/// Pause between reports of an agent.
const REPORT_INTERVAL: &str = "10s";
/// How long agents report before and while something is measured.
const SETTLE: Duration = Duration::from_secs(15);
const MEASURE: Duration = Duration::from_secs(30);
/// The time agents get to come back. The bar is a minute; how far over it is worth knowing.
const BACK_DEADLINE: Duration = Duration::from_secs(300);

pub(super) async fn run() -> Result<()> {
    let agents = std::env::var("AGENTS").ok().map_or(Ok(AGENTS), |agents| agents.parse()).context("AGENTS")?;
    ensure!(agents > 0, "AGENTS is at least 1");
    let port = Port::take()?;
    let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
    let settings =
        vec![("HOODY_HEARTBEAT_INTERVAL", REPORT_INTERVAL.to_owned()), ("HOODY_METRICS_ADDRESS", metrics.to_string())];
    let mut cluster = Cluster::start(Plan { servers: 0, settings, ..Plan::default() }).await?;
    println!("{agents} simulated agents, {CONTAINERS} containers each, {} build", profile());
    let idle = memory(pid(&cluster)?)?.0;
    row("control plane without agents", &format!("{idle:.0} MiB"));

    let mut fleet = Fleet::new((Ipv4Addr::LOCALHOST, cluster.control_plane.node_port()).into())?;
    let begun = Instant::now();
    let enrolled = seed::agents(&cluster, &fleet, agents).await?;
    row("servers made and enrolled", &format!("{:.1} s", begun.elapsed().as_secs_f64()));
    let begun = Instant::now();
    fleet.keep(enrolled[0].clone());
    ensure!(fleet.all_up(begun + BACK_DEADLINE).await, "the first agent does not come up");
    let containers = seed::containers(&cluster, &enrolled, CONTAINERS).await?;
    row("containers made", &format!("{:.1} s", begun.elapsed().as_secs_f64()));

    let begun = Instant::now();
    let before = Usage::of(pid(&cluster)?)?;
    enrolled[1..].iter().for_each(|agent| fleet.keep(Arc::clone(agent)));
    back(&fleet, begun, "all agents connected, all at once").await;
    row("  cores meanwhile", &format!("{:.2}", Usage::of(pid(&cluster)?)?.cores_since(&before)));
    tokio::time::sleep(SETTLE).await;

    let before = Usage::of(pid(&cluster)?)?;
    tokio::time::sleep(MEASURE).await;
    row("cores, reports alone", &format!("{:.2}", Usage::of(pid(&cluster)?)?.cores_since(&before)));
    let before = Usage::of(pid(&cluster)?)?;
    let measured = load::run(&cluster, &containers, MEASURE).await?;
    row("cores, reports and load", &format!("{:.2}", Usage::of(pid(&cluster)?)?.cores_since(&before)));
    for (what, times) in measured {
        let (p50, p99) = (times.percentile(50.0), times.percentile(99.0));
        row(what, &format!("p50 {p50:.1} ms, p99 {p99:.1} ms ({} of them)", times.len()));
    }
    let (now, most) = memory(pid(&cluster)?)?;
    row("control plane's memory", &format!("{now:.0} MiB, at most {most:.0} MiB"));
    row("  per link", &format!("{:.1} KiB", (now - idle) * 1024.0 / agents as f64));

    for (what, kill) in [("restarted in order", false), ("killed and started", true)] {
        let counts = fleet.counts();
        if kill {
            cluster.control_plane.kill()?
        } else {
            cluster.control_plane.stop()?
        }
        let begun = Instant::now();
        cluster.control_plane.start().await?;
        row(&format!("{what}: ready again"), &format!("{:.1} s", begun.elapsed().as_secs_f64()));
        back(&fleet, begun, "  all agents back").await;
        let now = fleet.counts();
        let refused = seed::counter(metrics, "hoody_node_connections_refused_total").await?;
        let failed = (now.not_connected - counts.not_connected, now.not_accepted - counts.not_accepted);
        let accepted = now.accepted - counts.accepted;
        let text = format!("{accepted} / {refused} by the listener, {} not connected, {} no hello", failed.0, failed.1);
        row("  accepted / refused", &text);
        let most = memory(pid(&cluster)?)?.1;
        row("  memory at most", &format!("{most:.0} MiB"));
        tokio::time::sleep(SETTLE).await;
    }
    Ok(())
}

fn pid(cluster: &Cluster) -> Result<i32> {
    cluster.control_plane.pid().context("the control plane runs")
}

fn row(what: &str, value: &str) {
    println!("{what:<40} {value}");
}

/// Waits until every agent's link is up.
async fn back(fleet: &Fleet, begun: Instant, what: &str) {
    let all = fleet.all_up(begun + BACK_DEADLINE).await;
    let counts = fleet.counts();
    let text = format!("{:.1} s", begun.elapsed().as_secs_f64());
    row(what, &if all { text } else { format!("NOT within {text}: {counts:?}") });
}
