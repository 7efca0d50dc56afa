//! Limits change while a container runs, and what the kernel refuses is said.

use crate::reconcile::testing::*;
use hoody_protocol::container::{ContainerSpec, Limits, State};

fn limited(generation: u64, limits: Limits) -> ContainerSpec {
    ContainerSpec { limits, ..running(generation, 1) }
}

#[test]
fn all_of_them_change_without_a_restart() {
    let node = Node::new();
    let more =
        Limits { cpu_millis: 700, memory_bytes: 128 << 20, disk_bytes: 96 << 20, pids: 99, network_mbit: Some(7) };
    node.run(async |agent| {
        agent.reach(&limited(1, LIMITS)).await;
        assert_eq!(agent.node.kernel.world().rates[&ID], Some(100));
        for (generation, limits) in [(2, more), (3, Limits { network_mbit: None, ..LIMITS })] {
            let status = agent.reach(&limited(generation, limits)).await;
            assert_eq!((status.state, status.limits_error), (State::Running, None));
            let world = agent.node.kernel.world();
            assert_eq!(
                (world.limits[&ID], world.roots[&ID], world.rates[&ID]),
                (limits, limits.disk_bytes, limits.network_mbit)
            );
        }
    });
    assert_eq!(node.kernel.world().starts, 1);
    // An agent that is started again does not know what is in force, and sees to it.
    node.kernel.world().limits.clear();
    node.kernel.world().rates.clear();
    node.run(async |agent| {
        agent.converged(limited(3, LIMITS).version).await;
        let world = agent.node.kernel.world();
        assert_eq!((world.rates[&ID], world.limits[&ID].network_mbit, world.starts), (None, None, 1));
    });
}

#[test]
fn a_rate_that_others_took_away_is_put_back() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&limited(1, LIMITS)).await;
        agent.node.kernel.world().rates.insert(ID, None);
        let repaired = |status: &hoody_protocol::container::StatusReport| {
            status
                .cause
                .as_ref()
                .is_some_and(|cause| cause.code.as_str() == "repaired" && cause.message.contains("rate"))
        };
        agent.status("the repair", repaired).await;
        assert_eq!(agent.node.kernel.world().rates[&ID], LIMITS.network_mbit);
    });
}

#[test]
fn what_is_refused_is_said_and_tried_again_while_the_container_runs_on() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&limited(1, LIMITS)).await;
        agent.node.kernel.fault("limits", Fault::Fail, 2);
        let less = Limits { memory_bytes: 32 << 20, ..LIMITS };
        let status = agent.reach(&limited(2, less)).await;
        assert_eq!(status.state, State::Running);
        assert_eq!(status.limits_error.unwrap().code.as_str(), "limits_refused");
        assert_eq!(agent.node.kernel.world().limits[&ID], LIMITS, "those before hold");
        let version = limited(2, less).version;
        let said = |status: &hoody_protocol::container::StatusReport| {
            status.version == version && status.converged && status.limits_error.is_none()
        };
        agent.status("the limits in force", said).await;
        assert_eq!(agent.node.kernel.world().limits[&ID], less);
    });
    assert_eq!(node.kernel.world().starts, 1);
}

#[test]
fn a_link_made_anew_has_its_rate() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&limited(1, LIMITS)).await;
        let kernel = &agent.node.kernel;
        kernel.world().links.clear();
        kernel.world().rates.clear();
        kernel.until("the rate", |world| world.rates.get(&ID) == Some(&Some(100))).await;
    });
}

#[test]
fn processes_ended_for_lack_of_memory_are_counted_while_the_container_runs() {
    let node = Node::new();
    node.run(async |agent| {
        assert_eq!(agent.reach(&limited(1, LIMITS)).await.oom_kills, 0);
        agent.node.kernel.world().oom_kills = 3;
        let status = agent.status("the kills", |status| status.oom_kills == 3).await;
        assert_eq!((status.state, status.converged), (State::Running, true));
        // Once it has ended, its end is what is said.
        agent.node.kernel.exit(ID, 137, true);
        let status = agent.status("the end", |status| status.state == State::Stopped).await;
        assert_eq!((status.oom_kills, status.cause.unwrap().code.as_str()), (0, "out_of_memory"));
    });
}
