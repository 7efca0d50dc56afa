//! Snapshots, restorations and copies, also by agents that die at every call to the kernel.

use crate::reconcile::testing::*;
use hoody_protocol::{
    container::{ContainerSpec, Desired, State},
    id::{ContainerId, SnapshotId, TransferId},
    link::CommandReply,
    operation::{OperationKind, OperationRequest},
    snapshot::Origin,
};

fn take(number: u8, sequence: u64) -> OperationRequest {
    operation(number, sequence, OperationKind::CreateSnapshot { snapshot: SNAPSHOT })
}

fn restore(number: u8, sequence: u64) -> OperationRequest {
    operation(number, sequence, OperationKind::RestoreSnapshot { snapshot: SNAPSHOT })
}

fn remove(number: u8, sequence: u64) -> OperationRequest {
    operation(number, sequence, OperationKind::DeleteSnapshot { snapshot: SNAPSHOT })
}

fn content(node: &Node) -> u32 {
    node.kernel.world().contents.get(&ID).copied().unwrap_or(0)
}

/// The container writes something.
fn write(node: &Node, what: u32) {
    node.kernel.world().contents.insert(ID, what);
}

#[test]
fn a_running_container_goes_back_to_what_it_was_and_a_replay_does_nothing() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&running(1, 1)).await;
        write(agent.node, 1);
        agent.reconciler.operate(take(1, 2)).await;
        let outcome = agent.outcome(take(1, 2).id).await;
        assert_eq!((outcome.failure, outcome.bytes), (None, Some(4096)));
        write(agent.node, 2);
        agent.reconciler.operate(restore(2, 3)).await;
        assert_eq!(agent.outcome(restore(2, 3).id).await.failure, None);
        agent.in_state(State::Running).await;
        assert_eq!((content(agent.node), agent.node.kernel.world().starts), (1, 2));
        assert!(agent.node.kernel.world().aside.is_empty(), "what was before is still kept");
        write(agent.node, 3);
        for request in [take(1, 2), restore(2, 3)] {
            assert!(matches!(agent.reconciler.operate(request).await, CommandReply::Done(_)));
        }
        assert_eq!((content(agent.node), agent.node.kernel.world().starts), (3, 2));
        // The snapshot stays, and goes when that is asked.
        assert_eq!(agent.node.kernel.world().snapshots.len(), 1);
        agent.reconciler.operate(remove(3, 4)).await;
        assert_eq!(agent.outcome(remove(3, 4).id).await.failure, None);
        assert!(agent.node.kernel.world().snapshots.is_empty());
    });
}

#[test]
fn a_stopped_container_is_restored_without_being_started_and_a_frozen_one_is_frozen_again() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&stopped(1, false)).await;
        agent.reconciler.operate(take(1, 2)).await;
        agent.outcome(take(1, 2).id).await;
        write(agent.node, 5);
        agent.reconciler.operate(restore(2, 3)).await;
        assert_eq!(agent.outcome(restore(2, 3).id).await.failure, None);
        assert_eq!((content(agent.node), agent.node.kernel.world().starts), (0, 0));
        agent.reach(&spec(4, Desired::Paused { run: 1 })).await;
        write(agent.node, 6);
        agent.reconciler.operate(restore(3, 5)).await;
        assert_eq!(agent.outcome(restore(3, 5).id).await.failure, None);
        agent.in_state(State::Paused).await;
        assert_eq!(content(agent.node), 0);
    });
}

#[test]
fn what_was_before_comes_back_where_the_restored_container_does_not_start() {
    for step in ["root", "mount", "create", "attach", "start"] {
        let node = Node::new();
        node.run(async |agent| {
            agent.reach(&running(1, 1)).await;
            agent.reconciler.operate(take(1, 2)).await;
            agent.outcome(take(1, 2).id).await;
            write(agent.node, 2);
            agent.node.kernel.fault(step, Fault::Fail, usize::MAX);
            agent.reconciler.operate(restore(2, 3)).await;
            let outcome = agent.outcome(restore(2, 3).id).await;
            agent.node.kernel.world().faults.clear();
            assert_eq!(outcome.failure.expect(step).code.as_str(), "restore_failed", "{step}");
            agent.in_state(State::Running).await;
            assert_eq!(content(agent.node), 2, "{step}");
            assert!(agent.node.kernel.world().aside.is_empty());
        });
    }
}

