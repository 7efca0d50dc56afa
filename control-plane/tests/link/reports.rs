//! What the node reports: status, outcomes, measurements.

use crate::{
    agent::{enrolled, entry, failed, status},
    plane::{PATIENCE, Plane, eventually},
};
use hoody_protocol::{
    container::{Desired, State, StatusReport},
    id::ContainerId,
    link::{Report, ReportEntry},
    stats::{ContainerStats, StatsBatch},
    stream,
    time::now_ms,
};
use std::convert::Infallible;
use tokio::time::Instant;

async fn log(plane: &Plane, container: ContainerId) -> Vec<String> {
    let rows: Vec<(Option<String>, String)> = sqlx::query_as(
        "SELECT from_status, to_status FROM status_logs WHERE container_id = $1 ORDER BY transition_time, id",
    )
    .bind(container.to_string())
    .fetch_all(plane.app.store.reader())
    .await
    .unwrap();
    rows.into_iter().map(|(from, to)| format!("{} {to}", from.unwrap_or_default())).collect()
}

fn at(report: StatusReport, at: u64) -> Report {
    Report::Status(StatusReport { at, ..report })
}

#[tokio::test]
async fn a_report_changes_the_status_and_is_logged_with_its_cause() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let spec = plane.container(agent.server, vec![]).await;
    let mut link = agent.link(&plane, vec![entry(&spec, 1)]).await;
    let waiting = tokio::spawn({
        let (nodes, store, id) = (plane.app.nodes.clone(), plane.app.store.clone(), spec.id);
        async move {
            let check = || async {
                let report = hoody_control_plane::store::report::last(&store, id).await.unwrap();
                Ok::<_, Infallible>(report.filter(|report| report.state == State::Running))
            };
            nodes.changes.wait_for(id, Instant::now() + PATIENCE, check).await.unwrap()
        }
    });
    let reports = [at(status(spec.id, 1, State::Running), 5_000), at(failed(spec.id, 1, "image_unavailable"), 9_000)];
    assert_eq!(link.report(vec![reports[0].clone()]).await, Ok(1));
    assert!(waiting.await.unwrap().is_some(), "a request that waits for it is woken");
    assert_eq!(link.report(vec![reports[1].clone()]).await, Ok(2));
    assert_eq!(plane.status(spec.id).await, "failed");
    assert_eq!(log(&plane, spec.id).await, ["creating running", "running failed"]);
    let metadata = plane.text("SELECT metadata FROM status_logs WHERE to_status = 'failed'".to_owned()).await;
    assert!(metadata.contains("image_unavailable"), "{metadata}");
    let duration = "SELECT duration_ms FROM status_logs WHERE to_status = 'failed'".to_owned();
    assert_eq!(plane.number(duration).await, 4_000, "by the times at which the node saw it");
}

#[tokio::test]
async fn a_batch_that_comes_again_changes_nothing() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let spec = plane.container(agent.server, vec![]).await;
    let mut link = agent.link(&plane, vec![entry(&spec, 1)]).await;
    let batch: Vec<ReportEntry> = [State::Running, State::Stopped]
        .into_iter()
        .enumerate()
        .map(|(index, state)| {
            let position = index as u64 + 1;
            ReportEntry { position, report: at(status(spec.id, 1, state), 2_000 + position) }
        })
        .collect();
    assert_eq!(link.send_batch(batch.clone()).await, Ok(2));
    // The acknowledgement was lost with the link.
    let mut link = agent.link(&plane, vec![entry(&spec, 1)]).await;
    assert_eq!(link.send_batch(batch).await, Ok(2));
    assert_eq!(log(&plane, spec.id).await, ["creating running", "running stopped"]);
}

#[tokio::test]
async fn a_journal_that_begins_anew_is_heard() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let spec = plane.container(agent.server, vec![]).await;
    let mut link = agent.link(&plane, vec![entry(&spec, 1)]).await;
    let entry = |position, state, time| ReportEntry { position, report: at(status(spec.id, 1, state), time) };
    link.send_batch(vec![entry(700, State::Running, 2_000)]).await.unwrap();
    link.send_batch(vec![entry(1, State::Stopped, 3_000)]).await.unwrap();
    assert_eq!(plane.status(spec.id).await, "stopped");
}

