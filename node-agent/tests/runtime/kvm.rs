//! `/dev/kvm`, where it was granted, and where it was not. Whether the kernel has KVM does not matter: what is asked is
//! how far a container gets.

use crate::harness::Node;
use hoody_agent::runtime::{Runtime, RuntimeError};
use std::path::Path;

/// Owner, mode and numbers, and then what opening it says.
const LOOK: &str = "stat -c '%u %g %a %t:%T' /dev/kvm; dd if=/dev/kvm of=/dev/null bs=1 count=0 2>&1";

#[tokio::test]
async fn only_a_container_that_was_granted_kvm_has_it() {
    let node = Node::new();
    let (_, text) = node.output(&["/bin/sh", "-c", LOOK]).await;
    assert!(text.contains("No such file"), "{text}");
    let mut bundle = node.bundle(&["/bin/sh", "-c", LOOK]);
    bundle.kvm = true;
    if !Path::new("/dev/kvm").exists() {
        let refused = node.runtime.create(&bundle).await;
        assert!(matches!(refused, Err(RuntimeError::NoKvm { .. })), "{refused:?}");
        return;
    }
    let (_, text) = node.output_of(&bundle).await;
    assert!(text.starts_with("0 0 660 a:e8"), "{text}");
    // Without the rule of its cgroup it were "Operation not permitted", without its owner "Permission denied".
    assert!(!text.contains("denied") && !text.contains("permitted") && !text.contains("No such file"), "{text}");
    assert_eq!(node.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn another_user_inside_does_not_have_it() {
    let node = Node::new();
    let mut bundle = node.bundle(&["/bin/sh", "-c", LOOK]);
    bundle.kvm = true;
    bundle.user = "web".into();
    if !Path::new("/dev/kvm").exists() {
        assert!(node.runtime.create(&bundle).await.is_err());
        return;
    }
    let (_, text) = node.output_of(&bundle).await;
    assert!(text.contains("Permission denied"), "{text}");
}
