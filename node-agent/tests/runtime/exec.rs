//! Further processes in a running container.

use crate::harness::{Node, until};
use hoody_agent::runtime::{ExecRequest, Runtime, RuntimeError};
use std::time::Duration;

pub(crate) fn request(argv: &[&str]) -> ExecRequest {
    ExecRequest { argv: argv.iter().map(|&text| text.into()).collect(), ..Default::default() }
}

#[tokio::test]
async fn exec_runs_inside_and_returns_the_exit_code() {
    let node = Node::new();
    let mut bundle = node.bundle(&[]);
    bundle.env.insert("FROM".into(), "spec".into());
    node.run(&bundle).await;
    let script = "test \"$FROM-$MORE\" = spec-exec && test $(pwd) = /tmp && test $(id -u) = 0 && test $(hostname) = probe-1 && exit 5";
    let mut request = request(&["/bin/sh", "-c", script]);
    request.env.insert("MORE".into(), "exec".into());
    request.cwd = "/tmp".into();
    assert_eq!(node.runtime.exec(bundle.id, &request).await.unwrap().code(), Some(5));
    assert!(matches!(node.runtime.exec(bundle.id, &self::request(&[""])).await, Err(RuntimeError::Bundle { .. })));
    node.runtime.delete(bundle.id).await.unwrap();
    assert!(matches!(node.runtime.exec(bundle.id, &request).await, Err(RuntimeError::State { .. })));
    assert_eq!(node.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn a_detached_process_goes_on_and_leaves_no_zombie() {
    let node = Node::new();
    let bundle = node.bundle(&[]);
    node.run(&bundle).await;
    let mut request = request(&["/bin/sh", "-c", "sleep 0.3; touch /tmp/done"]);
    request.detach = true;
    assert!(node.runtime.exec(bundle.id, &request).await.unwrap().success());
    assert!(!node.root().join("tmp/done").exists());
    until("it did its work", || node.root().join("tmp/done").exists());
    let own = std::process::id().to_string();
    let zombies = || {
        let stats = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path().join("stat")).ok());
        let fields = stats.map(|stat| {
            stat.rsplit(')').next().unwrap().split_ascii_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
        });
        fields.filter(|fields| fields[0] == "Z" && fields[1] == own).count()
    };
    until("no zombie of ours stays", || zombies() == 0);
}

#[tokio::test]
async fn a_process_that_takes_too_long_is_killed_inside() {
    let node = Node::new();
    let bundle = node.bundle(&[]);
    let pid = node.run(&bundle).await;
    let request = ExecRequest { limit: Some(Duration::from_millis(500)), ..request(&["/bin/sleep", "1000"]) };
    let error = node.runtime.exec(bundle.id, &request).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Deadline { .. }), "{error}");
    let group = node.cgroup("unified", bundle.id).join("cgroup.procs");
    until("only the first process is left", || std::fs::read_to_string(&group).unwrap().trim() == pid.to_string());
}
