//! Shares are mounted before the first process starts, follow their specification, and keep nothing from running. RAM
//! disks outlive runs.

use crate::reconcile::testing::*;
use hoody_protocol::{
    bounded::Text,
    container::{ContainerSpec, Desired, State, StatusReport},
    id::{ContainerId, ShareId},
    share::{RamdiskScope, ShareMount, ShareProblem},
    time::now_ms,
};

const SOURCE: ContainerId = ContainerId::from_bytes([8; 12]);
const SHARE: ShareId = ShareId::from_bytes([9; 12]);

fn share(readonly: bool) -> ShareMount {
    let (path, name) = (Text::truncated("/srv/data"), Text::truncated("data"));
    ShareMount { id: SHARE, source: SOURCE, path, name, place: None, readonly, until: None }
}

fn sharing(generation: u64, shares: &[ShareMount]) -> ContainerSpec {
    ContainerSpec { shares: shares.to_vec().try_into().unwrap(), ..running(generation, 1) }
}

fn mounted(node: &Node) -> Vec<ShareMount> {
    node.kernel.world().shares.get(&ID).cloned().unwrap_or_default()
}

#[test]
fn they_follow_their_specification_without_a_restart() {
    let node = Node::new();
    node.run(async |agent| {
        let renamed = ShareMount { name: Text::truncated("other"), ..share(true) };
        let placed = ShareMount { place: Some(Text::truncated("/srv/here")), ..renamed.clone() };
        let all = [vec![share(true)], vec![share(false)], vec![], vec![share(true)], vec![renamed], vec![placed]];
        for (generation, shares) in (1..).zip(all) {
            let status = agent.reach(&sharing(generation, &shares)).await;
            assert_eq!((status.state, status.cause, &status.share_failures[..]), (State::Running, None, &[][..]));
            assert_eq!(mounted(agent.node), shares);
        }
    });
    let world = node.kernel.world();
    let order = |step: &str| world.calls.iter().position(|call| *call == step).unwrap();
    assert!(order("shares") < order("create") && order("create") < order("start"), "{:?}", world.calls);
    assert_eq!(world.starts, 1);
}

#[test]
fn one_that_is_taken_away_is_mounted_again_and_said_so() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&sharing(1, &[share(true)])).await;
        agent.node.kernel.world().shares.insert(ID, Vec::new());
        let repaired =
            |status: &StatusReport| status.cause.as_ref().is_some_and(|cause| cause.message.contains("shares"));
        agent.status("the repair", repaired).await;
    });
    assert_eq!(mounted(&node), [share(true)]);
}

#[test]
fn one_whose_folder_is_missing_is_said_and_mounted_once_it_is_there() {
    let node = Node::new();
    node.kernel.world().lost_sources.insert(SOURCE);
    node.run(async |agent| {
        let status = agent.reach(&sharing(1, &[share(true)])).await;
        let failures: Vec<_> = status.share_failures.iter().map(|failure| (failure.id, failure.problem)).collect();
        assert_eq!((status.state, failures), (State::Running, vec![(SHARE, ShareProblem::SourceMissing)]));
        agent.node.kernel.world().lost_sources.clear();
        let whole = |status: &StatusReport| status.share_failures.is_empty() && status.converged;
        let status = agent.status("the share", whole).await;
        assert_eq!(status.cause, None, "not a repair");
    });
    assert_eq!(mounted(&node), [share(true)]);
}

#[test]
fn a_container_without_the_folder_is_asked_to_restart() {
    let node = Node::new();
    node.kernel.world().without_folder.insert(ID);
    node.run(async |agent| {
        agent.reach(&running(1, 1)).await;
        let status = agent.reach(&sharing(2, &[share(true)])).await;
        assert_eq!(status.share_failures[0].problem, ShareProblem::RestartRequired);
    });
}

#[test]
fn one_with_a_place_asks_for_a_restart_where_there_can_be_none() {
    let node = Node::new();
    node.kernel.world().without_places.insert(ID);
    let placed = ShareMount { place: Some(Text::truncated("/srv/here")), ..share(true) };
    let other = ShareMount { id: ShareId::from_bytes([7; 12]), name: Text::truncated("other"), ..share(true) };
    node.run(async |agent| {
        agent.reach(&running(1, 1)).await;
        let status = agent.reach(&sharing(2, &[other.clone(), placed])).await;
        let failures: Vec<_> = status.share_failures.iter().map(|failure| (failure.id, failure.problem)).collect();
        assert_eq!(failures, [(SHARE, ShareProblem::RestartRequired)]);
        assert!(agent.reach(&sharing(3, &[other, share(true)])).await.share_failures.is_empty());
    });
}

#[test]
fn an_expired_one_is_not_mounted_whatever_the_specification_says() {
    let node = Node::new();
    node.run(async |agent| {
        let expired = ShareMount { until: Some(now_ms() - 1), ..share(true) };
        let status = agent.reach(&sharing(1, &[expired])).await;
        assert_eq!((status.state, status.share_failures.len()), (State::Running, 0));
    });
    assert_eq!(mounted(&node), []);
}

#[test]
fn shares_that_cannot_be_taken_away_fail_the_pass_until_they_can() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&sharing(1, &[share(false)])).await;
        agent.node.kernel.fault("shares", Fault::Fail, 2);
        agent.apply(&sharing(2, &[])).await;
        let failed = |status: &StatusReport| status.state == State::Failed;
        assert_eq!(agent.status("the failure", failed).await.cause.unwrap().code.as_str(), "shares_failed");
        let gone = |status: &StatusReport| {
            status.version.generation == 2 && status.converged && status.state == State::Running
        };
        agent.status("the shares are gone", gone).await;
    });
    assert_eq!(mounted(&node), []);
}

#[test]
fn a_ramdisk_outlives_runs_and_goes_with_the_container() {
    let node = Node::new();
    let with_disk = |spec: ContainerSpec, scope| ContainerSpec { ramdisk: scope, ..spec };
    node.run(async |agent| {
        let container = Some(RamdiskScope::Container);
        let disk = |node: &Node| node.kernel.world().ramdisks.get(&ID).copied();
        agent.reach(&with_disk(running(1, 1), container)).await;
        let made = disk(agent.node).unwrap();
        assert_eq!((made.scope, made.bytes), (RamdiskScope::Container, LIMITS.memory_bytes / 2));
        agent.reach(&with_disk(stopped(2, false), container)).await;
        assert_eq!(disk(agent.node), Some(made));
        // Not below its feet: with the next stop.
        agent.reach(&with_disk(running(3, 2), container)).await;
        agent.reach(&with_disk(running(4, 2), None)).await;
        assert_eq!(disk(agent.node), Some(made));
        agent.reach(&stopped(5, false)).await;
        assert_eq!(disk(agent.node), None);
        agent.reach(&with_disk(running(6, 3), Some(RamdiskScope::Project))).await;
        agent.apply(&with_disk(spec(7, Desired::Deleted), Some(RamdiskScope::Project))).await;
        agent.status("the deletion", |status| status.state == State::Deleted).await;
        assert_eq!(disk(agent.node), None);
    });
}
