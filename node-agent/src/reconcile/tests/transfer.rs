//! A container whose file system comes from another server, and one that is synced with what it was copied from.

use crate::reconcile::testing::*;
use hoody_protocol::{
    container::{ContainerSpec, Desired, State},
    id::{SnapshotId, TransferId},
    link::CommandReply,
    operation::{OperationKind, OperationRequest},
    snapshot::MovedSnapshot,
};
use std::time::Duration;
use tokio::time::Instant;

const HALF_AN_HOUR: Duration = Duration::from_secs(1800);

fn received(generation: u64) -> ContainerSpec {
    let transfer = Some(TransferId::from_bytes([6; 12]));
    ContainerSpec { transfer, ..running(generation, 1) }
}

#[test]
fn its_root_is_what_was_received_and_no_image_is_fetched() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&received(1)).await;
        let deleted = ContainerSpec { desired: Desired::Deleted, ..received(2) };
        assert_eq!(agent.reach(&deleted).await.state, State::Deleted);
        agent.forgotten().await;
    });
    let world = node.kernel.world();
    assert_eq!((world.count("transfer"), world.count("image"), world.count("forget transfers")), (1, 0, 1));
    world.assert_empty();
}

#[test]
fn a_transfer_that_fails_is_tried_again_and_gives_way_to_a_deletion() {
    let node = Node::new();
    node.kernel.fault("transfer", Fault::Fail, 2);
    node.run(async |agent| {
        assert_eq!(agent.reach(&received(1)).await.state, State::Running);
    });
    assert_eq!(node.kernel.world().count("transfer"), 3);
    let node = Node::new();
    node.kernel.fault("transfer", Fault::Hang, 1);
    node.run(async |agent| {
        agent.apply(&received(1)).await;
        agent.node.kernel.until("the transfer", |world| world.count("transfer") == 1).await;
        let deleted = ContainerSpec { desired: Desired::Deleted, ..received(2) };
        assert_eq!(agent.reach(&deleted).await.state, State::Deleted);
        agent.forgotten().await;
    });
    node.kernel.world().assert_empty();
}

/// All of it comes again with each try: soon at first, in case its origin has become smaller, then each half an hour, and at once
/// where the container's disk has become larger.
#[test]
fn what_does_not_fit_is_not_sent_again_every_minute() {
    let node = Node::new();
    node.kernel.world().too_large = true;
    node.run(async |agent| {
        let kernel = &agent.node.kernel;
        agent.apply(&received(1)).await;
        let mut tries = Vec::new();
        for count in 1..=16 {
            kernel.until("the next try", |world| world.count("transfer") >= count).await;
            tries.push(Instant::now());
        }
        let last = tries[15] - tries[14];
        assert!((HALF_AN_HOUR / 2..=HALF_AN_HOUR + Duration::from_millis(5)).contains(&last), "{last:?}");
        kernel.world().too_large = false;
        let asked = Instant::now();
        assert_eq!(agent.reach(&received(2)).await.state, State::Running);
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    });
}

/// A container that moved here with two snapshots, whose content is 3 and 4.
fn moved(node: &Node, generation: u64) -> ContainerSpec {
    let brought =
        |number| MovedSnapshot { id: SNAPSHOTS[number], transfer: TransferId::from_bytes([8 + number as u8; 12]) };
    let snapshots = [brought(0), brought(1)];
    for (moved, content) in snapshots.iter().zip([3, 4]) {
        node.kernel.world().received.insert((ID, moved.transfer), content);
    }
    ContainerSpec { moved: true, snapshots: snapshots.to_vec().try_into().unwrap(), ..received(generation) }
}

const SNAPSHOTS: [SnapshotId; 2] = [SnapshotId::from_bytes([10; 12]), SnapshotId::from_bytes([11; 12])];

fn taken_over(node: &Node) -> Vec<(SnapshotId, u32)> {
    node.kernel.world().snapshots.iter().map(|((_, snapshot), content)| (*snapshot, *content)).collect()
}