#[test]
fn a_snapshot_that_is_not_there_stops_nothing() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&running(1, 1)).await;
        agent.reconciler.operate(restore(1, 2)).await;
        let outcome = agent.outcome(restore(1, 2).id).await;
        assert_eq!(outcome.failure.unwrap().code.as_str(), "snapshot_missing");
        assert_eq!(agent.node.kernel.world().signals(), (0, 0));
        // To delete it is to find it gone.
        agent.reconciler.operate(remove(2, 3)).await;
        assert_eq!(agent.outcome(remove(2, 3).id).await.failure, None);
    });
}

#[test]
fn what_a_failed_snapshot_may_have_left_is_deleted() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&running(1, 1)).await;
        agent.node.kernel.fault("take", Fault::Fail, 1);
        agent.node.kernel.fault("drop", Fault::Fail, 2);
        agent.reconciler.operate(take(1, 2)).await;
        assert!(agent.outcome(take(1, 2).id).await.failure.is_some());
        // The call that failed did its work after all.
        agent.node.kernel.world().snapshots.insert((ID, SNAPSHOT), 0);
        agent.node.kernel.until("the end of the rest", |world| world.snapshots.is_empty()).await;
        // The pass that deleted it has ended.
        agent.reach(&stopped(3, false)).await;
    });
    assert!(node.records().load().unwrap().pop().unwrap().unwrap().discarded.is_empty());
}

#[test]
fn a_restoration_that_cannot_stop_the_container_ends_and_changes_nothing() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&running(1, 1)).await;
        agent.reconciler.operate(take(1, 2)).await;
        agent.outcome(take(1, 2).id).await;
        write(agent.node, 2);
        agent.node.kernel.fault("swap", Fault::Fail, usize::MAX);
        agent.reconciler.operate(restore(2, 3)).await;
        agent.in_state(State::Failed).await;
    });
    let mut record = node.records().load().unwrap().pop().unwrap().unwrap();
    *record.operations[0].begun_at.as_mut().unwrap() -= 60_000;
    node.records().save_blocking(&record).unwrap();
    node.run(async |agent| {
        let outcome = agent.outcome(restore(2, 3).id).await;
        assert_eq!(outcome.failure.unwrap().code.as_str(), "restore_failed");
        agent.in_state(State::Running).await;
        assert_eq!(content(agent.node), 2);
    });
}

#[test]
fn a_copy_is_made_from_its_origin_once_and_never_from_the_image() {
    let other = ContainerId::from_bytes([8; 12]);
    let copy = |generation, snapshot, kept| ContainerSpec {
        id: other,
        origin: Some(Origin { container: ID, snapshot, kept }),
        ..running(generation, 1)
    };
    let kept = TransferId::from_bytes([6; 12]);
    for (snapshot, kept) in [(None, None), (Some(SNAPSHOT), None), (None, Some(kept)), (Some(SNAPSHOT), Some(kept))] {
        let node = Node::new();
        node.run(async |agent| {
            agent.reach(&running(1, 1)).await;
            write(agent.node, 1);
            agent.reconciler.operate(take(1, 2)).await;
            agent.outcome(take(1, 2).id).await;
            write(agent.node, 2);
            agent.apply(&copy(1, snapshot, kept)).await;
            let kernel = &agent.node.kernel;
            kernel.until("the copy", |world| world.is_alive(other)).await;
            let expected = if snapshot.is_some() { 1 } else { 2 };
            assert_eq!(kernel.world().contents[&other], expected);
            let made = |step| kernel.world().count(step);
            assert_eq!((made("image"), made("copy"), made("keep")), (1, 1, usize::from(kept.is_some())));
            // What it is compared with later, whether it was changed.
            let base = kept.and_then(|kept| kernel.world().received.get(&(other, kept)).copied());
            assert_eq!(base, kept.map(|_| expected));
            // What it came from does not change, and it does not follow its origin.
            let reply = agent.reconciler.apply(ContainerSpec { origin: None, ..copy(2, snapshot, kept) }).await;
            let CommandReply::Refused(cause) = reply else { panic!("{reply:?}") };
            assert_eq!(cause.code.as_str(), "immutable");
        });
        node.run(async |agent| {
            agent.apply(&copy(3, snapshot, kept)).await;
            agent.node.kernel.until("another pass", |world| world.count("exists") > 6).await;
            assert_eq!(agent.node.kernel.world().count("copy"), 1);
        });
    }
}