#[tokio::test]
async fn an_older_version_does_not_take_the_status_back() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let mut spec = plane.container(agent.server, vec![]).await;
    let mut link = agent.link(&plane, vec![entry(&spec, 1)]).await;
    plane.update(agent.server, &mut spec, |spec| spec.desired = Desired::Stopped { force: false }).await;
    link.report(vec![Report::Status(status(spec.id, 1, State::Running))]).await.unwrap();
    assert_eq!(plane.status(spec.id).await, "creating", "it says nothing of the version that is wanted");
    link.report(vec![Report::Status(status(spec.id, 2, State::Stopped))]).await.unwrap();
    link.report(vec![Report::Status(status(spec.id, 1, State::Running))]).await.unwrap();
    assert_eq!(plane.status(spec.id).await, "stopped");
    // And one of a version that was never sent is not believed.
    link.report(vec![Report::Status(status(spec.id, 77, State::Running))]).await.unwrap();
    assert_eq!(plane.status(spec.id).await, "stopped");
}

#[tokio::test]
async fn a_node_cannot_speak_for_another_nodes_containers() {
    let plane = Plane::start().await;
    let (liar, victim) = (enrolled(&plane, "liar").await, enrolled(&plane, "victim").await);
    let theirs = plane.container(victim.server, vec![]).await;
    let ours = plane.container(liar.server, vec![]).await;
    let mut link = liar.link(&plane, vec![entry(&ours, 1)]).await;
    let deleted = status(theirs.id, 1, State::Deleted);
    plane.execute(format!("UPDATE containers SET deleted_at = 1 WHERE id = '{}'", theirs.id)).await;
    let reports = vec![
        Report::Status(deleted),
        Report::Status(failed(theirs.id, 1, "lie")),
        Report::Status(status(ours.id, 1, State::Running)),
    ];
    assert_eq!(link.report(reports).await, Ok(3), "the rest of the batch counts, and the link goes on");
    assert_eq!(plane.status(theirs.id).await, "creating");
    assert_eq!(plane.status(ours.id).await, "running");

    let measure = |container| ContainerStats {
        container,
        cpu_usage_ns: None,
        cpu_percent: None,
        memory_bytes: Some(1),
        memory_peak_bytes: None,
        swap_bytes: None,
        disk_bytes: None,
        ramdisk: None,
        processes: None,
        network: None,
        rules: Default::default(),
    };
    let containers = vec![measure(theirs.id), measure(ours.id)].try_into().unwrap();
    let batch = StatsBatch { at: now_ms(), node: Default::default(), containers };
    let mut uni = link.connection.open_uni().await.unwrap();
    stream::write(&mut uni, &batch).await.unwrap();
    uni.finish().unwrap();
    eventually("the measurement", async || plane.app.nodes.measurements.container(ours.id)).await;
    assert!(plane.app.nodes.measurements.container(theirs.id).is_none());
    assert!(plane.app.nodes.measurements.node(liar.server).is_some());
}

#[tokio::test]
async fn a_deletion_needs_the_tombstone_and_gives_the_capacity_back() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let mut spec = plane.container(agent.server, vec![]).await;
    plane
        .execute(
            "UPDATE servers SET cpu_millis_used = 100, memory_bytes_used = 67108864, disk_bytes_used = 67108864, \
                  containers_used = 1"
                .to_owned(),
        )
        .await;
    let mut link = agent.link(&plane, vec![entry(&spec, 1)]).await;
    link.report(vec![Report::Status(status(spec.id, 1, State::Deleted))]).await.unwrap();
    assert_eq!(plane.status(spec.id).await, "failed", "without a tombstone the row stays");

    plane.update(agent.server, &mut spec, |spec| spec.desired = Desired::Deleted).await;
    plane.execute("UPDATE containers SET deleted_at = 1".to_owned()).await;
    link.report(vec![Report::Status(status(spec.id, 2, State::Deleted))]).await.unwrap();
    assert_eq!(plane.number("SELECT COUNT(*) FROM containers".to_owned()).await, 0);
    let used = "SELECT cpu_millis_used + memory_bytes_used + disk_bytes_used + containers_used FROM servers".to_owned();
    assert_eq!(plane.number(used).await, 0);
}

#[tokio::test]
async fn a_batch_out_of_order_or_empty_is_refused() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let spec = plane.container(agent.server, vec![]).await;
    let mut link = agent.link(&plane, vec![entry(&spec, 1)]).await;
    let entry = |position| ReportEntry { position, report: Report::Status(status(spec.id, 1, State::Running)) };
    assert_eq!(link.send_batch(vec![entry(2), entry(1)]).await, Err("malformed_message".to_owned()));
    assert_eq!(link.send_batch(vec![]).await, Err("malformed_message".to_owned()));
    assert_eq!(plane.status(spec.id).await, "creating");
    assert_eq!(link.send_batch(vec![entry(1)]).await, Ok(1));
}
