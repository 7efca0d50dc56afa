//! From create to delete, and nothing left.

use crate::harness::{Node, PATIENCE, until};
use hoody_agent::runtime::{Process, Runtime, RuntimeError};

#[tokio::test]
async fn a_container_lives_from_create_to_delete_and_leaves_nothing() {
    let node = Node::new();
    let bundle = node.bundle(&["/bin/probe", "term", "7"]);
    let id = bundle.id;
    assert_eq!(node.runtime.state(id).await.unwrap(), Process::Absent);
    let pid = node.runtime.create(&bundle).await.unwrap();
    assert_eq!(node.runtime.state(id).await.unwrap(), Process::Created { pid });
    assert_eq!(node.runtime.create(&bundle).await.unwrap(), pid, "create is idempotent");
    node.runtime.start(id).await.unwrap();
    node.runtime.start(id).await.unwrap();
    assert_eq!(node.runtime.state(id).await.unwrap(), Process::Running { pid });
    assert_eq!(node.runtime.create(&bundle).await.unwrap(), pid);
    assert_eq!(node.runtime.inventory().await.unwrap(), [id]);
    until("the program is ready", || node.log(id).contains("ready"));
    node.runtime.signal_stop(id, false).await.unwrap();
    tokio::time::timeout(PATIENCE, node.runtime.wait(id)).await.unwrap().unwrap();
    assert_eq!(node.runtime.state(id).await.unwrap(), Process::Exited { code: Some(7), oom_killed: false });
    assert!(matches!(node.runtime.start(id).await, Err(RuntimeError::State { .. })));
    node.runtime.delete(id).await.unwrap();
    assert_eq!(node.traces(), Vec::<String>::new());
    assert_eq!(node.runtime.state(id).await.unwrap(), Process::Absent);
    node.runtime.delete(id).await.unwrap();
    node.runtime.wait(id).await.unwrap();
}

#[tokio::test]
async fn a_first_process_that_does_not_listen_is_killed_by_force() {
    let node = Node::new();
    let bundle = node.bundle(&["/bin/probe", "deaf"]);
    let id = bundle.id;
    let pid = node.run(&bundle).await;
    until("the program is ready", || node.log(id).contains("ready"));
    node.runtime.signal_stop(id, false).await.unwrap();
    assert_eq!(node.runtime.state(id).await.unwrap(), Process::Running { pid });
    node.runtime.signal_stop(id, true).await.unwrap();
    tokio::time::timeout(PATIENCE, node.runtime.wait(id)).await.unwrap().unwrap();
    assert_eq!(node.runtime.state(id).await.unwrap(), Process::Exited { code: Some(137), oom_killed: false });
    node.runtime.signal_stop(id, true).await.unwrap();
}

#[tokio::test]
async fn the_images_stop_signal_is_sent() {
    let node = Node::new();
    let mut bundle =
        node.bundle(&["/bin/sh", "-c", "trap 'exit 9' USR1; echo ready; while :; do sleep 1 & wait $!; done"]);
    bundle.stop_signal = "SIGUSR1".into();
    node.run(&bundle).await;
    until("the program is ready", || node.log(bundle.id).contains("ready"));
    node.runtime.signal_stop(bundle.id, false).await.unwrap();
    tokio::time::timeout(PATIENCE, node.runtime.wait(bundle.id)).await.unwrap().unwrap();
    let state = node.runtime.state(bundle.id).await.unwrap();
    assert_eq!(state, Process::Exited { code: Some(9), oom_killed: false });
}

#[tokio::test]
async fn an_image_without_an_init_waits_and_reaps() {
    let node = Node::new();
    let bundle = node.bundle(&[]);
    let pid = node.run(&bundle).await;
    // The runtime's own init becomes the first process a moment after the start was answered.
    let command_line = format!("/proc/{pid}/cmdline");
    until("the init runs", || std::fs::read(&command_line).unwrap().starts_with(b"/dev/.init"));
    // An orphan inside becomes the init's child and is reaped by it.
    let request = crate::exec::request(&["/bin/sh", "-c", "sleep 0.05 & exit 0"]);
    assert!(node.runtime.exec(bundle.id, &request).await.unwrap().success());
    let group = node.cgroup("unified", bundle.id).join("cgroup.procs");
    until("the orphan is gone", || std::fs::read_to_string(&group).unwrap().trim() == pid.to_string());
    node.runtime.signal_stop(bundle.id, false).await.unwrap();
    tokio::time::timeout(PATIENCE, node.runtime.wait(bundle.id)).await.unwrap().unwrap();
    assert!(matches!(node.runtime.state(bundle.id).await.unwrap(), Process::Exited { .. }));
    assert!(!node.root().join("dev/.init").exists(), "the image is not touched");
}

#[tokio::test]
async fn what_is_running_is_deleted_too() {
    let node = Node::new();
    let bundle = node.bundle(&["/bin/probe", "deaf"]);
    node.run(&bundle).await;
    node.runtime.delete(bundle.id).await.unwrap();
    assert_eq!(node.traces(), Vec::<String>::new());
    // As is what was made and never started.
    node.runtime.create(&bundle).await.unwrap();
    node.runtime.delete(bundle.id).await.unwrap();
    assert_eq!(node.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn pause_freezes_and_resume_thaws() {
    let node = Node::new();
    let bundle = node.bundle(&["/bin/sh", "-c", "while :; do echo tick; sleep 0.01; done"]);
    let id = bundle.id;
    let pid = node.run(&bundle).await;
    assert!(matches!(
        node.runtime.pause(hoody_protocol::id::ContainerId::generate()).await,
        Err(RuntimeError::State { .. })
    ));
    until("it ticks", || node.log(id).contains("tick"));
    node.runtime.pause(id).await.unwrap();
    node.runtime.pause(id).await.unwrap();
    assert_eq!(node.runtime.state(id).await.unwrap(), Process::Paused { pid });
    let used = node.runtime.stats(id).await.unwrap().cpu_usage_ns.unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(node.runtime.stats(id).await.unwrap().cpu_usage_ns.unwrap(), used, "no processor time while frozen");
    node.runtime.resume(id).await.unwrap();
    node.runtime.resume(id).await.unwrap();
    assert_eq!(node.runtime.state(id).await.unwrap(), Process::Running { pid });
    node.runtime.pause(id).await.unwrap();
    node.runtime.signal_stop(id, true).await.unwrap();
    tokio::time::timeout(PATIENCE, node.runtime.wait(id)).await.unwrap().unwrap();
    node.runtime.delete(id).await.unwrap();
    // Delete thaws as well.
    node.run(&bundle).await;
    node.runtime.pause(id).await.unwrap();
    node.runtime.delete(id).await.unwrap();
    assert_eq!(node.traces(), Vec::<String>::new());
}
