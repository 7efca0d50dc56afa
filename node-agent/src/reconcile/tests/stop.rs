//! The way down.

use crate::reconcile::testing::*;
use hoody_protocol::container::{Desired, State};
use std::time::Duration;
use tokio::time::Instant;

#[test]
fn a_stop_asks_first_and_kills_after_the_timeout() {
    let node = Node::new();
    node.run(async |agent| {
        let kernel = &agent.node.kernel;
        agent.reach(&running(1, 1)).await;
        let status = agent.reach(&stopped(2, false)).await;
        assert_eq!((status.state, status.exit_code, status.cause), (State::Stopped, Some(143), None));
        assert_eq!(kernel.world().signals(), (1, 0));
        kernel.world().stubborn = true;
        agent.reach(&running(3, 2)).await;
        let asked = Instant::now();
        let status = agent.reach(&stopped(4, false)).await;
        assert_eq!(status.exit_code, Some(137));
        assert!((Duration::from_secs(10)..Duration::from_secs(11)).contains(&asked.elapsed()));
        assert_eq!(kernel.world().signals(), (2, 1));
    });
}

#[test]
fn a_forced_stop_interrupts_a_graceful_one_at_once() {
    let node = Node::new();
    node.run(async |agent| {
        agent.node.kernel.world().stubborn = true;
        agent.reach(&running(1, 1)).await;
        // Also where it arrives while the stop signal is being sent, before the wait began.
        agent.apply(&stopped(2, false)).await;
        agent.node.kernel.until("the stop signal", |world| world.count("stop") == 1).await;
        let asked = Instant::now();
        assert_eq!(agent.reach(&stopped(3, true)).await.exit_code, Some(137));
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    });
}

#[test]
fn neither_wake_ups_nor_other_changes_prolong_a_graceful_stop() {
    let node = Node::new();
    node.run(async |agent| {
        let kernel = &agent.node.kernel;
        kernel.world().stubborn = true;
        agent.reach(&running(1, 1)).await;
        agent.apply(&stopped(2, false)).await;
        kernel.until("the stop signal", |world| world.count("stop") == 1).await;
        let asked = Instant::now();
        for generation in 3..6 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            agent.reconciler.wake_all();
            agent.apply(&stopped(generation, false)).await;
        }
        agent.converged(stopped(5, false).version).await;
        assert!(asked.elapsed() < Duration::from_secs(11), "{:?}", asked.elapsed());
        assert_eq!(kernel.world().count("stop"), 1, "asked once");
    });
}

#[test]
fn a_start_request_during_a_stop_gets_a_process_of_its_own() {
    let node = Node::new();
    node.run(async |agent| {
        let kernel = &agent.node.kernel;
        kernel.world().stubborn = true;
        agent.reach(&running(1, 1)).await;
        agent.apply(&stopped(2, false)).await;
        kernel.until("the stop signal", |world| world.count("stop") == 1).await;
        assert_eq!(agent.reach(&running(3, 2)).await.state, State::Running);
        assert_eq!(kernel.world().starts, 2);
    });
}

#[test]
fn a_stop_works_where_the_storage_does_not() {
    let node = Node::new();
    node.run(async |agent| {
        let kernel = &agent.node.kernel;
        agent.reach(&running(1, 1)).await;
        kernel.fault("exists", Fault::Fail, usize::MAX);
        agent.apply(&stopped(2, true)).await;
        kernel.until("the end", |world| !world.is_alive(ID)).await;
    });
}

#[test]
fn a_frozen_container_is_stopped() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&spec(1, Desired::Paused { run: 1 })).await;
        assert_eq!(agent.reach(&stopped(2, false)).await.state, State::Stopped);
        let world = agent.node.kernel.world();
        assert!(world.processes.is_empty() && world.links.is_empty() && world.rules.is_empty());
    });
}
