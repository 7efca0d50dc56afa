//! A container's egress: the packet filter before the relay, in both directions, and what is said of it.

use crate::{egress::listener_address, firewall::Egress, reconcile::testing::*};
use hoody_protocol::{
    bounded::{List, Text},
    container::{ContainerSpec, State},
    egress::{EgressSpec, Upstream, UpstreamKind},
};

fn with(generation: u64, egress: Option<EgressSpec>) -> ContainerSpec {
    ContainerSpec { egress, ..running(generation, 1) }
}

fn proxy(host: &str) -> Option<EgressSpec> {
    Some(EgressSpec::Proxy(Upstream {
        kind: UpstreamKind::Socks5,
        host: Text::truncated(host),
        port: 1080,
        credentials: None,
        dns: List::default(),
    }))
}

/// The upstream that the relay was told.
fn relayed(node: &Node) -> Option<String> {
    node.kernel.world().relayed.get(&ID).map(|upstream| upstream.host.to_string())
}

#[test]
fn it_is_in_force_from_the_first_packet_changes_and_ends() {
    let node = Node::new();
    node.run(async |agent| {
        let (kernel, node) = (&agent.node.kernel, agent.node);
        let status = agent.reach(&with(1, proxy("a.example"))).await;
        assert!(status.egress.is_some_and(|egress| egress.working));
        let address = status.address.unwrap();
        assert_eq!(kernel.world().egress[&ID], Egress::Proxy(listener_address(address)));
        assert_eq!(relayed(node).as_deref(), Some("a.example"));
        agent.reach(&with(2, proxy("b.example"))).await;
        assert_eq!(relayed(node).as_deref(), Some("b.example"));
        let status = agent.reach(&with(3, Some(EgressSpec::Block))).await;
        assert!(status.egress.is_some_and(|egress| egress.working));
        assert_eq!(kernel.world().egress[&ID], Egress::Block);
        assert_eq!(relayed(node), None);
        let status = agent.reach(&with(4, None)).await;
        assert_eq!(status.egress, None);
        assert_eq!(kernel.world().egress[&ID], Egress::Direct);
        agent.reach(&with(5, proxy("a.example"))).await;
    });
    // An agent that is started again sees to it, and one that stops the container leaves nothing of it.
    node.kernel.world().relayed.clear();
    node.run(async |agent| {
        agent.converged(with(5, None).version).await;
        assert_eq!(relayed(agent.node).as_deref(), Some("a.example"));
        agent.reach(&ContainerSpec { egress: proxy("a.example"), ..stopped(6, true) }).await;
        assert_eq!(relayed(agent.node), None);
    });
    assert_eq!(node.kernel.world().starts, 1);
}

#[test]
fn where_the_packet_filter_refuses_it_the_relay_goes_on_as_before() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&with(1, proxy("a.example"))).await;
        agent.node.kernel.fault("policy", Fault::Fail, usize::MAX);
        let status = agent.reach(&with(2, None)).await;
        assert_eq!((status.state, status.egress), (State::Running, None));
        assert!(status.firewall_error.is_some());
        assert_eq!(relayed(agent.node).as_deref(), Some("a.example"), "what is taken still has somewhere to go");
        agent.node.kernel.world().faults.clear();
        agent.reach(&with(3, None)).await;
        assert_eq!(relayed(agent.node), None);
    });
}
