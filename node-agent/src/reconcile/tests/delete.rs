//! Deletion, from every state.

use crate::reconcile::testing::*;
use hoody_protocol::{
    container::{Desired, State},
    link::CommandReply,
};
use std::time::Duration;

fn tombstone(generation: u64) -> hoody_protocol::container::ContainerSpec {
    spec(generation, Desired::Deleted)
}

async fn assert_deletes(agent: Agent<'_>, generation: u64) {
    let asked = tokio::time::Instant::now();
    let status = agent.reach(&tombstone(generation)).await;
    assert_eq!(status.state, State::Deleted);
    agent.forgotten().await;
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    agent.node.kernel.world().assert_empty();
    assert!(agent.reconciler.inventory().is_empty());
}

#[test]
fn while_it_runs_is_frozen_or_stopped() {
    for desired in [Desired::Running { run: 1 }, Desired::Paused { run: 1 }, Desired::Stopped { force: false }] {
        Node::new().run(async |agent| {
            agent.reach(&spec(1, desired)).await;
            assert_deletes(agent, 2).await;
        });
    }
}

#[test]
fn before_anything_was_made_of_it() {
    Node::new().run(async |agent| assert_deletes(agent, 1).await);
}

#[test]
fn while_the_image_is_being_fetched() {
    let node = Node::new();
    node.kernel.fault("image", Fault::Hang, usize::MAX);
    node.run(async |agent| {
        agent.apply(&running(1, 1)).await;
        agent.node.kernel.until("the fetch", |world| world.count("image") == 1).await;
        assert_deletes(agent, 2).await;
    });
}

#[test]
fn where_it_arrives_between_two_steps_before_a_wait() {
    // The deletion comes while a step before the fetch works; the fetch must not wait for ever then.
    let node = Node::new();
    node.kernel.fault("image", Fault::Hang, usize::MAX);
    node.kernel.fault("exists", Fault::Slow, 1);
    node.run(async |agent| {
        agent.apply(&running(1, 1)).await;
        agent.node.kernel.until("the look", |world| world.count("exists") == 1).await;
        assert_deletes(agent, 2).await;
    });
}

#[test]
fn while_it_fails() {
    for step in ["image", "root", "mount", "create", "policy", "attach", "start"] {
        let node = Node::new();
        node.kernel.fault(step, Fault::Fail, usize::MAX);
        node.run(async |agent| {
            agent.apply(&running(1, 1)).await;
            agent.in_state(State::Failed).await;
            assert_deletes(agent, 2).await;
        });
    }
}

#[test]
fn a_deletion_that_fails_is_tried_again() {
    for step in ["detach", "remove", "unpolicy", "unmount", "delete"] {
        let node = Node::new();
        node.run(async |agent| {
            agent.reach(&running(1, 1)).await;
            agent.node.kernel.fault(step, Fault::Fail, 3);
            agent.apply(&tombstone(2)).await;
            agent.forgotten().await;
        });
        node.kernel.world().assert_empty();
    }
}

#[test]
fn the_record_stays_until_the_deletion_is_acknowledged_and_is_reported_once() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&running(1, 1)).await;
        agent.node.reachable.send_replace(false);
        agent.apply(&tombstone(2)).await;
        agent.node.kernel.until("the deletion", |world| world.roots.is_empty()).await;
        for _ in 0..3 {
            agent.reconciler.wake_all();
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        assert_eq!(agent.node.records().load().unwrap().len(), 1);
        assert_eq!(agent.reconciler.apply(tombstone(2)).await, CommandReply::Accepted);
        agent.node.reachable.send_replace(true);
        agent.forgotten().await;
    });
    assert_eq!(states(&node).iter().filter(|state| **state == State::Deleted).count(), 1);
}

#[test]
fn operations_not_done_end_with_the_container() {
    let node = Node::new();
    node.kernel.fault("image", Fault::Hang, usize::MAX);
    node.run(async |agent| {
        agent.apply(&running(1, 1)).await;
        agent.reconciler.operate(restart(1, 2)).await;
        agent.apply(&tombstone(3)).await;
        let outcome = agent.outcome(restart(1, 2).id).await;
        assert_eq!(outcome.failure.unwrap().code.as_str(), "deleted");
        agent.forgotten().await;
    });
}
