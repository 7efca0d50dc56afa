//! The agent's own restart, and the server's.

use crate::{reconcile::testing::*, runtime::Process};
use hoody_protocol::container::State;

#[test]
fn an_agent_that_is_started_again_adopts_what_runs() {
    let node = Node::new();
    let first = node.run(async |agent| agent.reach(&running(1, 1)).await);
    let process = node.kernel.world().processes[&ID].clone();
    let again = node.run(async |agent| {
        assert_eq!(agent.reconciler.views()[0].1.state, State::Running, "known before the first look");
        agent.converged(running(1, 1).version).await
    });
    assert_eq!((again.started_at, again.address, again.state), (first.started_at, first.address, State::Running));
    assert_eq!(node.kernel.world().processes[&ID], process);
    assert_eq!(node.kernel.world().starts, 1);
    // What its end was like is found out later too.
    node.kernel.exit(ID, 4, false);
    node.run(async |agent| {
        let status = agent.status("the end", |status| status.state == State::Stopped).await;
        assert_eq!(status.exit_code, Some(4));
    });
}

#[test]
fn a_stop_that_the_agent_died_in_is_brought_to_its_end() {
    let node = Node::new();
    node.kernel.world().stubborn = true;
    node.run(async |agent| {
        agent.reach(&running(1, 1)).await;
        agent.apply(&stopped(2, false)).await;
        agent.node.kernel.until("the stop signal", |world| world.count("stop") == 1).await;
    });
    // Another start request must not adopt the process that was asked to end.
    node.run(async |agent| assert_eq!(agent.reach(&running(3, 2)).await.state, State::Running));
    assert_eq!(node.kernel.world().starts, 2);
}

#[test]
fn after_a_reboot_what_starts_by_itself_comes_back_without_the_control_plane() {
    let node = Node::new();
    node.run(async |agent| agent.reach(&running(1, 1)).await);
    node.kernel.reboot();
    node.boot.set(2);
    node.reachable.send_replace(false);
    node.run(async |agent| {
        agent.node.kernel.until("the start", |world| world.is_alive(ID)).await;
        agent.in_state(State::Running).await;
    });
    assert_eq!(node.kernel.world().starts, 2);
}

#[test]
fn after_a_reboot_the_others_are_stopped_and_say_why() {
    let node = Node::new();
    let mut spec = running(1, 1);
    spec.autostart = false;
    node.run(async |agent| agent.reach(&spec).await);
    node.kernel.reboot();
    node.boot.set(2);
    node.run(async |agent| {
        let status = agent.converged(spec.version).await;
        assert_eq!((status.state, status.cause.unwrap().code.as_str()), (State::Stopped, "server_rebooted"));
        assert_eq!(agent.reach(&running(2, 2)).await.state, State::Running);
    });
}

#[test]
fn a_process_that_is_gone_without_a_trace_says_so() {
    let node = Node::new();
    node.run(async |agent| agent.reach(&running(1, 1)).await);
    node.kernel.world().processes.clear();
    node.run(async |agent| {
        let status = agent.converged(running(1, 1).version).await;
        assert_eq!((status.state, status.cause.unwrap().code.as_str()), (State::Stopped, "process_lost"));
    });
}

#[test]
fn an_end_that_was_seen_and_not_cleared_is_not_taken_for_that_of_the_next_run() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&running(1, 1)).await;
        agent.node.kernel.fault("remove", Fault::Fail, 1);
        agent.node.kernel.exit(ID, 5, false);
        agent.in_state(State::Failed).await;
        assert!(matches!(agent.node.kernel.world().processes[&ID], Process::Exited { .. }));
        assert_eq!(agent.reach(&running(2, 2)).await.state, State::Running);
    });
}
