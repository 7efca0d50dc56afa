//! Rules that the server refuses.

use crate::reconcile::testing::*;
use hoody_protocol::{container::State, firewall::FirewallSpec};

fn with_rules(generation: u64, rules: FirewallSpec) -> hoody_protocol::container::ContainerSpec {
    let mut spec = running(generation, 1);
    spec.firewall = rules;
    spec
}

#[test]
fn refused_while_it_runs_the_old_rules_stand_and_the_refusal_is_reported() {
    let node = Node::new();
    node.run(async |agent| {
        let kernel = &agent.node.kernel;
        agent.reach(&with_rules(1, dropping())).await;
        kernel.fault("policy", Fault::Fail, usize::MAX);
        let status = agent.reach(&with_rules(2, FirewallSpec::default())).await;
        assert_eq!(status.state, State::Running);
        assert_eq!(status.firewall_error.unwrap().code.as_str(), "firewall_refused");
        assert_eq!(kernel.world().rules[&ID], dropping());
        kernel.world().faults.clear();
        let status = agent.reach(&with_rules(3, FirewallSpec::default())).await;
        assert_eq!(status.firewall_error, None);
        assert_eq!(kernel.world().rules[&ID], FirewallSpec::default());
        kernel.fault("policy", Fault::Fail, usize::MAX);
        agent.reach(&with_rules(4, dropping())).await;
    });
    // An agent that is started again finds the rules of the one before, and the container runs on.
    node.run(async |agent| {
        let status = agent.converged(with_rules(4, dropping()).version).await;
        assert_eq!((status.state, status.firewall_error.is_some()), (State::Running, true));
    });
    assert_eq!(node.kernel.world().starts, 1);
}

#[test]
fn refused_at_the_start_nothing_starts_and_nothing_is_attached() {
    let node = Node::new();
    node.kernel.fault("policy", Fault::Fail, usize::MAX);
    node.run(async |agent| {
        agent.apply(&with_rules(1, dropping())).await;
        let status = agent.status("the failure", |status| status.state == State::Failed).await;
        assert_eq!(status.cause.unwrap().code.as_str(), "firewall_failed");
        let world = agent.node.kernel.world();
        assert_eq!((world.starts, world.links.len(), world.count("attach")), (0, 0, 0));
    });
}
