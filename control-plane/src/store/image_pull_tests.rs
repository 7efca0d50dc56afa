//! On both databases: whose turn it is, takeover, and that an unpulled container is not sent.

use super::*;
use crate::store::{
    dispatch,
    link_testing::{container, execute, server},
    testing::each_backend,
};

async fn queue(store: &Store, id: ContainerId) {
    let mut tx = store.begin().await.unwrap();
    let pull = NewPull {
        container: id,
        reference: "a.example/b:c".to_owned(),
        architecture: "arm64".to_owned(),
        credentials: "sealed".to_owned(),
    };
    insert(&mut tx, &pull).await.unwrap();
    tx.commit().await.unwrap();
}

/// What the replica claims that is at work on all it has.
async fn claimed(store: &Store, replica: &str, limit: usize) -> Vec<ContainerId> {
    let held = sqlx::query_scalar::<_, String>("SELECT container_id FROM image_pulls WHERE claimed_by = $1");
    let held = held.bind(replica.to_owned()).fetch_all(store.reader()).await.unwrap();
    let at_work: Vec<ContainerId> = held.into_iter().map(|id| id.parse().unwrap()).collect();
    claimed_beside(store, replica, &at_work, limit).await
}

async fn claimed_beside(store: &Store, replica: &str, at_work: &[ContainerId], limit: usize) -> Vec<ContainerId> {
    claim(store, replica, at_work, limit).await.unwrap().into_iter().map(|pull| pull.container).collect()
}