#[test]
fn a_container_that_moved_has_its_snapshots_before_it_starts() {
    let node = Node::new();
    let spec = moved(&node, 1);
    node.run(async |agent| {
        agent.reach(&spec).await;
        assert_eq!(taken_over(agent.node), [(SNAPSHOTS[0], 3), (SNAPSHOTS[1], 4)]);
        // What became of them since is not undone.
        let delete = operation(1, 2, OperationKind::DeleteSnapshot { snapshot: SNAPSHOTS[0] });
        agent.reconciler.operate(delete.clone()).await;
        assert_eq!(agent.outcome(delete.id).await.failure, None);
        agent.reach(&ContainerSpec { desired: Desired::Stopped { force: false }, ..moved(agent.node, 3) }).await;
        assert_eq!(taken_over(agent.node), [(SNAPSHOTS[1], 4)]);
        // They are what it was made from.
        let fewer = ContainerSpec { snapshots: Default::default(), ..moved(agent.node, 4) };
        let refused = agent.reconciler.apply(fewer).await;
        assert!(matches!(&refused, CommandReply::Refused(cause) if &*cause.code == "immutable"), "{refused:?}");
    });
}

#[test]
fn a_container_whose_snapshot_did_not_come_is_not_there() {
    let node = Node::new();
    let spec = moved(&node, 1);
    let lost = node.kernel.world().received.pop_last().unwrap();
    node.run(async |agent| {
        agent.apply(&spec).await;
        agent.in_state(State::Failed).await;
        assert!(agent.node.kernel.world().roots.is_empty());
        agent.node.kernel.world().received.insert(lost.0, lost.1);
        agent.in_state(State::Running).await;
        assert_eq!(taken_over(agent.node).len(), 2);
    });
}

#[test]
fn snapshots_are_taken_over_whenever_the_agent_dies() {
    let dies = |call, after_effect| {
        let node = Node::new();
        let spec = moved(&node, 1);
        node.kernel.world().crash = Some(CrashAt { call, after_effect });
        let ended = node.life(async |agent| _ = agent.reach(&spec).await);
        node.run(async |agent| {
            agent.reach(&spec).await;
            assert_eq!(taken_over(agent.node), [(SNAPSHOTS[0], 3), (SNAPSHOTS[1], 4)], "call {call}, {after_effect}");
        });
        ended.is_none()
    };
    let mut call = 1;
    while dies(call, false) | dies(call, true) {
        call += 1;
    }
    assert!(call > 8, "only {call} calls");
}

/// The transfer that a sync puts in place.
const BROUGHT: TransferId = TransferId::from_bytes([7; 12]);

fn sync(number: u8, sequence: u64) -> OperationRequest {
    let kind = OperationKind::Sync { transfer: BROUGHT, snapshot: SNAPSHOT, origin: None };
    operation(number, sequence, kind)
}

fn content(node: &Node) -> (u32, Option<u32>) {
    let world = node.kernel.world();
    (world.contents.get(&ID).copied().unwrap_or(0), world.snapshots.get(&(ID, SNAPSHOT)).copied())
}

fn bring(node: &Node) {
    let mut world = node.kernel.world();
    world.contents.insert(ID, 1);
    world.received.insert((ID, BROUGHT), 5);
}

#[test]
fn a_sync_puts_what_was_brought_in_place_and_keeps_what_was() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&received(1)).await;
        bring(agent.node);
        agent.reconciler.operate(sync(1, 2)).await;
        let outcome = agent.outcome(sync(1, 2).id).await;
        assert_eq!((outcome.failure, outcome.bytes), (None, Some(4096)));
        agent.in_state(State::Running).await;
        assert_eq!(content(agent.node), (5, Some(1)));
        assert_eq!(agent.node.kernel.world().starts, 2);
        assert!(agent.node.kernel.world().aside.is_empty(), "what was before is still aside");
        // A replay does nothing.
        agent.node.kernel.world().contents.insert(ID, 6);
        assert!(matches!(agent.reconciler.operate(sync(1, 2)).await, CommandReply::Done(_)));
        assert_eq!(content(agent.node), (6, Some(1)));
        // One that is stopped is not started.
        agent.reach(&ContainerSpec { desired: Desired::Stopped { force: false }, ..received(3) }).await;
        agent.reconciler.operate(sync(2, 4)).await;
        assert_eq!(agent.outcome(sync(2, 4).id).await.failure, None);
        assert_eq!((content(agent.node).0, agent.node.kernel.world().starts), (5, 2));
    });
}

