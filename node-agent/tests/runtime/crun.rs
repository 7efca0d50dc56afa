//! Another runtime, where it must not be used. `make test-cgroup2` runs much of this suite with it where it may.

use crate::harness::Node;
use hoody_agent::runtime::{OciRuntime, RuntimeError};
use std::path::Path;

/// It is there where cgroup v2 has a place of its own beside v1.
const BESIDE_V1: &str = "/sys/fs/cgroup/unified";

#[tokio::test]
async fn crun_is_refused_where_it_would_run_processes_outside_of_their_limits() {
    let mut node = Node::new();
    node.config.program = "/usr/bin/crun".into();
    let made = OciRuntime::new(node.config.clone());
    match Path::new(BESIDE_V1).exists() {
        true => assert!(matches!(made, Err(RuntimeError::Config { .. })), "{made:?}"),
        false => assert!(made.is_ok(), "{made:?}"),
    }
}
