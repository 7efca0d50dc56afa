//! Faults of the link and of identity, with the real programs: partitions and lost packets, copied servers,
//! clocks, certificates and their authority, and a control plane restored from an older backup.

mod identity;
mod partition;
mod restore;

use serde_json::{Value, json};
use std::time::Duration;

/// Longest wait for anything to come about.
const DEADLINE: Duration = Duration::from_secs(60);

/// Small enough for many on one machine.
fn small(name: &str) -> Value {
    json!({ "name": name, "specs": { "cpu_cores": 0.2, "memory_mb": 48, "storage_mb": 64 } })
}

/// When the container's first process began, as the kernel counts.
fn first_process(server: &hoody_tests::cluster::Server, container: &str) -> anyhow::Result<String> {
    server.exec(container, &["sh", "-c", "cut -d' ' -f22 /proc/1/stat"])
}