#[tokio::test]
async fn a_pull_is_one_replicas_until_that_is_gone() {
    each_backend(|store| async move {
        let server = server(&store, "one").await;
        let id = container(&store, server, 1, Vec::new()).await.id;
        queue(&store, id).await;
        replica::renew(&store, "first", None).await.unwrap();
        replica::renew(&store, "second", None).await.unwrap();
        assert_eq!(claimed(&store, "first", 9).await, [id]);
        assert!(claimed(&store, "second", 9).await.is_empty());
        assert!(claimed(&store, "first", 9).await.is_empty(), "once");
        assert_eq!(note(&store, id, "first", (5, 10)).await.unwrap(), Noted::Ours);
        assert_eq!(note(&store, id, "second", (9, 10)).await.unwrap(), Noted::Theirs);
        replica::end(&store, "first").await.unwrap();
        assert_eq!(claimed(&store, "second", 9).await, [id]);

        let mut tx = store.begin().await.unwrap();
        assert!(!finish(&mut tx, id, "first").await.unwrap());
        let cause = Cause::new("image_not_found", "there is none");
        assert!(!fail(&mut tx, id, "first", &cause).await.unwrap());
        assert!(fail(&mut tx, id, "second", &cause).await.unwrap());
        tx.commit().await.unwrap();
        let pull = crate::store::container::get(&store, id).await.unwrap().unwrap().pull.unwrap();
        assert_eq!((pull.state, pull.bytes_done, pull.bytes_total), (PullState::Failed, 5, 10));
        assert_eq!(pull.failure, Some(cause));
        assert!(claimed(&store, "second", 9).await.is_empty(), "failed for good");

        let mut tx = store.begin().await.unwrap();
        retry(&mut tx, id).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(claimed(&store, "second", 9).await, [id]);
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_nobody_works_on_is_free_to_whoever_made_it() {
    each_backend(|store| async move {
        let server = server(&store, "one").await;
        let (left, worked_on) =
            (container(&store, server, 1, Vec::new()).await, container(&store, server, 1, Vec::new()).await);
        let (left, worked_on) = (left.id, worked_on.id);
        for id in [left, worked_on] {
            queue(&store, id).await;
        }
        for replica in ["first", "second"] {
            replica::renew(&store, replica, None).await.unwrap();
        }
        assert_eq!(claimed(&store, "first", 9).await.len(), 2);
        // The others cannot know what it works on.
        assert!(claimed(&store, "second", 9).await.is_empty());
        assert_eq!(claimed_beside(&store, "first", &[worked_on], 9).await, [left]);
        assert!(claimed_beside(&store, "first", &[worked_on, left], 9).await.is_empty());
        assert_eq!(claimed_beside(&store, "first", &[], 9).await.len(), 2);
        execute(&store, format!("DELETE FROM image_pulls WHERE container_id = '{left}'")).await;
        assert_eq!(note(&store, left, "first", (1, 2)).await.unwrap(), Noted::Gone);
    })
    .await;
}

#[tokio::test]
async fn a_pull_that_is_tried_again_waits_behind_those_that_wait() {
    each_backend(|store| async move {
        let server = server(&store, "one").await;
        let mut ids = Vec::new();
        for _ in 0..2 {
            let id = container(&store, server, 1, Vec::new()).await.id;
            queue(&store, id).await;
            ids.push(id);
        }
        let at = now_ms() as i64;
        for (id, age) in [(ids[0], 2000), (ids[1], 1000)] {
            let at = at - age;
            execute(&store, format!("UPDATE image_pulls SET created_at = {at} WHERE container_id = '{id}'")).await;
        }
        assert_eq!(claimed(&store, "r", 1).await, [ids[0]]);
        let mut tx = store.begin().await.unwrap();
        assert!(fail(&mut tx, ids[0], "r", &Cause::new("registry_slow", "it was slow")).await.unwrap());
        retry(&mut tx, ids[0]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(claimed(&store, "r", 1).await, [ids[1]]);
        assert_eq!(claimed(&store, "r", 1).await, [ids[0]]);
    })
    .await;
}

#[tokio::test]
async fn an_owner_with_many_does_not_keep_others_waiting() {
    each_backend(|store| async move {
        let server = server(&store, "one").await;
        let mut greedy = Vec::new();
        for _ in 0..4 {
            let id = container(&store, server, 1, Vec::new()).await.id;
            queue(&store, id).await;
            greedy.push(id);
        }
        let owner = "(SELECT MIN(owner_id) FROM containers)";
        execute(&store, format!("UPDATE containers SET owner_id = {owner}")).await;
        let modest = container(&store, server, 1, Vec::new()).await.id;
        queue(&store, modest).await;
        let first = claimed(&store, "r", 9).await;
        assert_eq!((first.len(), first.contains(&modest)), (3, true), "{first:?}");
        assert!(claimed(&store, "r", 9).await.is_empty(), "those that are held count");
        let held = first.into_iter().find(|id| *id != modest).unwrap();
        let mut tx = store.begin().await.unwrap();
        assert!(finish(&mut tx, held, "r").await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(claimed(&store, "r", 9).await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn nothing_of_an_unpulled_container_is_sent() {
    each_backend(|store| async move {
        let server = server(&store, "one").await;
        let id = container(&store, server, 1, Vec::new()).await.id;
        queue(&store, id).await;
        assert!(dispatch::containers_with_work(&store, server).await.unwrap().is_empty());
        assert!(dispatch::items(&store, server, id).await.unwrap().is_empty());
        assert!(dispatch::servers_with_work(&store).await.unwrap().is_empty());
        assert_eq!(claimed(&store, "r", 1).await, [id]);
        let mut tx = store.begin().await.unwrap();
        assert!(finish(&mut tx, id, "r").await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(dispatch::containers_with_work(&store, server).await.unwrap(), [id]);
        assert_eq!(dispatch::items(&store, server, id).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn looking_for_a_pull_does_not_look_at_every_container() {
    let (_folder, store) = crate::store::testing::sqlite().await;
    let sql = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", next(&free(1))));
    let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(sql).fetch_all(store.reader()).await.unwrap();
    let steps: Vec<String> = plan.into_iter().map(|(.., step)| step).collect();
    assert!(steps.iter().any(|step| step.starts_with("SEARCH c ")), "{steps:?}");
}
