//! What a container notices of another one that takes all it can get of something.

use super::{crowd, table};
use crate::measure::Times;
use anyhow::{Context, Result};
use hoody_tests::{api::Api, cluster::Cluster, probe};
use serde_json::json;
use std::time::{Duration, Instant};

/// Requests a measurement.
const REQUESTS: usize = 300;
const REQUEST_PAUSE: Duration = Duration::from_millis(5);
/// Time for a load to get going.
const SETTLE: Duration = Duration::from_secs(2);
const PORT: u16 = 8000;

/// Loads of one kind each, as shell scripts; each goes on until its container is stopped.
const LOADS: [(&str, &str); 5] = [
    ("processor", "while :; do :; done & while :; do :; done & while :; do :; done & wait"),
    ("memory", "while :; do tail -c 400m /dev/zero >/dev/null; done"),
    ("forks", "while :; do (sleep 1 & sleep 1 & sleep 1 & sleep 1 &) 2>/dev/null; done"),
    ("network", "while :; do dd if=/dev/zero bs=1400 count=20000 2>/dev/null | nc -u -w 1 {host} 9; done"),
    ("disk", "while :; do dd if=/dev/zero of=/load bs=1M count=64 conv=fsync 2>/dev/null; rm -f /load; done"),
];

pub(super) async fn run(cluster: &Cluster, api: &Api) -> Result<()> {
    crowd::make_room(cluster).await?;
    let ids = crowd::grow(api, "neighbours", 2).await?;
    let [quiet, noisy] = ids.as_slice() else { anyhow::bail!("two containers") };
    let server = &cluster.servers[0];
    let web = probe::web(server, quiet, PORT, "page")?;
    table::part("a neighbour's HTTP request while a container takes all it can");
    table::head();
    let calm = requests(&web).await?;
    table::times("calm", &calm, None);
    let host = host_of(&server.address.to_string())?;
    for (what, script) in LOADS {
        server.exec_detached(noisy, &["sh", "-c", &script.replace("{host}", &host)])?;
        tokio::time::sleep(SETTLE).await;
        let loaded = requests(&web).await?;
        table::times(&format!("under load: {what}"), &loaded, Some(("calm", &calm)));
        for operation in ["force-stop", "start"] {
            api.post(&format!("/api/v1/containers/{noisy}/{operation}"), json!({})).await?.data()?;
        }
        api.wait_status(noisy, "running").await?;
    }
    for id in [quiet, noisy] {
        api.delete(&format!("/api/v1/containers/{id}"), None).await?.data()?;
    }
    Ok(())
}

/// Our end of the server's uplink: the address before the server's.
fn host_of(server: &str) -> Result<String> {
    let (network, last) = server.rsplit_once('.').context("an IPv4 address")?;
    Ok(format!("{network}.{}", last.parse::<u8>()? - 1))
}

async fn requests(web: &probe::Web) -> Result<Times> {
    let web = web.clone();
    tokio::task::spawn_blocking(move || {
        let mut times = Times::default();
        for _ in 0..REQUESTS {
            let begun = Instant::now();
            // One that is lost counts with the time after which it was given up.
            let _ = probe::fetch(&web);
            times.push(begun.elapsed());
            std::thread::sleep(REQUEST_PAUSE);
        }
        Ok(times)
    })
    .await?
}
