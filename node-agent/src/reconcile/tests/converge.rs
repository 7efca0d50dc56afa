//! The way up, and what happens to a first process that runs.

use crate::reconcile::testing::*;
use crate::runtime::Process;
use hoody_protocol::container::{Desired, State};

#[test]
fn a_new_container_is_created_stopped_and_started_in_the_order_that_is_safe() {
    let node = Node::new();
    node.run(async |agent| {
        let status = agent.reach(&stopped(1, false)).await;
        assert_eq!((status.state, status.cause, status.exit_code), (State::Stopped, None, None));
        assert_eq!(agent.node.kernel.world().starts, 0);
        let status = agent.reach(&running(2, 1)).await;
        assert_eq!(status.state, State::Running);
        assert!(status.started_at.is_some() && status.address.is_some());
    });
    // The kernel in memory demands mount before create, policy before link, both before start.
    let world = node.kernel.world();
    let made: Vec<_> = world
        .calls
        .iter()
        .filter(|step| ["image", "root", "mount", "create", "policy", "attach", "start"].contains(step))
        .collect();
    assert_eq!(made, [&"image", &"root", &"mount", &"create", &"policy", &"attach", &"start"]);
    drop(world);
    assert_eq!(states(&node), [State::Creating, State::Stopped, State::Starting, State::Running]);
}

#[test]
fn a_first_process_that_ends_by_itself_is_not_started_again_until_it_is_asked_for() {
    let node = Node::new();
    node.run(async |agent| {
        let kernel = &agent.node.kernel;
        agent.reach(&running(1, 1)).await;
        kernel.exit(ID, 3, false);
        let status = agent.status("the end", |status| status.state == State::Stopped).await;
        assert!(status.converged);
        assert_eq!((status.exit_code, status.cause.unwrap().code.as_str()), (Some(3), "exited"));
        assert!(kernel.world().links.is_empty() && kernel.world().mounts.is_empty());
        // Not by another specification with the same start request, nor by time.
        let mut other = running(2, 1);
        other.limits.pids = 9;
        assert_eq!(agent.reach(&other).await.state, State::Stopped);
        tokio::time::sleep(std::time::Duration::from_secs(600)).await;
        assert_eq!(kernel.world().starts, 1);
        assert_eq!(agent.reach(&running(3, 2)).await.state, State::Running);
        assert_eq!(kernel.world().starts, 2);
    });
}

#[test]
fn an_end_for_want_of_memory_says_so() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&running(1, 1)).await;
        agent.node.kernel.exit(ID, 137, true);
        let status = agent.status("the end", |status| status.state == State::Stopped).await;
        assert_eq!((status.exit_code, status.cause.unwrap().code.as_str()), (Some(137), "out_of_memory"));
    });
}

#[test]
fn a_process_that_is_just_exiting_is_waited_for() {
    let node = Node::new();
    node.run(async |agent| {
        let kernel = &agent.node.kernel;
        agent.reach(&running(1, 1)).await;
        let looked = {
            let mut world = kernel.world();
            world.exiting = true;
            world.links.clear();
            world.count("attached?")
        };
        kernel.until("a pass in between", |world| world.count("attached?") > looked).await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        kernel.exit(ID, 137, true);
        let status = agent.status("the end", |status| status.state == State::Stopped).await;
        assert_eq!(status.cause.unwrap().code.as_str(), "out_of_memory");
    });
    assert!(!states(&node).contains(&State::Failed), "{:?}", states(&node));
}

#[test]
fn a_link_that_cannot_be_made_for_a_living_process_is_a_failure() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&running(1, 1)).await;
        {
            let mut world = agent.node.kernel.world();
            world.exiting = true;
            world.links.clear();
        }
        let status = agent.status("the failure", |status| status.state == State::Failed).await;
        assert_eq!(status.cause.unwrap().code.as_str(), "network_failed");
        agent.node.kernel.world().exiting = false;
        agent.status("the repair", |status| status.state == State::Running).await;
    });
}

#[test]
fn a_container_is_frozen_and_thawed_without_another_start() {
    let node = Node::new();
    node.run(async |agent| {
        let paused = |generation| spec(generation, Desired::Paused { run: 1 });
        assert_eq!(agent.reach(&paused(1)).await.state, State::Paused);
        assert!(matches!(agent.node.kernel.world().processes[&ID], Process::Paused { .. }));
        assert_eq!(agent.reach(&running(2, 1)).await.state, State::Running);
        assert!(matches!(agent.node.kernel.world().processes[&ID], Process::Running { .. }));
        assert_eq!(agent.reach(&paused(3)).await.state, State::Paused);
        assert_eq!(agent.node.kernel.world().starts, 1);
    });
}

#[test]
fn limits_change_while_it_runs_and_while_it_does_not() {
    let node = Node::new();
    node.run(async |agent| {
        let limited = |generation, desired, disk_bytes| {
            let mut spec = spec(generation, desired);
            spec.limits.disk_bytes = disk_bytes;
            spec.limits.pids = generation as u32 + 10;
            spec
        };
        agent.reach(&limited(1, Desired::Running { run: 1 }, 20 << 20)).await;
        agent.reach(&limited(2, Desired::Running { run: 1 }, 30 << 20)).await;
        let limits = |agent: &Agent<'_>| {
            let world = agent.node.kernel.world();
            (world.roots[&ID] >> 20, world.limits[&ID].pids)
        };
        assert_eq!(limits(&agent), (30, 12));
        agent.reach(&limited(3, Desired::Stopped { force: false }, 30 << 20)).await;
        agent.reach(&limited(4, Desired::Stopped { force: false }, 40 << 20)).await;
        agent.reach(&limited(5, Desired::Running { run: 2 }, 40 << 20)).await;
        assert_eq!(limits(&agent), (40, 15));
    });
}

#[test]
fn what_drifts_is_put_back() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&running(1, 1)).await;
        let kernel = &agent.node.kernel;
        kernel.world().links.clear();
        kernel.world().rules.clear();
        kernel.until("the repair", |world| world.links.contains_key(&ID) && world.rules.contains_key(&ID)).await;
        assert_eq!(kernel.world().starts, 1);
    });
}
