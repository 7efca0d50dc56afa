//! A process in a running container through the API, beside `runc exec` alone in the same container.

use super::{bare::checked, table};
use crate::measure::Times;
use anyhow::Result;
use hoody_tests::{api::Api, cluster::Cluster};
use serde_json::json;
use std::{process::Command, time::Instant};

const ROUNDS: usize = 40;

pub(super) async fn run(cluster: &Cluster, api: &Api) -> Result<()> {
    let project = api.project("bench-exec").await?;
    let id = api.container(&project, "busybox", json!({ "name": "exec", "autostart": true })).await?;
    let path = format!("/api/v1/containers/{id}");
    let state = cluster.servers[0].run_dir().join("runtime/runtime");
    let mut times: [Times; 2] = Default::default();
    let [platform, runc] = &mut times;
    // Interleaved, so that whatever else the machine does meets both alike.
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        api.post(&format!("{path}/exec"), json!({ "argv": ["/bin/true"] })).await?.data()?;
        platform.push(begun.elapsed());
        let begun = Instant::now();
        checked(Command::new("runc").arg("--root").arg(&state).args(["exec", &id, "/bin/true"]))?;
        runc.push(begun.elapsed());
    }
    api.delete(&path, None).await?.data()?;
    table::part(&format!("a process in a running container, {ROUNDS} rounds"));
    table::head();
    table::times("exec of true, until its end is answered", platform, Some(("bare runc exec", &*runc)));
    table::times("bare runc exec of true", runc, None);
    Ok(())
}
