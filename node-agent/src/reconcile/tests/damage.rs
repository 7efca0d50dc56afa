//! What strangers damage is put right by the next look, and reported.

use crate::reconcile::testing::*;
use hoody_protocol::container::{Desired, State};
use std::time::Duration;
use tokio::time::Instant;

/// The longest that damage stays: one drift interval and the look itself.
const SOON: Duration = Duration::from_secs(11);

#[test]
fn whatever_is_taken_from_a_running_container_is_back_after_one_look() {
    for damage in [Damage::Link, Damage::Rules, Damage::Bundle] {
        let node = Node::new();
        node.run(async |agent| {
            let kernel = &agent.node.kernel;
            agent.reach(&running(1, 1)).await;
            let whole = |world: &World| {
                world.links.contains_key(&ID) && world.rules.contains_key(&ID) && world.bundles.contains_key(&ID)
            };
            assert!(whole(&kernel.world()));
            kernel.damage(ID, damage);
            assert!(!whole(&kernel.world()), "{damage:?}");
            let damaged = Instant::now();
            kernel.until("the repair", whole).await;
            assert!(damaged.elapsed() <= SOON, "{damage:?} stayed for {:?}", damaged.elapsed());
            let is_repair = |cause: &hoody_protocol::container::Cause| cause.code.as_str() == "repaired";
            let report = agent.status("the repair", |status| status.cause.as_ref().is_some_and(is_repair)).await;
            assert!(report.state == State::Running && report.converged, "{report:?}");
            // Said once: the look after it finds nothing.
            agent.view(|view| view.cause.is_none()).await;
            assert_eq!(kernel.world().starts, 1, "{damage:?} is no reason for another start");
        });
    }
}

#[test]
fn the_base_of_the_firewall_is_repaired_without_any_container() {
    let node = Node::new();
    node.run(async |agent| {
        let kernel = &agent.node.kernel;
        kernel.until("the first look", |world| world.prepared).await;
        kernel.damage(ID, Damage::Base);
        let damaged = Instant::now();
        kernel.until("the repair", |world| world.prepared).await;
        assert!(damaged.elapsed() <= SOON);
    });
}

#[test]
fn changes_that_the_kernel_tells_of_are_repaired_at_once() {
    let node = Node::new();
    node.run(async |agent| {
        let kernel = &agent.node.kernel;
        agent.reach(&running(1, 1)).await;
        kernel.damage(ID, Damage::Base);
        kernel.damage(ID, Damage::Rules);
        let damaged = Instant::now();
        kernel.tell();
        kernel.until("the repair", |world| world.prepared && world.rules.contains_key(&ID)).await;
        assert!(damaged.elapsed() < Duration::from_secs(1), "{:?}", damaged.elapsed());
    });
}

#[test]
fn a_lost_monitor_is_said_and_gone_with_the_next_run() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&running(1, 1)).await;
        agent.node.kernel.damage(ID, Damage::Monitor);
        let lost = agent.view(|view| view.cause.is_some()).await;
        assert_eq!((lost.state, lost.cause.unwrap().code.as_str()), (State::Running, "monitor_lost"));
        agent.reach(&spec(2, Desired::Stopped { force: false })).await;
        agent.reach(&running(3, 2)).await;
        agent.view(|view| view.state == State::Running && view.cause.is_none()).await;
    });
}
