use super::*;
use crate::store::{
    link_testing::{container, number, operation, server, text},
    testing::each_backend,
};
use hoody_protocol::container::State;

fn version(generation: u64) -> SpecVersion {
    SpecVersion { epoch: 1, generation }
}

async fn acknowledged(store: &Store, server: ServerId, id: ContainerId, held: SpecVersion) {
    let mut tx = store.begin().await.unwrap();
    acknowledge(&mut tx, server, id, held).await.unwrap();
    tx.commit().await.unwrap();
}

fn held(container: ContainerId, generation: u64) -> InventoryEntry {
    InventoryEntry { container, version: version(generation), state: State::Running, sequence: 1 }
}

#[tokio::test]
async fn work_is_what_was_not_acknowledged_and_open_operations_in_sequence() {
    each_backend(|store| async move {
        let (one, other) = (server(&store, "one").await, server(&store, "two").await);
        let spec = container(&store, one, 3, vec![]).await;
        let foreign = container(&store, other, 1, vec![]).await;
        let before = operation(&store, one, spec.id, 2, 100).await;
        let after = operation(&store, one, spec.id, 4, 100).await;
        assert_eq!(containers_with_work(&store, one).await.unwrap(), [spec.id]);
        let items_now = items(&store, one, spec.id).await.unwrap();
        assert_eq!(items_now.iter().map(Item::sequence).collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(items_now[1], Item::Spec { spec: Box::new(spec.clone()), sealed: String::new() });
        assert_eq!(items(&store, one, foreign.id).await.unwrap(), [], "of another server");

        acknowledged(&store, other, spec.id, version(3)).await;
        assert_eq!(items(&store, one, spec.id).await.unwrap().len(), 3, "another server cannot acknowledge");
        acknowledged(&store, one, spec.id, version(3)).await;
        acknowledged(&store, one, spec.id, version(2)).await;
        assert_eq!(items(&store, one, spec.id).await.unwrap().len(), 2, "an old answer takes nothing back");
        for id in [before, after] {
            let outcome = OperationOutcome { id, container: spec.id, failure: None, bytes: None, at: 1 };
            let mut tx = store.begin().await.unwrap();
            assert!(!record_outcome(&mut tx, other, &outcome, 5).await.unwrap());
            assert!(record_outcome(&mut tx, one, &outcome, 5).await.unwrap());
            assert!(!record_outcome(&mut tx, one, &outcome, 6).await.unwrap(), "the first outcome counts");
            tx.commit().await.unwrap();
        }
        assert_eq!(containers_with_work(&store, one).await.unwrap(), []);
        assert_eq!(servers_with_work(&store).await.unwrap(), [other]);
    })
    .await;
}

#[tokio::test]
async fn an_operation_is_dispatched_in_time_or_expires() {
    each_backend(|store| async move {
        let one = server(&store, "one").await;
        let spec = container(&store, one, 1, vec![]).await;
        let id = operation(&store, one, spec.id, 2, 100).await;
        let cause = Cause::new("operation_expired", "too late");
        assert!(!expire(&store, id, &cause, 99).await.unwrap());
        assert!(!mark_dispatched(&store, id, 100).await.unwrap());
        assert!(mark_dispatched(&store, id, 99).await.unwrap());
        assert!(!mark_dispatched(&store, id, 99).await.unwrap());
        assert!(!expire(&store, id, &cause, 200).await.unwrap(), "what was sent may have begun");
        let late = operation(&store, one, spec.id, 3, 100).await;
        assert!(expire(&store, late, &cause, 100).await.unwrap());
        let failure = text(&store, "SELECT failure FROM operations WHERE state = 'expired'").await.unwrap();
        assert_eq!(serde_json::from_str::<Cause>(&failure).unwrap(), cause);
    })
    .await;
}

#[tokio::test]
async fn an_inventory_leaves_exactly_the_differences() {
    each_backend(|store| async move {
        let (one, other) = (server(&store, "one").await, server(&store, "two").await);
        let same = container(&store, one, 2, vec![]).await.id;
        let lost = container(&store, one, 2, vec![]).await.id;
        let older = container(&store, one, 2, vec![]).await.id;
        let newer = container(&store, one, 2, vec![]).await.id;
        let unsaid = container(&store, one, 2, vec![]).await.id;
        let foreign = container(&store, other, 1, vec![]).await.id;
        for id in [same, lost, older, newer] {
            acknowledged(&store, one, id, version(2)).await;
        }
        let stray = ContainerId::generate();
        let inventory =
            [held(same, 2), held(older, 1), held(newer, 9), held(unsaid, 2), held(foreign, 1), held(stray, 1)];
        let mut tx = store.begin().await.unwrap();
        let difference = reconcile_inventory(&mut tx, one, &inventory).await.unwrap();
        tx.commit().await.unwrap();
        let mut unknown = vec![stray, foreign];
        unknown.sort();
        assert_eq!(difference.unknown.iter().map(|entry| entry.container).collect::<Vec<_>>(), unknown);
        assert_eq!(difference.ahead, [(newer, version(9))]);
        assert_eq!(difference.lost, 2);
        let mut expected = vec![lost, older];
        expected.sort();
        assert_eq!(containers_with_work(&store, one).await.unwrap(), expected);
        let sql = format!("SELECT acked_generation FROM containers WHERE id = '{foreign}'");
        assert_eq!(number(&store, &sql).await, 0);
    })
    .await;
}
