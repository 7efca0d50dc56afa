//! A container whose file system comes from another server.

use crate::reconcile::testing::*;
use hoody_protocol::{
    container::{ContainerSpec, Desired, State},
    id::TransferId,
};

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
