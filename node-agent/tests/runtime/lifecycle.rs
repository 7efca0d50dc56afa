//! From create to delete, and nothing left.

use crate::harness::{Node, PATIENCE, until};
use hoody_agent::runtime::{Process, Runtime, RuntimeError};

#[tokio::test]
async fn a_container_lives_from_create_to_delete_and_leaves_nothing() {
    let node = Node::new();
    let bundle = node.bundle(&["/bin/probe", "term", "7"]);
    let id = bundle.id;
    assert_eq!(node.runtime.state(id).await.unwrap(), Process::Absent);
    let pid = node.runtime.create(&bundle).await.unwrap();
    assert_eq!(node.runtime.state(id).await.unwrap(), Process::Created { pid });
    assert_eq!(node.runtime.create(&bundle).await.unwrap(), pid, "create is idempotent");
    node.runtime.start(id).await.unwrap();
    node.runtime.start(id).await.unwrap();
    assert_eq!(node.runtime.state(id).await.unwrap(), Process::Running { pid });
    assert_eq!(node.runtime.create(&bundle).await.unwrap(), pid);
    assert_eq!(node.runtime.inventory().await.unwrap(), [id]);
    until("the program is ready", || node.log(id).contains("ready"));
    node.runtime.signal_stop(id, false).await.unwrap();
    tokio::time::timeout(PATIENCE, node.runtime.wait(id)).await.unwrap().unwrap();
    assert_eq!(node.runtime.state(id).await.unwrap(), Process::Exited { code: Some(7), oom_killed: false });
    assert!(matches!(node.runtime.start(id).await, Err(RuntimeError::State { .. })));
    node.runtime.delete(id).await.unwrap();
    assert_eq!(node.traces(), Vec::<String>::new());
    assert_eq!(node.runtime.state(id).await.unwrap(), Process::Absent);
    node.runtime.delete(id).await.unwrap();
    node.runtime.wait(id).await.unwrap();
}
