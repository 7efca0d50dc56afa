//! Passes that fail.

use crate::reconcile::testing::*;
use hoody_protocol::container::State;
use std::time::Duration;
use tokio::time::Instant;

#[test]
fn a_failed_pass_is_tried_again_with_growing_pauses_and_at_once_for_a_new_specification() {
    let node = Node::new();
    node.kernel.fault("image", Fault::Fail, usize::MAX);
    node.run(async |agent| {
        let kernel = &agent.node.kernel;
        agent.apply(&running(1, 1)).await;
        let begun = Instant::now();
        let mut tries = Vec::new();
        for count in 1..=12 {
            kernel.until("the next try", |world| world.count("image") >= count).await;
            tries.push(begun.elapsed());
        }
        let pauses: Vec<_> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        // Between half of it and all of it: 1 s doubled each time, 60 s at most.
        for (failures, pause) in pauses.iter().enumerate() {
            let whole = Duration::from_secs((1 << failures).min(60));
            assert!((whole / 2..=whole + Duration::from_millis(5)).contains(pause), "{failures}: {pause:?}");
        }
        assert_eq!(states(agent.node), [State::Creating, State::Failed], "a lasting failure is reported once");
        let asked = Instant::now();
        agent.apply(&running(2, 1)).await;
        kernel.until("the try", |world| world.count("image") >= 13).await;
        kernel.until("the try after it", |world| world.count("image") >= 14).await;
        assert!(asked.elapsed() < Duration::from_secs(2), "the pauses begin anew: {:?}", asked.elapsed());
    });
}

#[test]
fn a_wake_up_tries_again_at_once_also_where_it_comes_during_the_pass() {
    let node = Node::new();
    node.kernel.fault("image", Fault::Fail, 4);
    node.run(async |agent| {
        let kernel = &agent.node.kernel;
        agent.apply(&running(1, 1)).await;
        for count in 1..=4 {
            kernel.until("the try", |world| world.count("image") >= count).await;
            let woken = Instant::now();
            agent.reconciler.wake_all();
            kernel.until("the next try", |world| world.count("image") > count).await;
            assert!(woken.elapsed() < Duration::from_millis(10), "{:?}", woken.elapsed());
        }
        agent.in_state(State::Running).await;
    });
}

#[test]
fn each_step_that_fails_once_is_made_good() {
    for step in
        ["exists", "image", "root", "state", "mount", "create", "applied?", "prepare", "policy", "attach", "start"]
    {
        let node = Node::new();
        node.kernel.fault(step, Fault::Fail, 1);
        node.run(async |agent| {
            assert_eq!(agent.reach(&running(1, 1)).await.state, State::Running, "{step}");
            assert_eq!(agent.node.kernel.world().starts, 1);
        });
        assert!(states(&node).contains(&State::Failed), "{step}");
    }
}

#[test]
fn what_is_half_made_is_started_with_the_newest_specification() {
    let node = Node::new();
    node.kernel.fault("attach", Fault::Fail, 1);
    node.run(async |agent| {
        agent.apply(&running(1, 1)).await;
        agent.in_state(State::Failed).await;
        let mut newer = running(2, 1);
        newer.hostname = "newer".to_owned().try_into().unwrap();
        agent.reach(&newer).await;
        assert_eq!(agent.node.kernel.world().bundles[&ID].hostname, "newer");
    });
}

#[test]
fn a_panic_is_reported_as_a_failure_and_tried_again_with_growing_pauses() {
    let node = Node::new();
    node.kernel.fault("create", Fault::Panic, 3);
    node.run(async |agent| {
        let begun = Instant::now();
        agent.apply(&running(1, 1)).await;
        let failed = agent.status("the failure", |status| status.state == State::Failed).await;
        assert_eq!(failed.cause.unwrap().code.as_str(), "internal_error");
        agent.in_state(State::Running).await;
        // Half of 1 s, 2 s and 4 s at least.
        assert!(begun.elapsed() >= Duration::from_millis(3500), "{:?}", begun.elapsed());
        assert_eq!(agent.node.kernel.world().starts, 1);
        // The same owner goes on: what it had accepted is known.
        assert_eq!(agent.reach(&stopped(2, false)).await.state, State::Stopped);
    });
    assert_eq!(states(&node).iter().filter(|state| **state == State::Failed).count(), 1);
}

#[test]
fn a_request_is_taken_while_the_owner_waits_after_a_panic() {
    let node = Node::new();
    node.kernel.fault("image", Fault::Panic, usize::MAX);
    node.run(async |agent| {
        agent.apply(&running(1, 1)).await;
        agent.in_state(State::Failed).await;
        agent.apply(&running(2, 1)).await;
        agent.reconciler.operate(restart(1, 3)).await;
        agent.node.kernel.world().faults.clear();
        assert_eq!(agent.outcome(restart(1, 3).id).await.failure, None);
    });
}
