//! Prints how long create and start take beside the bare runtime. Asserts that it works, not how fast.

use crate::harness::Node;
use hoody_agent::runtime::Runtime;
use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const ROUNDS: usize = 15;

fn p50(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test]
async fn create_and_start_beside_the_bare_runtime() {
    let node = Node::new();
    let (mut create, mut start, mut both, mut state, mut delete) = (vec![], vec![], vec![], vec![], vec![]);
    let bundle = node.bundle(&[]);
    let config = node.config.run_dir.join(format!("containers/{}", bundle.id));
    let saved = node.path("bare");
    std::fs::create_dir(&saved).unwrap();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        node.runtime.create(&bundle).await.unwrap();
        create.push(begun.elapsed());
        let middle = Instant::now();
        node.runtime.start(bundle.id).await.unwrap();
        start.push(middle.elapsed());
        both.push(begun.elapsed());
        let begun = Instant::now();
        node.runtime.state(bundle.id).await.unwrap();
        state.push(begun.elapsed());
        std::fs::copy(config.join("config.json"), saved.join("config.json")).unwrap();
        let begun = Instant::now();
        node.runtime.delete(bundle.id).await.unwrap();
        delete.push(begun.elapsed());
    }
    // The same configuration without what the agent's own files add, run by hand.
    let mut json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(saved.join("config.json")).unwrap()).unwrap();
    json["mounts"].as_array_mut().unwrap().retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/etc/"));
    let bare = |name: &str, json: &serde_json::Value| {
        std::fs::write(saved.join("config.json"), json.to_string()).unwrap();
        let mut times = vec![];
        for round in 0..ROUNDS {
            let id = format!("{name}-{round}-{}", std::process::id());
            let runc = || {
                let mut command = Command::new("runc");
                command.arg("--root").arg(node.path("run/bare")).stdin(Stdio::null()).stdout(Stdio::null());
                command
            };
            let begun = Instant::now();
            assert!(runc().args(["run", "--detach", "--bundle"]).arg(&saved).arg(&id).status().unwrap().success());
            times.push(begun.elapsed());
            assert!(runc().args(["delete", "--force", &id]).status().unwrap().success());
        }
        p50(times)
    };
    let run = bare("bare", &json);
    json["linux"]["seccomp"] = serde_json::Value::Null;
    let unfiltered = bare("unfiltered", &json);
    println!(
        "p50 of {ROUNDS}: create+start {:?} (create {:?}, start {:?}), bare runc run {run:?} (without seccomp {unfiltered:?}), state {:?}, delete {:?}",
        p50(both),
        p50(create),
        p50(start),
        p50(state),
        p50(delete)
    );
    assert_eq!(node.traces(), Vec::<String>::new());
}