#[test]
fn a_copy_whose_origin_is_gone_fails_and_can_be_deleted() {
    let node = Node::new();
    node.run(async |agent| {
        let origin = Some(Origin { container: ContainerId::from_bytes([8; 12]), snapshot: None, kept: None });
        agent.apply(&ContainerSpec { origin, ..running(1, 1) }).await;
        agent.in_state(State::Failed).await;
        assert_eq!(agent.node.kernel.world().count("root"), 0, "it was made from the image");
        agent.reach(&ContainerSpec { origin, ..spec(2, Desired::Deleted) }).await;
        agent.forgotten().await;
    });
    node.kernel.world().assert_empty();
}

/// What is asked, one after the other; after a crash again.
async fn proceed(agent: &Agent<'_>, done: &std::cell::Cell<usize>) {
    let node = agent.node;
    let step = |number: usize| done.get() == number;
    if step(0) {
        agent.reach(&running(1, 1)).await;
        write(node, 1);
        done.set(1);
    }
    if step(1) {
        agent.reconciler.operate(take(1, 2)).await;
        assert_eq!(agent.outcome(take(1, 2).id).await.failure, None);
        write(node, 2);
        done.set(2);
    }
    if step(2) {
        agent.reconciler.operate(restore(2, 3)).await;
        assert_eq!(agent.outcome(restore(2, 3).id).await.failure, None);
        agent.in_state(State::Running).await;
        assert_eq!(content(node), 1, "the restored content");
        write(node, 3);
        done.set(3);
    }
    if step(3) {
        // The restored container does not start: what was before comes back.
        node.kernel.fault("attach", Fault::Fail, 1);
        agent.reconciler.operate(restore(3, 4)).await;
        let failed = agent.outcome(restore(3, 4).id).await.failure.is_some();
        agent.in_state(State::Running).await;
        node.kernel.world().faults.clear();
        assert_eq!(content(node), if failed { 3 } else { 1 }, "either the old or the new state");
        done.set(4);
    }
    if step(4) {
        agent.reconciler.operate(remove(4, 5)).await;
        assert_eq!(agent.outcome(remove(4, 5).id).await.failure, None);
        assert!(!node.kernel.world().snapshots.contains_key(&(ID, SNAPSHOT)));
        assert!(node.kernel.world().aside.is_empty());
        // Another one, which goes with its container.
        let kind = OperationKind::CreateSnapshot { snapshot: SnapshotId::from_bytes([10; 12]) };
        agent.reconciler.operate(operation(5, 6, kind)).await;
        assert_eq!(agent.outcome(operation(5, 6, kind).id).await.failure, None);
        done.set(5);
    }
    agent.reach(&spec(7, Desired::Deleted)).await;
    agent.forgotten().await;
}

fn dies_at(death: CrashAt, reboots: bool) -> bool {
    let (node, done) = (Node::new(), std::cell::Cell::new(0));
    node.kernel.world().crash = Some(death);
    let mut died = false;
    while node.life(async |agent| proceed(&agent, &done).await).is_none() {
        died = true;
        if reboots {
            node.kernel.reboot();
            node.boot.set(node.boot.get() + 1);
        }
    }
    node.kernel.world().assert_empty();
    for number in 1..=5 {
        assert_eq!(outcomes(&node, restart(number, 0).id).len(), 1);
    }
    died
}

#[test]
fn an_agent_killed_at_any_call_leaves_the_old_or_the_new_state() {
    for reboots in [false, true] {
        let mut call = 1;
        while dies_at(CrashAt { call, after_effect: false }, reboots)
            | dies_at(CrashAt { call, after_effect: true }, reboots)
        {
            call += 1;
        }
        assert!(call > 60, "only {call} calls");
    }
}
