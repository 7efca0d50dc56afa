//! A container of an image that is nowhere yet, pulled from a registry on loopback and unpacked, beside what `skopeo
//! copy` and `umoci unpack` take for the same image from the same registry.

use super::table;
use crate::measure::Times;
use anyhow::Result;
use hoody_tests::{
    cluster::{Cluster, Plan, run},
    image,
    registry::Registry,
};
use rand::Rng;
use serde_json::json;
use std::{process::Command, time::Instant};

const ROUNDS: usize = 5;
/// Bytes of a layer beside the root file system's, which is some 60 MB compressed; hard to compress, and of this
/// round alone.
const FILLER_BYTES: usize = 50 << 20;

pub(super) async fn run_part() -> Result<()> {
    let registry = Registry::start().await?;
    let mut settings = registry.settings();
    settings.push(("HOODY_CONTAINER_NETWORK_MBIT", "0".to_owned()));
    let cluster = Cluster::start(Plan { settings, ..Plan::default() }).await?;
    let api = cluster.tenant.unchecked();
    let project = api.project("pull").await?;
    let root = registry.folder().join("debian");
    std::fs::create_dir(&root)?;
    run(Command::new("tar").arg("-C").arg(&root).args(["--zstd", "-xpf"]).arg(image::archive("debian/12")?))?;
    let (mut ours, mut peers) = (Times::default(), Times::default());
    for round in 0..ROUNDS {
        let layout = registry.layout(&format!("layout-{round}"))?;
        // A file of the round makes the first layer another one, too.
        std::fs::write(root.join("round"), round.to_string())?;
        layout.layer(|target| run(Command::new("cp").arg("-a").arg(root.join(".")).arg(target)).map(drop))?;
        for part in ["one", "two"] {
            let mut bytes = vec![0; FILLER_BYTES];
            rand::rng().fill_bytes(&mut bytes);
            layout.layer(|target| Ok(std::fs::write(target.join("opt").join(part), bytes)?))?;
        }
        let reference = registry.push(&layout, &format!("bench:v{round}"), &[])?;
        // Who is first finds the registry's files in memory as the other does: they were just written.
        let ours_first = round % 2 == 0;
        if !ours_first {
            let begun = Instant::now();
            registry.unpack(&reference)?;
            peers.push(begun.elapsed());
        }
        let begun = Instant::now();
        let container = api.container(&project, &reference, json!({ "name": format!("round-{round}") })).await?;
        ours.push(begun.elapsed());
        // A server promises no more processors than it has.
        api.delete(&format!("/api/v1/containers/{container}"), None).await?.data()?;
        if ours_first {
            let begun = Instant::now();
            registry.unpack(&reference)?;
            peers.push(begun.elapsed());
        }
    }
    table::part(&format!("an image of some 160 MB from a registry on this machine, {ROUNDS} rounds"));
    table::head();
    table::times("create, until its root file system is there", &ours, Some(("skopeo + umoci", &peers)));
    table::times("skopeo copy + umoci unpack", &peers, None);
    Ok(())
}
