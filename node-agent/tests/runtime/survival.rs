//! The agent is killed at each step; its successor goes on. The agent of these tests is this test
//! program itself, started again for [`agent`] alone.

use crate::harness::{Node, PATIENCE, until};
use hoody_agent::runtime::{Bundle, OciRuntime, Process, Runtime, RuntimeConfig};
use serde::{Deserialize, Serialize};
use std::{
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

const ORDER: &str = "HOODY_TEST_ORDER";

/// What the started agent is to do.
#[derive(Serialize, Deserialize)]
struct Order {
    config: RuntimeConfig,
    rootfs: String,
    first_id: u32,
    container: hoody_protocol::id::ContainerId,
    command: Vec<String>,
    /// Its own pid goes here, for who kills it.
    pid_file: String,
    /// Written when it has done all.
    done: String,
}

/// Creates and starts a container as ordered, then waits to be killed. Not a test.
#[test]
#[ignore = "the agent that other tests of this file start and kill"]
fn agent() {
    let order: Order = serde_json::from_str(&std::env::var(ORDER).unwrap()).unwrap();
    std::fs::write(&order.pid_file, std::process::id().to_string()).unwrap();
    let reactor = tokio::runtime::Runtime::new().unwrap();
    reactor.block_on(async {
        let runtime = OciRuntime::new(order.config.clone()).unwrap();
        let bundle = bundle(&order);
        runtime.create(&bundle).await.unwrap();
        runtime.start(bundle.id).await.unwrap();
        std::fs::write(&order.done, "").unwrap();
        std::future::pending::<()>().await
    });
}

fn bundle(order: &Order) -> Bundle {
    Bundle {
        id: order.container,
        rootfs: order.rootfs.clone().into(),
        ids: hoody_agent::storage::IdRange { first: order.first_id },
        hostname: "survivor".into(),
        command: order.command.clone(),
        env: Default::default(),
        workdir: String::new(),
        user: String::new(),
        stop_signal: String::new(),
        limits: hoody_protocol::container::Limits {
            cpu_millis: 1000,
            memory_bytes: 128 << 20,
            disk_bytes: 1 << 30,
            pids: 64,
            network_mbit: None,
        },
        dns: Vec::new(),
        kvm: false,
        shares: None,
        ramdisk: None,
    }
}

fn order(node: &Node, config: RuntimeConfig) -> Order {
    let text = |name: &str| node.path(name).to_str().unwrap().to_owned();
    Order {
        config,
        rootfs: node.root().to_str().unwrap().to_owned(),
        first_id: node.ids.first,
        container: hoody_protocol::id::ContainerId::generate(),
        command: vec!["/bin/probe".into(), "term".into(), "6".into()],
        pid_file: text("agent.pid"),
        done: text("done"),
    }
}

/// Runs an agent until it is killed: by `order`'s programs, or by this once it has done all.
fn run_and_kill(order: &Order) -> ExitStatus {
    let mut agent = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "survival::agent", "--nocapture"])
        .env(ORDER, serde_json::to_string(order).unwrap())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut status = None;
    until("the agent is done or killed", || {
        status = agent.try_wait().unwrap();
        status.is_some() || Path::new(&order.done).exists()
    });
    status.unwrap_or_else(|| {
        agent.kill().unwrap();
        agent.wait().unwrap()
    })
}

