//! Operations: one outcome each.

use crate::reconcile::testing::*;
use hoody_protocol::{container::State, link::CommandReply};

#[test]
fn a_restart_is_done_once_and_a_replay_gets_the_first_outcome() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&running(1, 1)).await;
        let request = restart(1, 2);
        assert_eq!(agent.reconciler.operate(request.clone()).await, CommandReply::Accepted);
        assert_eq!(agent.reconciler.operate(request.clone()).await, CommandReply::Accepted);
        let outcome = agent.outcome(request.id).await;
        assert_eq!(outcome.failure, None);
        agent.in_state(State::Running).await;
        assert_eq!(agent.node.kernel.world().starts, 2);
        assert_eq!(agent.reconciler.operate(request.clone()).await, CommandReply::Done(outcome.clone()));
        assert_eq!(agent.reconciler.operate(request).await, CommandReply::Done(outcome));
        assert_eq!(agent.node.kernel.world().starts, 2);
    });
    // Also by an agent that was started again since.
    node.run(async |agent| {
        assert!(matches!(agent.reconciler.operate(restart(1, 2)).await, CommandReply::Done(_)));
    });
    assert_eq!(outcomes(&node, restart(1, 2).id).len(), 1);
}

#[test]
fn one_that_came_too_late_to_begin_is_refused_whatever_holds_it_up() {
    let node = Node::new();
    node.kernel.fault("image", Fault::Hang, usize::MAX);
    node.run(async |agent| {
        agent.apply(&running(1, 1)).await;
        agent.reconciler.operate(restart(1, 2)).await;
    });
    // It waited a minute and a half, which is what the record then says.
    let mut record = node.records().load().unwrap().pop().unwrap().unwrap();
    record.operations[0].at -= 90_000;
    node.records().save_blocking(&record).unwrap();
    node.run(async |agent| {
        let outcome = agent.outcome(restart(1, 2).id).await;
        assert_eq!(outcome.failure.unwrap().code.as_str(), "too_late");
    });
}

#[test]
fn a_stop_supersedes_a_restart_that_is_under_way() {
    let node = Node::new();
    node.run(async |agent| {
        let kernel = &agent.node.kernel;
        kernel.world().stubborn = true;
        agent.reach(&running(1, 1)).await;
        agent.reconciler.operate(restart(1, 2)).await;
        kernel.until("the stop signal", |world| world.count("stop") == 1).await;
        assert_eq!(agent.reach(&stopped(3, true)).await.state, State::Stopped);
        let outcome = agent.outcome(restart(1, 2).id).await;
        assert_eq!(outcome.failure.unwrap().code.as_str(), "superseded");
        assert_eq!(kernel.world().starts, 1);
    });
}

#[test]
fn a_stopped_container_is_not_restarted_and_one_that_ended_by_itself_is() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&stopped(1, false)).await;
        agent.reconciler.operate(restart(1, 2)).await;
        assert!(agent.outcome(restart(1, 2).id).await.failure.is_some());
        agent.reach(&running(3, 1)).await;
        agent.node.kernel.exit(ID, 1, false);
        agent.in_state(State::Stopped).await;
        agent.reconciler.operate(restart(2, 4)).await;
        assert_eq!(agent.outcome(restart(2, 4).id).await.failure, None);
        agent.in_state(State::Running).await;
    });
}

#[test]
fn one_sequence_orders_specifications_and_operations() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&running(5, 1)).await;
        for late in [4, 5] {
            let CommandReply::Refused(cause) = agent.reconciler.operate(restart(1, late)).await else { panic!() };
            assert_eq!(cause.code.as_str(), "out_of_order");
        }
        assert_eq!(agent.reconciler.operate(restart(2, 6)).await, CommandReply::Accepted);
        agent.outcome(restart(2, 6).id).await;
    });
}

