//! What is missing, broken or killed under the agent's feet.

use crate::harness::{Node, PATIENCE, until};
use hoody_agent::runtime::{OciRuntime, Process, Runtime, RuntimeError};
use std::os::unix::fs::PermissionsExt;

#[tokio::test]
async fn missing_programs_are_named() {
    let node = Node::new();
    let bundle = node.bundle(&["/bin/true"]);
    for change in [
        (|config| config.program = "/nonexistent/runtime".into()) as fn(&mut hoody_agent::runtime::RuntimeConfig),
        |config| config.conmon = "no-such-conmon".into(),
        |config| config.init = "/nonexistent/init".into(),
    ] {
        let mut config = node.config.clone();
        change(&mut config);
        let error = OciRuntime::new(config).unwrap().create(&bundle).await.unwrap_err();
        assert!(matches!(error, RuntimeError::Program { .. }), "{error}");
        assert_eq!(node.traces(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_the_runtime_says_reaches_the_error_and_nothing_stays() {
    let node = Node::new();
    let mut bundle = node.bundle(&["/sbin/init"]);
    // The image's init, and not a program: the runtime cannot execute it.
    let init = node.root().join("sbin/init");
    std::fs::write(&init, "").unwrap();
    std::fs::set_permissions(&init, std::fs::Permissions::from_mode(0o755)).unwrap();
    bundle.workdir = "/etc/passwd".into();
    let error = node.runtime.create(&bundle).await.unwrap_err();
    assert!(matches!(&error, RuntimeError::Failed { message, .. } if message.contains("passwd")), "{error}");
    assert_eq!(node.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn a_killed_conmon_costs_the_exit_code_and_nothing_else() {
    let node = Node::new();
    let bundle = node.bundle(&["/bin/probe", "term", "4"]);
    let pid = node.run(&bundle).await;
    until("the program is ready", || node.log(bundle.id).contains("ready"));
    let conmon =
        std::fs::read_to_string(node.config.run_dir.join(format!("containers/{}/conmon.pid", bundle.id))).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(conmon.trim().parse().unwrap()), nix::sys::signal::SIGKILL)
        .unwrap();
    assert_eq!(node.runtime.state(bundle.id).await.unwrap(), Process::Running { pid });
    node.runtime.signal_stop(bundle.id, false).await.unwrap();
    tokio::time::timeout(PATIENCE, node.runtime.wait(bundle.id)).await.unwrap().unwrap();
    let state = node.runtime.state(bundle.id).await.unwrap();
    assert_eq!(state, Process::Exited { code: None, oom_killed: false });
    node.runtime.delete(bundle.id).await.unwrap();
    assert_eq!(node.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn a_created_container_whose_conmon_died_is_made_anew() {
    let node = Node::new();
    let bundle = node.bundle(&["/bin/true"]);
    let before = node.runtime.create(&bundle).await.unwrap();
    let conmon =
        std::fs::read_to_string(node.config.run_dir.join(format!("containers/{}/conmon.pid", bundle.id))).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(conmon.trim().parse().unwrap()), nix::sys::signal::SIGKILL)
        .unwrap();
    until("conmon is gone", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", conmon.trim())).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    });
    let after = node.runtime.create(&bundle).await.unwrap();
    assert_ne!(before, after);
    node.runtime.start(bundle.id).await.unwrap();
    tokio::time::timeout(PATIENCE, node.runtime.wait(bundle.id)).await.unwrap().unwrap();
    let state = node.runtime.state(bundle.id).await.unwrap();
    assert_eq!(state, Process::Exited { code: Some(0), oom_killed: false });
}

#[tokio::test]
async fn an_unreadable_record_is_made_anew_and_does_not_stop_delete() {
    let node = Node::new();
    let bundle = node.bundle(&["/bin/probe", "deaf"]);
    let pid = node.run(&bundle).await;
    std::fs::write(node.config.run_dir.join(format!("containers/{}/record.json", bundle.id)), "{").unwrap();
    assert_eq!(node.runtime.state(bundle.id).await.unwrap(), Process::Running { pid });
    node.runtime.delete(bundle.id).await.unwrap();
    assert_eq!(node.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn hostile_values_are_refused_before_anything_is_made() {
    let node = Node::new();
    let good = node.bundle(&["/bin/true"]);
    let mut bad = vec![good.clone(); 5];
    bad[0].hostname = "a\n10.0.0.1 evil".into();
    bad[1].env.insert("A=B".into(), "c".into());
    bad[2].workdir = "relative".into();
    bad[3].limits.pids = 0;
    bad[4].ids.first = 0;
    for bundle in bad {
        let error = node.runtime.create(&bundle).await.unwrap_err();
        assert!(matches!(error, RuntimeError::Bundle { .. }), "{error}");
    }
    assert_eq!(node.traces(), Vec::<String>::new());
}