#[test]
fn a_sync_of_what_is_not_there_stops_nothing() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&received(1)).await;
        agent.reconciler.operate(sync(1, 2)).await;
        assert_eq!(agent.outcome(sync(1, 2).id).await.failure.unwrap().code.as_str(), "transfer_missing");
        assert_eq!(agent.node.kernel.world().signals(), (0, 0));
        assert_eq!(content(agent.node), (0, None));
    });
}

#[test]
fn a_container_that_does_not_start_after_a_sync_is_as_it_was() {
    for step in ["mount", "create", "start"] {
        let node = Node::new();
        node.run(async |agent| {
            agent.reach(&received(1)).await;
            bring(agent.node);
            agent.node.kernel.fault(step, Fault::Fail, usize::MAX);
            agent.reconciler.operate(sync(1, 2)).await;
            let outcome = agent.outcome(sync(1, 2).id).await;
            agent.node.kernel.world().faults.clear();
            assert_eq!(outcome.failure.expect(step).code.as_str(), "sync_failed", "{step}");
            agent.in_state(State::Running).await;
            agent.node.kernel.until("what was kept is gone", |world| world.snapshots.is_empty()).await;
            assert_eq!(content(agent.node), (1, None), "{step}");
            assert!(agent.node.kernel.world().aside.is_empty());
        });
    }
}

#[test]
fn a_sync_whose_storage_fails_is_tried_again_and_given_up_in_the_end() {
    for step in ["take", "swap"] {
        let node = Node::new();
        node.run(async |agent| {
            agent.reach(&received(1)).await;
            bring(agent.node);
            agent.node.kernel.fault(step, Fault::Fail, usize::MAX);
            agent.reconciler.operate(sync(1, 2)).await;
            agent.in_state(State::Failed).await;
        });
        let mut record = node.records().load().unwrap().pop().unwrap().unwrap();
        *record.operations[0].begun_at.as_mut().unwrap() -= 60_000;
        node.records().save_blocking(&record).unwrap();
        node.run(async |agent| {
            let outcome = agent.outcome(sync(1, 2).id).await;
            assert_eq!(outcome.failure.expect(step).code.as_str(), "sync_failed", "{step}");
            agent.in_state(State::Running).await;
            agent.node.kernel.until("what was kept is gone", |world| world.snapshots.is_empty()).await;
            assert_eq!(content(agent.node), (1, None), "{step}");
        });
    }
}

/// What the owner had is in place or in the snapshot, whatever is said of the sync and whenever the agent died.
#[test]
fn a_sync_given_up_after_a_death_at_any_call_loses_nothing() {
    for desired in [Desired::Running { run: 1 }, Desired::Stopped { force: false }] {
        let mut call = 1;
        while given_up(desired, call, false) | given_up(desired, call, true) {
            call += 1;
        }
        assert!(call > 8, "only {call} calls");
    }
}

/// True where the agent died at that call of a sync.
fn given_up(desired: Desired, call: usize, after_effect: bool) -> bool {
    let said = format!("{desired:?}, call {call}, after its effect: {after_effect}");
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&ContainerSpec { desired, ..received(1) }).await;
        bring(agent.node);
    });
    let made = node.kernel.world().calls.len();
    node.kernel.world().crash = Some(CrashAt { call: made + call, after_effect });
    let ended = node.life(async |agent| {
        agent.reconciler.operate(sync(1, 2)).await;
        agent.outcome(sync(1, 2).id).await;
    });
    // It is away for longer than the operation may take.
    let mut record = node.records().load().unwrap().pop().unwrap().unwrap();
    for accepted in &mut record.operations {
        if let Some(begun_at) = accepted.begun_at.as_mut() {
            *begun_at -= 60_000;
        }
    }
    node.records().save_blocking(&record).unwrap();
    node.run(async |agent| {
        if ended.is_none() {
            // It may have died before it was accepted.
            agent.reconciler.operate(sync(1, 2)).await;
        }
        let failed = agent.outcome(sync(1, 2).id).await.failure.is_some();
        agent.node.kernel.until("what is aside is gone", |world| world.aside.is_empty()).await;
        agent.node.kernel.until("what a failed one kept is gone", |world| !failed || world.snapshots.is_empty()).await;
        let expected = if failed { (1, None) } else { (5, Some(1)) };
        assert_eq!(content(agent.node), expected, "{said}");
    });
    ended.is_none()
}