#[test]
fn restarts_that_queue_up_are_done_in_order_and_are_bounded() {
    let node = Node::new();
    node.kernel.fault("image", Fault::Hang, usize::MAX);
    node.run(async |agent| {
        agent.apply(&running(1, 1)).await;
        let mut accepted = 0;
        for number in 0..100 {
            match agent.reconciler.operate(restart(number, 2 + u64::from(number))).await {
                CommandReply::Accepted => accepted += 1,
                CommandReply::Refused(cause) => assert_eq!(cause.code.as_str(), "too_many_operations"),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(accepted, 32);
        agent.node.kernel.world().faults.clear();
        // What hangs is interrupted by the next request.
        agent.apply(&running(200, 1)).await;
        for number in 0..accepted {
            assert_eq!(agent.outcome(restart(number, 0).id).await.failure, None);
        }
    });
}

/// As if the operation at the front had been begun this long ago.
fn begun_before(node: &Node, ms: u64) {
    let mut record = node.records().load().unwrap().pop().unwrap().unwrap();
    let begun_at = record.operations[0].begun_at.as_mut().expect("it was begun");
    *begun_at -= ms;
    node.records().save_blocking(&record).unwrap();
}

#[test]
fn a_restart_whose_start_keeps_failing_has_an_outcome_and_the_container_is_started_all_the_same() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&running(1, 1)).await;
        agent.node.kernel.fault("create", Fault::Fail, usize::MAX);
        agent.reconciler.operate(restart(1, 2)).await;
        agent.in_state(State::Failed).await;
        let kernel = &agent.node.kernel;
        kernel.until("the second try", |world| world.count("create") >= 3).await;
    });
    assert_eq!(outcomes(&node, restart(1, 2).id), [], "it is tried for a while");
    // The time to stop and 15 s more.
    begun_before(&node, 25_000);
    node.run(async |agent| {
        let outcome = agent.outcome(restart(1, 2).id).await;
        assert_eq!(outcome.failure.unwrap().code.as_str(), "restart_failed");
        // The specification still wants it to run.
        agent.node.kernel.world().faults.clear();
        agent.in_state(State::Running).await;
        assert_eq!(agent.node.kernel.world().starts, 2);
        let replay = agent.reconciler.operate(restart(1, 2)).await;
        let CommandReply::Done(outcome) = replay else { panic!("{replay:?}") };
        assert!(outcome.failure.is_some(), "the first outcome stays");
    });
    assert_eq!(outcomes(&node, restart(1, 2).id).len(), 1);
}

#[test]
fn an_outcome_survives_its_damaged_record() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&running(1, 1)).await;
        // From now on nothing is acknowledged.
        agent.node.reachable.send_replace(false);
        agent.reconciler.operate(restart(1, 2)).await;
        agent.node.kernel.until("the restart", |world| world.starts == 2).await;
        agent.in_state(State::Running).await;
        while agent.reconciler.operate(restart(1, 2)).await == CommandReply::Accepted {
            tokio::task::yield_now().await;
        }
    });
    let path = node.folder.path().join(format!("containers/{ID}.json"));
    let mut bytes = std::fs::read(&path).unwrap();
    let (before, last) = (node.records().load().unwrap().pop().unwrap().unwrap(), bytes.len() - 1);
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    node.run(async |agent| {
        assert!(agent.reconciler.views().is_empty(), "the damaged record is not used");
        // Before its specification comes again, and after that: done once, whoever asks.
        assert!(matches!(agent.reconciler.operate(restart(1, 2)).await, CommandReply::Done(_)));
        // Another container does not get what the processes of this one still have.
        let mut other = running(1, 1);
        other.id = hoody_protocol::id::ContainerId::from_bytes([8; 12]);
        agent.apply(&other).await;
        agent.apply(&running(1, 1)).await;
        assert!(matches!(agent.reconciler.operate(restart(1, 2)).await, CommandReply::Done(_)));
        agent.in_state(State::Running).await;
    });
    let after = node.records().load().unwrap().into_iter().map(Result::unwrap).find(|record| record.spec.id == ID);
    let after = after.unwrap();
    assert_eq!((after.address, after.ids), (before.address, before.ids));
    assert!(node.kernel.world().violations.is_empty());
}
