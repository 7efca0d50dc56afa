//! Which specifications are taken.

use crate::reconcile::testing::*;
use hoody_protocol::{
    container::{Desired, State},
    id::UserId,
    image::{ImageConfig, ImageSpec},
    link::CommandReply,
    version::SpecVersion,
};

fn code(reply: CommandReply) -> String {
    match reply {
        CommandReply::Refused(cause) => cause.code.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn older_is_superseded_and_other_content_under_one_version_is_refused() {
    let node = Node::new();
    node.run(async |agent| {
        let held = stopped(5, false);
        agent.reach(&held).await;
        let reply = agent.reconciler.apply(running(4, 1)).await;
        assert_eq!(reply, CommandReply::Superseded { held: held.version });
        assert_eq!(agent.reconciler.apply(held.clone()).await, CommandReply::Accepted, "a replay changes nothing");
        let mut other = held.clone();
        other.autostart = !held.autostart;
        assert_eq!(code(agent.reconciler.apply(other).await), "version_conflict");
        // After the control plane's database was restored a smaller generation wins.
        let mut restored = running(1, 1);
        restored.version = SpecVersion { epoch: 2, generation: 1 };
        assert_eq!(agent.reach(&restored).await.state, State::Running);
    });
}

#[test]
fn what_never_changes_is_refused_in_another_form() {
    let node = Node::new();
    node.run(async |agent| {
        agent.reach(&stopped(1, false)).await;
        let mut stolen = stopped(2, false);
        stolen.owner = UserId::from_bytes([9; 12]);
        let mut other_image = stopped(2, false);
        let config = ImageConfig { workdir: "/x".to_owned().try_into().unwrap(), ..Default::default() };
        other_image.image = ImageSpec::new(Default::default(), config);
        for changed in [stolen, other_image] {
            assert_eq!(code(agent.reconciler.apply(changed).await), "immutable");
        }
        assert_eq!(agent.reconciler.inventory()[0].version.generation, 1);
    });
}

#[test]
fn a_new_epoch_begins_the_order_anew_and_may_move_the_container_to_another_owner() {
    let node = Node::new();
    node.run(async |agent| {
        let mut held = stopped(5, false);
        held.sequence = 40;
        agent.reach(&held).await;
        let mut restored = stopped(2, false);
        restored.version = SpecVersion { epoch: 2, generation: 2 };
        (restored.sequence, restored.owner) = (7, UserId::from_bytes([9; 12]));
        agent.reach(&restored).await;
        let entry = agent.reconciler.inventory()[0];
        assert_eq!((entry.version, entry.sequence), (restored.version, 7), "the lost state's numbers do not count");
        assert_eq!(agent.reconciler.held(restored.id).await.map(|spec| spec.owner), Some(restored.owner));
        // Not again within the epoch, and never back to the one before.
        let mut moved = stopped(3, false);
        moved.version = SpecVersion { epoch: 2, generation: 3 };
        assert_eq!(code(agent.reconciler.apply(moved).await), "immutable");
        assert_eq!(agent.reconciler.apply(held).await, CommandReply::Superseded { held: restored.version });
    });
}

#[test]
fn a_deletion_is_final() {
    let node = Node::new();
    node.reachable.send_replace(false);
    node.run(async |agent| {
        agent.apply(&running(1, 1)).await;
        agent.apply(&spec(2, Desired::Deleted)).await;
        assert_eq!(code(agent.reconciler.apply(running(3, 2)).await), "deleted");
        assert_eq!(code(agent.reconciler.operate(restart(1, 4)).await), "deleted");
        // A newer tombstone is one still, after a restored database for example.
        assert_eq!(agent.reconciler.apply(spec(5, Desired::Deleted)).await, CommandReply::Accepted);
        agent.node.reachable.send_replace(true);
        agent.forgotten().await;
    });
    node.kernel.world().assert_empty();
}

#[test]
fn what_cannot_be_carried_out_is_refused() {
    let node = Node::new();
    node.run(async |agent| {
        let mut invalid = Vec::from([running(1, 0), running(1, 1), running(1, 1), running(1, 1)]);
        invalid[1].limits.pids = 0;
        invalid[2].hostname = "-x".to_owned().try_into().unwrap();
        invalid[3].image.digest = hoody_protocol::image::Digest::of(b"another");
        for spec in invalid {
            assert_eq!(code(agent.reconciler.apply(spec).await), "invalid_specification");
        }
        assert_eq!(code(agent.reconciler.operate(restart(1, 1)).await), "unknown_container");
        assert!(agent.reconciler.inventory().is_empty());
    });
}

#[test]
fn the_inventory_shows_what_is_persisted_before_it_is_reached() {
    let node = Node::new();
    node.kernel.fault("image", Fault::Hang, usize::MAX);
    node.run(async |agent| {
        agent.apply(&running(1, 1)).await;
        agent.apply(&running(2, 1)).await;
        agent.reconciler.operate(restart(1, 7)).await;
        let entry = agent.reconciler.inventory()[0];
        assert_eq!((entry.version.generation, entry.sequence), (2, 7));
    });
}
