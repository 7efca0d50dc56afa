use super::*;
use crate::store::{
    link_testing::{container, execute, number, server, text},
    testing::each_backend,
};
use hoody_protocol::image::{Compression, Layer};

fn report(spec: &ContainerSpec, generation: u64, state: State, at: u64) -> StatusReport {
    StatusReport {
        container: spec.id,
        version: SpecVersion { epoch: 1, generation },
        state,
        converged: true,
        cause: None,
        exit_code: Some(3),
        address: None,
        started_at: None,
        firewall_error: None,
        limits_error: None,
        ssh_key_error: None,
        oom_kills: 0,
        egress: None,
        share_failures: Default::default(),
        at,
    }
}

async fn applied(store: &Store, server: ServerId, position: u64, report: &StatusReport) -> Applied {
    let mut tx = store.begin().await.unwrap();
    let applied = apply(&mut tx, server, position, report, 10_000).await.unwrap();
    tx.commit().await.unwrap();
    applied
}

#[tokio::test]
async fn a_change_of_word_is_one_log_row() {
    each_backend(|store| async move {
        let one = server(&store, "one").await;
        let spec = container(&store, one, 1, vec![]).await;
        assert_eq!(applied(&store, one, 1, &report(&spec, 1, State::Creating, 2_000)).await, Applied::Stored);
        assert_eq!(applied(&store, one, 2, &report(&spec, 1, State::Starting, 2_500)).await, Applied::Stored);
        assert_eq!(number(&store, "SELECT COUNT(*) FROM status_logs").await, 0);
        let running = report(&spec, 1, State::Running, 3_000);
        assert_eq!(applied(&store, one, 3, &running).await, Applied::Stored);
        assert_eq!(number(&store, "SELECT COUNT(*) FROM status_logs").await, 1);
        assert_eq!(number(&store, "SELECT duration_ms FROM status_logs").await, 2_000);
        let metadata = text(&store, "SELECT metadata FROM status_logs").await.unwrap();
        assert_eq!(metadata, r#"{"exit_code":3,"version":"1.1"}"#);
        assert_eq!(last(&store, spec.id).await.unwrap(), Some(running), "readable as what was reported");
    })
    .await;
}

#[tokio::test]
async fn a_repair_is_a_row_of_the_log_and_leaves_the_word() {
    each_backend(|store| async move {
        let one = server(&store, "one").await;
        let spec = container(&store, one, 1, vec![]).await;
        let running = |at| report(&spec, 1, State::Running, at);
        let repaired = |at| StatusReport { cause: Some(Cause::new("repaired", "the link")), ..running(at) };
        applied(&store, one, 1, &running(2_000)).await;
        for (position, news) in [repaired(3_000), repaired(3_500), running(4_000), repaired(5_000)].iter().enumerate() {
            applied(&store, one, position as u64 + 2, news).await;
        }
        assert_eq!(number(&store, "SELECT COUNT(*) FROM status_logs").await, 3, "one each time it began");
        assert_eq!(number(&store, "SELECT COUNT(*) FROM status_logs WHERE from_status = to_status").await, 2);
        assert_eq!(number(&store, "SELECT status_changed_at FROM containers").await, 2_000);
    })
    .await;
}

#[tokio::test]
async fn times_of_the_node_are_kept_between_the_last_change_and_now() {
    each_backend(|store| async move {
        let one = server(&store, "one").await;
        let spec = container(&store, one, 1, vec![]).await;
        applied(&store, one, 1, &report(&spec, 1, State::Running, 5)).await;
        assert_eq!(number(&store, "SELECT status_changed_at FROM containers").await, 1_000);
        applied(&store, one, 2, &report(&spec, 1, State::Stopped, u64::MAX)).await;
        assert_eq!(number(&store, "SELECT status_changed_at FROM containers").await, 10_000);
        execute(&store, "UPDATE containers SET status_changed_at = 50000".to_owned()).await;
        applied(&store, one, 3, &report(&spec, 1, State::Running, u64::MAX)).await;
        assert_eq!(number(&store, "SELECT status_changed_at FROM containers").await, 10_000);
    })
    .await;
}

#[tokio::test]
async fn stale_foreign_and_premature_reports_change_nothing() {
    each_backend(|store| async move {
        let (one, other) = (server(&store, "one").await, server(&store, "two").await);
        let spec = container(&store, one, 2, vec![]).await;
        assert_eq!(applied(&store, other, 1, &report(&spec, 2, State::Running, 1)).await, Applied::Foreign);
        assert_eq!(applied(&store, one, 1, &report(&spec, 3, State::Running, 1)).await, Applied::Ahead);
        assert_eq!(applied(&store, one, 5, &report(&spec, 2, State::Stopped, 2_000)).await, Applied::Stored);
        assert_eq!(applied(&store, one, 5, &report(&spec, 2, State::Stopped, 2_000)).await, Applied::Stale);
        assert_eq!(applied(&store, one, 6, &report(&spec, 1, State::Running, 3_000)).await, Applied::Stale);
        assert_eq!(text(&store, "SELECT status FROM containers").await.unwrap(), "stopped");
        assert_eq!(number(&store, "SELECT COUNT(*) FROM status_logs").await, 1);
    })
    .await;
}

#[tokio::test]
async fn only_a_tombstone_lets_a_row_go() {
    each_backend(|store| async move {
        let one = server(&store, "one").await;
        let spec = container(&store, one, 1, vec![]).await;
        assert_eq!(applied(&store, one, 1, &report(&spec, 1, State::Deleted, 2_000)).await, Applied::Stored);
        assert_eq!(text(&store, "SELECT status FROM containers").await.unwrap(), "failed");
        execute(&store, "UPDATE containers SET deleted_at = 1, generation = 2".to_owned()).await;
        // What was said before the tombstone is no answer to it.
        assert_eq!(applied(&store, one, 2, &report(&spec, 1, State::Deleted, 3_000)).await, Applied::Stored);
        assert_eq!(applied(&store, one, 3, &report(&spec, 2, State::Deleted, 4_000)).await, Applied::Gone);
    })
    .await;
}

#[tokio::test]
async fn a_refused_specification_reads_as_a_failure() {
    each_backend(|store| async move {
        let one = server(&store, "one").await;
        let spec = container(&store, one, 1, vec![]).await;
        let mut tx = store.begin().await.unwrap();
        refuse(&mut tx, one, &spec, Cause::new("no_space", "full"), 9_000).await.unwrap();
        tx.commit().await.unwrap();
        let stored = last(&store, spec.id).await.unwrap().unwrap();
        assert_eq!((stored.state, &*stored.cause.unwrap().code), (State::Failed, "no_space"));
        assert_eq!(text(&store, "SELECT status FROM containers").await.unwrap(), "failed");
        assert_eq!(applied(&store, one, 1, &report(&spec, 1, State::Running, 9_500)).await, Applied::Stored);
    })
    .await;
}

#[tokio::test]
async fn a_blob_is_granted_by_a_layer_of_an_own_container_only() {
    each_backend(|store| async move {
        let (one, other) = (server(&store, "one").await, server(&store, "two").await);
        let layer =
            Layer { digest: Digest::of(b"layer"), size: 5, compression: Compression::None, archive_bytes: None };
        let spec = container(&store, one, 1, vec![layer.clone()]).await;
        assert!(may_fetch(&store, one, layer.digest).await.unwrap());
        assert!(!may_fetch(&store, other, layer.digest).await.unwrap());
        assert!(!may_fetch(&store, one, Digest::of(b"another")).await.unwrap());
        assert!(!may_fetch(&store, one, spec.image.digest).await.unwrap(), "the image itself is no blob");
    })
    .await;
}

#[tokio::test]
async fn processes_out_of_memory_are_logged_once_per_run_and_number() {
    each_backend(|store| async move {
        let one = server(&store, "one").await;
        let spec = container(&store, one, 1, vec![]).await;
        let killed = |at, started_at, oom_kills| StatusReport {
            started_at: Some(started_at),
            oom_kills,
            ..report(&spec, 1, State::Running, at)
        };
        let ooms = "SELECT COUNT(*) FROM status_logs WHERE from_status = 'running' AND to_status = 'running'";
        for (position, (started_at, kills, logged)) in
            [(1_000, 0, 0), (1_000, 2, 1), (1_000, 2, 1), (1_000, 3, 2), (5_000, 1, 3), (5_000, 1, 3)]
                .into_iter()
                .enumerate()
        {
            let position = position as u64 + 1;
            assert_eq!(
                applied(&store, one, position, &killed(6_000 + position, started_at, kills)).await,
                Applied::Stored
            );
            assert_eq!(number(&store, ooms).await, logged, "{kills} since {started_at}");
        }
        let metadata =
            text(&store, "SELECT metadata FROM status_logs ORDER BY transition_time DESC LIMIT 1").await.unwrap();
        assert!(metadata.contains(OUT_OF_MEMORY), "{metadata}");
    })
    .await;
}
