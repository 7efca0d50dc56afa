//! The SSH key is in its file before the first process starts, follows its specification, and keeps nothing from running.

use crate::reconcile::testing::*;
use hoody_protocol::{
    bounded::Text,
    container::{ContainerSpec, State, StatusReport},
};

const KEY: &str = "ssh-ed25519 AAAAone";
const OTHER: &str = "ssh-ed25519 AAAAtwo";

fn keyed(generation: u64, key: Option<&str>) -> ContainerSpec {
    ContainerSpec { ssh_public_key: key.map(Text::truncated), ..running(generation, 1) }
}

fn placed(node: &Node) -> Option<String> {
    node.kernel.world().ssh_keys[&ID].clone()
}

#[test]
fn it_follows_its_specification_without_a_restart() {
    let node = Node::new();
    node.run(async |agent| {
        for (generation, key) in [(1, Some(KEY)), (2, Some(OTHER)), (3, None), (4, Some(KEY))] {
            let status = agent.reach(&keyed(generation, key)).await;
            assert_eq!((status.state, status.ssh_key_error), (State::Running, None));
            assert_eq!(placed(agent.node).as_deref(), key);
        }
    });
    let world = node.kernel.world();
    let order = |step: &str| world.calls.iter().position(|call| *call == step).unwrap();
    assert!(order("ssh key") < order("start"), "{:?}", world.calls);
    assert_eq!(world.starts, 1);
}

#[test]
fn one_that_changed_while_no_agent_ran_is_placed_by_the_next() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&keyed(1, None)).await;
    });
    node.kernel.world().ssh_keys.insert(ID, Some("stale".to_owned()));
    node.run(async |agent| {
        agent.reach(&keyed(2, None)).await;
    });
    assert_eq!(placed(&node), None);
}

#[test]
fn one_that_cannot_be_placed_is_said_and_tried_again() {
    let node = Node::new();
    node.run(async |agent| {
        agent.node.kernel.fault("ssh key", Fault::Fail, 2);
        let status = agent.reach(&keyed(1, Some(KEY))).await;
        assert_eq!(status.state, State::Running);
        assert_eq!(status.ssh_key_error.unwrap().code.as_str(), "ssh_key_not_placed");
        let version = keyed(1, Some(KEY)).version;
        let said =
            |status: &StatusReport| status.version == version && status.converged && status.ssh_key_error.is_none();
        agent.status("the key in its file", said).await;
    });
    assert_eq!(placed(&node).as_deref(), Some(KEY));
}
