//! What a container sees of itself.

use crate::harness::Node;

#[tokio::test]
async fn names_environment_and_files_are_there() {
    let node = Node::new();
    let mut bundle = node.bundle(&["/bin/sh", "-c", "hostname; echo $A; pwd; cat /etc/resolv.conf /etc/hosts /etc/hostname; echo more >> /etc/hosts && echo writable"]);
    bundle.env.insert("A".into(), "b c=d".into());
    bundle.workdir = "/tmp".into();
    let (code, text) = node.output_of(&bundle).await;
    assert_eq!(code, Some(0), "{text}");
    for expected in [
        "probe-1\n",
        "b c=d\n",
        "/tmp\n",
        "nameserver 192.0.2.53\n",
        "127.0.0.1\tlocalhost\n",
        "127.0.1.1\tprobe-1\n",
        "writable\n",
    ] {
        assert!(text.contains(expected), "{expected:?} in {text}");
    }
}

#[tokio::test]
async fn files_of_the_node_cannot_be_filled() {
    let node = Node::new();
    let (_, text) =
        node.output(&["/bin/sh", "-c", "dd if=/dev/zero of=/etc/hosts bs=1M count=8 2>&1; wc -c < /etc/hosts"]).await;
    assert!(text.contains("No space left"), "{text}");
    let size: u64 = text.lines().last().unwrap().trim().parse().unwrap();
    assert!(size <= 256 << 10, "{size}");
}

#[tokio::test]
async fn root_inside_is_nobody_outside() {
    let node = Node::new();
    let bundle = node.bundle(&["/bin/sh", "-c", "id -u; touch /tmp/mine; exec sleep 1000"]);
    let pid = node.run(&bundle).await;
    crate::harness::until("the file is made", || node.root().join("tmp/mine").exists());
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(node.root().join("tmp/mine")).unwrap().uid(), node.ids.first);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap();
    assert!(uid.split('\t').all(|one| one == node.ids.first.to_string()), "{uid}");
    assert_eq!(
        std::fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap().split_whitespace().collect::<Vec<_>>(),
        ["0", &node.ids.first.to_string(), "65536"]
    );
    assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(), "500");
}

#[tokio::test]
async fn users_are_looked_up_in_the_image() {
    let node = Node::new();
    let mut bundle = node.bundle(&["/bin/id"]);
    bundle.user = "web".into();
    let (_, text) = node.output_of(&bundle).await;
    assert!(text.contains("uid=33(web) gid=34(web) groups=") && text.contains("110(ssl)"), "{text}");
    bundle.user = "nobody-here".into();
    let error = hoody_agent::runtime::Runtime::create(&node.runtime, &bundle).await.unwrap_err();
    assert!(error.to_string().contains("nobody-here"), "{error}");
    assert_eq!(node.traces(), Vec::<String>::new());
}