/// A program that stands in for one of the agent's, and kills the agent around its call.
fn script(node: &Node, name: &str, text: &str) -> std::path::PathBuf {
    let path = node.path(name);
    let kill = format!("kill -9 $(cat {})", node.path("agent.pid").display());
    std::fs::write(&path, format!("#!/bin/sh\n{}\n", text.replace("KILL", &kill))).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The successor brings the container up, stops it, and leaves nothing.
async fn successor_goes_on(node: &Node, order: &Order) {
    let id = order.container;
    let runtime = OciRuntime::new(node.config.clone()).unwrap();
    let pid = runtime.create(&bundle(order)).await.unwrap();
    runtime.start(id).await.unwrap();
    assert_eq!(runtime.state(id).await.unwrap(), Process::Running { pid });
    until("the program is ready", || node.log(id).contains("ready"));
    runtime.signal_stop(id, false).await.unwrap();
    tokio::time::timeout(PATIENCE, runtime.wait(id)).await.unwrap().unwrap();
    assert_eq!(runtime.state(id).await.unwrap(), Process::Exited { code: Some(6), oom_killed: false });
    runtime.delete(id).await.unwrap();
    assert_eq!(node.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn a_container_survives_its_agent_and_is_adopted() {
    let node = Node::new();
    let order = order(&node, node.config.clone());
    let id = order.container;
    assert_eq!(run_and_kill(&order).signal(), Some(libc::SIGKILL));
    let runtime = OciRuntime::new(node.config.clone()).unwrap();
    let Process::Running { pid } = runtime.state(id).await.unwrap() else { panic!("it runs on") };
    assert_eq!(runtime.create(&bundle(&order)).await.unwrap(), pid);
    // The end comes while one waits, and once more after another restart.
    let waiting = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.wait(id).await }
    });
    until("the program is ready", || node.log(id).contains("ready"));
    runtime.signal_stop(id, false).await.unwrap();
    tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    let third = OciRuntime::new(node.config.clone()).unwrap();
    assert_eq!(third.state(id).await.unwrap(), Process::Exited { code: Some(6), oom_killed: false });
    third.delete(id).await.unwrap();
    assert_eq!(node.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn killed_before_conmon_runs() {
    let node = Node::new();
    let mut config = node.config.clone();
    config.conmon = script(&node, "conmon", "KILL");
    let order = order(&node, config);
    assert_eq!(run_and_kill(&order).signal(), Some(libc::SIGKILL));
    assert_eq!(node.runtime.state(order.container).await.unwrap(), Process::Absent);
    assert_eq!(node.runtime.inventory().await.unwrap(), [order.container]);
    successor_goes_on(&node, &order).await;
}

#[tokio::test]
async fn killed_while_the_runtime_is_about_to_create() {
    let node = Node::new();
    let mut config = node.config.clone();
    config.program = script(&node, "runtime", "KILL; sleep 1000");
    let order = order(&node, config);
    assert_eq!(run_and_kill(&order).signal(), Some(libc::SIGKILL));
    successor_goes_on(&node, &order).await;
}

#[tokio::test]
async fn killed_after_create_before_the_answer_is_read() {
    let node = Node::new();
    let mut config = node.config.clone();
    // The answer reaches conmon after the agent's end.
    config.program = script(&node, "runtime", "/usr/sbin/runc \"$@\"; code=$?; KILL; exit $code");
    let order = order(&node, config);
    assert_eq!(run_and_kill(&order).signal(), Some(libc::SIGKILL));
    assert_eq!(node.runtime.state(order.container).await.unwrap(), Process::Absent, "never started");
    successor_goes_on(&node, &order).await;
}

/// The agent reads runc's start pipe itself; the window between that and the pipe's removal.
#[tokio::test]
async fn killed_after_the_start_pipe_was_read() {
    let node = Node::new();
    let order = order(&node, node.config.clone());
    let pid = node.runtime.create(&bundle(&order)).await.unwrap();
    let pipe = node.config.run_dir.join(format!("runtime/{}/exec.fifo", order.container));
    assert_eq!(std::fs::read(&pipe).unwrap(), b"0", "the byte that says that the first process goes on");
    let line = format!("/proc/{pid}/cmdline");
    until("the program runs", || std::fs::read(&line).unwrap().starts_with(b"/dev/.init"));
    assert!(pipe.exists());
    successor_goes_on(&node, &order).await;
}

/// Through the runtime program: one with another name than runc is asked to start.
#[tokio::test]
async fn killed_before_and_after_start() {
    for text in [
        "case \"$*\" in *start*) KILL; exit 1;; *) exec /usr/sbin/runc \"$@\";; esac",
        "case \"$*\" in *start*) /usr/sbin/runc \"$@\"; KILL;; *) exec /usr/sbin/runc \"$@\";; esac",
    ] {
        let node = Node::new();
        let mut config = node.config.clone();
        config.program = script(&node, "runtime", text);
        let order = order(&node, config);
        assert_eq!(run_and_kill(&order).signal(), Some(libc::SIGKILL));
        let state = node.runtime.state(order.container).await.unwrap();
        match text.contains("exit 1") {
            true => assert!(matches!(state, Process::Created { .. }), "{state:?}"),
            false => assert!(matches!(state, Process::Running { .. }), "{state:?}"),
        }
        successor_goes_on(&node, &order).await;
    }
}
