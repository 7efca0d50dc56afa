//! The real program's `doctor` on a throwaway server.
#![allow(clippy::unwrap_used, reason = "a panic is the message of a test")]

mod support;

use serde_json::Value;
use std::{path::Path, process::Command};
use support::ScratchPool;

/// A configuration in the scratch folder, with more lines at its end.
fn configure(scratch: &ScratchPool, more: &str) -> std::path::PathBuf {
    let path = scratch.path("agent.toml");
    let folder = |name| scratch.path(name).display().to_string();
    let text = format!(
        "state_dir = '{}'\nrun_dir = '{}'\npool = '{}'\nnft_table = 'hoody_doctor'\ncgroup_parent = 'hoody-doctor'\n{more}\n",
        folder("state"),
        folder("run"),
        scratch.pool().display(),
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn doctor(config: &Path) -> (i32, Vec<Value>) {
    let output = Command::new(env!("CARGO_BIN_EXE_hoody-agent"))
        .args(["--config", config.to_str().unwrap(), "doctor", "--json"])
        .output()
        .unwrap();
    let checks = serde_json::from_slice(&output.stdout);
    (output.status.code().unwrap(), checks.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))))
}

fn check<'a>(checks: &'a [Value], group: &str, name: &str) -> &'a Value {
    let found = checks.iter().find(|check| check["group"] == group && check["name"] == name);
    found.unwrap_or_else(|| panic!("no check {group}/{name} in {checks:#?}"))
}

#[test]
fn a_server_that_has_everything_passes_and_nothing_is_left_behind() {
    let scratch = ScratchPool::new();
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap().matches("doctor-").count();
    let (code, checks) = doctor(&configure(&scratch, ""));
    let failed: Vec<_> = checks.iter().filter(|check| check["status"] == "failed").collect();
    assert!(failed.is_empty() && code == 0, "{failed:#?}");
    for (group, name) in [
        ("programs", "runtime"),
        ("programs", "conmon"),
        ("programs", "init"),
        ("kernel", "user namespaces"),
        ("kernel", "idmapped mounts"),
        ("kernel", "btrfs quotas"),
        ("network", "nf_tables"),
        ("network", "veth"),
        ("folders", "pool"),
        ("time", "clock"),
    ] {
        assert_eq!(check(&checks, group, name)["status"], "ok", "{group}/{name}");
    }
    assert!(check(&checks, "control plane", "reachable")["found"].as_str().unwrap().starts_with("skipped"));
    assert_eq!(mounts(), 0);
    let tables = support::run("nft", ["list", "tables"]);
    assert!(!tables.contains("hoody_doctor"), "the trial stays in its own network: {tables}");
}

#[test]
fn a_missing_program_is_named_with_its_fix() {
    let scratch = ScratchPool::new();
    let (code, checks) = doctor(&configure(&scratch, "runtime = '/nowhere/runc'"));
    assert_eq!(code, 1);
    let runtime = check(&checks, "programs", "runtime");
    assert_eq!(runtime["status"], "failed");
    assert_eq!(runtime["found"], "/nowhere/runc is missing");
    assert!(runtime["fix"].as_str().unwrap().contains("apt-get install runc"));
    assert_eq!(check(&checks, "programs", "conmon")["status"], "ok", "the others are checked all the same");
}

#[test]
fn a_pool_without_nodev_is_a_warning_and_one_that_is_not_btrfs_a_failure() {
    let scratch = ScratchPool::with_options("nosuid,dev");
    let (code, checks) = doctor(&configure(&scratch, ""));
    assert_eq!((code, &check(&checks, "folders", "pool")["status"]), (0, &Value::from("warning")));
    let config = configure(&scratch, "");
    let text = std::fs::read_to_string(&config).unwrap();
    let elsewhere = text.replace(&format!("pool = '{}'", scratch.pool().display()), "pool = '/proc'");
    std::fs::write(&config, elsewhere).unwrap();
    let (code, checks) = doctor(&config);
    assert_eq!((code, &check(&checks, "folders", "pool")["status"]), (1, &Value::from("failed")));
}

#[test]
fn an_unusable_configuration_is_a_finding() {
    let (code, checks) = doctor(Path::new("/nowhere/agent.toml"));
    assert_eq!(code, 1);
    let file = check(&checks, "configuration", "file");
    assert!(file["status"] == "failed" && file["fix"].as_str().unwrap().contains("/nowhere/agent.toml"));
}
