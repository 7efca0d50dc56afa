//! What is seen of a container from outside, with what a tenant does to make that hard.

use crate::harness::Node;
use hoody_agent::runtime::{Bundle, Runtime};
use hoody_protocol::inspection::{Inspection, MAX_PROCESSES, ProcessInfo};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until what is seen is as wanted.
async fn seen(node: &Node, bundle: &Bundle, wanted: impl Fn(&Inspection) -> bool) -> Inspection {
    let started = Instant::now();
    loop {
        // Late while the machine is busy: asked again.
        let found = node.runtime.inspect(bundle.id).await.ok().flatten();
        match found {
            Some(found) if wanted(&found) => return found,
            other => assert!(started.elapsed() < PATIENCE, "{other:?} {}", node.log(bundle.id)),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn processes_and_sockets_are_told_in_the_containers_own_terms() {
    let node = Node::new();
    // Names that would write over a terminal.
    let script = ": '\x1b[2Jevil\u{202e}'; busybox nc -l -p 8080 & busybox nc -l -p 8081 & wait";
    let mut bundle = node.bundle(&["/bin/sh", "-c", script]);
    bundle.user = "web".into();
    assert_eq!(node.runtime.inspect(bundle.id).await.unwrap(), None);
    node.runtime.create(&bundle).await.unwrap();
    assert_eq!(node.runtime.inspect(bundle.id).await.unwrap(), None, "it is not started");
    node.runtime.start(bundle.id).await.unwrap();
    // The init has the same words in its arguments.
    let is_shell = |process: &&ProcessInfo| process.pid != 1 && process.args.contains("evil");
    // One after the other is looked at, while they start.
    let all = |found: &Inspection| {
        let owned = found.sockets.iter().filter(|socket| socket.owner.is_some()).count();
        owned == 2 && found.processes.iter().any(|process| is_shell(&process))
    };
    let found = seen(&node, &bundle, all).await;
    let first = found.processes.iter().find(|process| process.pid == 1).expect("a first process");
    assert_eq!((first.parent, first.user.as_str()), (0, "web"));
    let shell = found.processes.iter().find(is_shell).expect("the shell");
    assert_eq!(shell.parent, 1);
    assert!(!shell.args.chars().any(|c| c.is_control() || c == '\u{202e}'), "{:?}", shell.args);
    assert!(shell.memory_bytes > 0 && shell.started_at > 1_600_000_000_000, "{shell:?}");
    for port in [8080, 8081] {
        let socket = found.sockets.iter().find(|socket| socket.port == port).unwrap();
        assert_eq!((socket.user.as_str(), socket.protocol.starts_with("tcp")), ("web", true), "{socket:?}");
        let owner = socket.owner.as_ref().expect("who has it");
        assert!(owner.path.ends_with("/bin/busybox") && !owner.path.contains("root/bin"), "{owner:?}");
        assert!(owner.args.contains(&port.to_string()) && owner.pid > 1, "{owner:?}");
    }
    assert_eq!((found.services, found.truncated), (None, false));
    node.runtime.pause(bundle.id).await.unwrap();
    assert_eq!(seen(&node, &bundle, |_| true).await.sockets.len(), 2, "frozen ones are seen too");
    node.runtime.delete(bundle.id).await.unwrap();
    assert_eq!(node.runtime.inspect(bundle.id).await.unwrap(), None);
}

#[tokio::test]
async fn thousands_of_processes_that_come_and_go_are_bounded() {
    let node = Node::new();
    let script = "i=0; while [ $i -lt 300 ]; do sleep 1000 & i=$((i+1)); done; while :; do /bin/true; done";
    let mut bundle = node.bundle(&["/bin/sh", "-c", script]);
    bundle.limits.pids = 400;
    node.run(&bundle).await;
    let found = seen(&node, &bundle, |found| found.process_count >= 300).await;
    assert!(found.truncated && found.processes.len() <= MAX_PROCESSES, "{}", found.processes.len());
    assert!(found.processes.len() > MAX_PROCESSES - 10);
    // Nobody's of the node is among them, however often numbers are used again.
    for _ in 0..20 {
        let Ok(Some(found)) = node.runtime.inspect(bundle.id).await else { continue };
        let foreign = found
            .processes
            .iter()
            .find(|process| !["sh", "sleep", "true", ".init", "exe"].contains(&process.name.as_str()));
        assert_eq!(foreign, None);
    }
}

#[tokio::test]
async fn many_looks_at_once_take_turns() {
    let node = Node::new();
    let bundle = node.bundle(&["sleep", "1000"]);
    node.run(&bundle).await;
    let looks = (0..32).map(|_| node.runtime.inspect(bundle.id));
    let found = futures::future::join_all(looks).await;
    assert!(found.iter().any(|found| matches!(found, Ok(Some(_)))), "{found:?}");
}
