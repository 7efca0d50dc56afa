//! Specifications and operations on their way to the node.

use crate::{
    agent::{Command, Link, answer, enrolled, entry},
    plane::{Plane, eventually},
};
use hoody_protocol::{
    container::{Cause, ContainerSpec, Desired},
    link::{CommandReply, Report},
    operation::OperationOutcome,
    time::now_ms,
    transport::Close,
    version::SpecVersion,
};
use std::{collections::HashSet, time::Duration};

async fn acked(plane: &Plane, spec: &ContainerSpec) -> i64 {
    plane.number(format!("SELECT acked_generation FROM containers WHERE id = '{}'", spec.id)).await
}

async fn operation_state(plane: &Plane, id: impl std::fmt::Display) -> String {
    plane.text(format!("SELECT state FROM operations WHERE id = '{id}'")).await
}

/// Fails where a command comes within a moment.
async fn silence(link: &mut Link) {
    let quiet = tokio::time::timeout(Duration::from_millis(300), link.connection.accept_bi()).await;
    assert!(quiet.is_err(), "a command that should not have been sent");
}

#[tokio::test]
async fn a_specification_reaches_the_node_and_is_not_sent_twice() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let mut link = agent.link(&plane, vec![]).await;
    let mut spec = plane.container(agent.server, vec![]).await;
    let (received, mut send) = link.spec().await;
    assert_eq!(received, spec);
    answer(&mut send, &CommandReply::Accepted).await;
    eventually("the acknowledgement", async || (acked(&plane, &spec).await == 1).then_some(())).await;
    plane.app.nodes.wake(agent.server);
    silence(&mut link).await;

    plane.update(agent.server, &mut spec, |spec| spec.desired = Desired::Stopped { force: true }).await;
    let (received, mut send) = link.spec().await;
    assert_eq!(received, spec);
    answer(&mut send, &CommandReply::Superseded { held: spec.version }).await;
    eventually("the acknowledgement", async || (acked(&plane, &spec).await == 2).then_some(())).await;
}

#[tokio::test]
async fn after_a_restart_only_the_differences_are_sent() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let mut link = agent.link(&plane, vec![]).await;
    let mut specs = Vec::new();
    for _ in 0..3 {
        specs.push(plane.container(agent.server, vec![]).await);
        let (_, mut send) = link.spec().await;
        answer(&mut send, &CommandReply::Accepted).await;
        let spec = specs.last().unwrap();
        eventually("the acknowledgement", async || (acked(&plane, spec).await == 1).then_some(())).await;
    }
    let plane = plane.restart().await;
    // While the link is down one changes, and the agent loses another.
    plane.update(agent.server, &mut specs[1], |spec| spec.autostart = true).await;
    let mut link = agent.link(&plane, vec![entry(&specs[0], 1), entry(&specs[1], 1)]).await;
    let mut sent = HashSet::new();
    for _ in 0..2 {
        let (spec, mut send) = link.spec().await;
        answer(&mut send, &CommandReply::Accepted).await;
        sent.insert((spec.id, spec.version.generation));
    }
    assert_eq!(sent, HashSet::from([(specs[1].id, 2), (specs[2].id, 1)]));
    silence(&mut link).await;
}

#[tokio::test]
async fn what_a_dying_link_did_not_answer_is_sent_on_the_next() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let spec = plane.container(agent.server, vec![]).await;
    let mut link = agent.link(&plane, vec![]).await;
    let (_, _unanswered) = link.spec().await;
    Close::Done.close(&link.connection);
    let mut link = agent.link(&plane, vec![]).await;
    assert_eq!(link.spec().await.0, spec);
    // The next one had it all along: the inventory is the acknowledgement.
    let mut link = agent.link(&plane, vec![entry(&spec, 1)]).await;
    assert_eq!(acked(&plane, &spec).await, 1);
    silence(&mut link).await;
}

#[tokio::test]
async fn a_refused_specification_is_a_failure_with_its_cause_and_the_next_version_is_sent() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let mut link = agent.link(&plane, vec![]).await;
    let mut spec = plane.container(agent.server, vec![]).await;
    let (_, mut send) = link.spec().await;
    answer(&mut send, &CommandReply::Refused(Cause::new("no_space", "the pool is full"))).await;
    eventually("the failure", async || (plane.status(spec.id).await == "failed").then_some(())).await;
    let logged = plane.text("SELECT metadata FROM status_logs WHERE to_status = 'failed'".to_owned()).await;
    assert!(logged.contains("no_space"), "{logged}");
    plane.app.nodes.wake(agent.server);
    silence(&mut link).await;
    plane.update(agent.server, &mut spec, |_| ()).await;
    assert_eq!(link.spec().await.0.version.generation, 2);
}

#[tokio::test]
async fn a_node_that_holds_a_newer_version_is_believed() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let mut link = agent.link(&plane, vec![]).await;
    let spec = plane.container(agent.server, vec![]).await;
    let (_, mut send) = link.spec().await;
    answer(&mut send, &CommandReply::Superseded { held: SpecVersion { epoch: 1, generation: 9 } }).await;
    eventually("the acknowledgement", async || (acked(&plane, &spec).await == 9).then_some(())).await;
    silence(&mut link).await;
}

#[tokio::test]
async fn specifications_and_operations_of_one_container_go_in_sequence() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let mut spec = plane.container(agent.server, vec![]).await;
    let first = plane.operation(agent.server, &mut spec, Duration::from_secs(60)).await;
    let second = plane.operation(agent.server, &mut spec, Duration::from_secs(60)).await;
    plane.update(agent.server, &mut spec, |_| ()).await;

    let mut link = agent.link(&plane, vec![]).await;
    let (request, mut send) = link.operation().await;
    assert_eq!(request.id, first);
    assert!(request.begin_within_ms > 30_000 && request.begin_within_ms <= 60_000);
    silence(&mut link).await;
    answer(&mut send, &CommandReply::Accepted).await;
    let (request, mut send) = link.operation().await;
    assert_eq!(request.id, second);
    let done = OperationOutcome { id: second, container: spec.id, failure: None, bytes: None, at: now_ms() };
    answer(&mut send, &CommandReply::Done(done)).await;
    let (received, mut send) = link.spec().await;
    assert_eq!(received.version.generation, 2);
    answer(&mut send, &CommandReply::Accepted).await;

    assert_eq!(operation_state(&plane, first).await, "dispatched");
    assert_eq!(operation_state(&plane, second).await, "succeeded");
    let failure = Some(Cause::new("broken", "it broke"));
    let outcome = OperationOutcome { id: first, container: spec.id, failure, bytes: None, at: now_ms() };
    link.report(vec![Report::Outcome(outcome)]).await.unwrap();
    assert_eq!(operation_state(&plane, first).await, "failed");
    // The first outcome counts.
    let outcome = OperationOutcome { id: first, container: spec.id, failure: None, bytes: None, at: now_ms() };
    link.report(vec![Report::Outcome(outcome)]).await.unwrap();
    assert_eq!(operation_state(&plane, first).await, "failed");
}

#[tokio::test]
async fn an_operation_that_is_too_late_never_runs() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let mut spec = plane.container(agent.server, vec![]).await;
    let late = plane.operation(agent.server, &mut spec, Duration::ZERO).await;
    let mut link = agent.link(&plane, vec![]).await;
    let (_, mut send) = link.spec().await;
    answer(&mut send, &CommandReply::Accepted).await;
    eventually("its end", async || (operation_state(&plane, late).await == "expired").then_some(())).await;
    silence(&mut link).await;
}

#[tokio::test]
async fn a_dispatched_operation_is_asked_about_on_the_next_link() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let mut spec = plane.container(agent.server, vec![]).await;
    let mut link = agent.link(&plane, vec![entry(&spec, 1)]).await;
    let id = plane.operation(agent.server, &mut spec, Duration::from_secs(60)).await;
    let (_, _unanswered) = link.operation().await;
    Close::Done.close(&link.connection);
    let mut link = agent.link(&plane, vec![entry(&spec, 1)]).await;
    let (request, mut send) = link.operation().await;
    assert_eq!(request.id, id);
    answer(&mut send, &CommandReply::Refused(Cause::new("too_late", "its time is over"))).await;
    eventually("its end", async || (operation_state(&plane, id).await == "failed").then_some(())).await;
}

#[tokio::test]
async fn a_stuck_container_does_not_hold_up_the_others() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let mut link = agent.link(&plane, vec![]).await;
    let stuck = plane.container(agent.server, vec![]).await;
    let (received, _unanswered) = link.spec().await;
    assert_eq!(received.id, stuck.id);
    for _ in 0..40 {
        let spec = plane.container(agent.server, vec![]).await;
        let Command::Spec(received, mut send) = link.command().await else { panic!() };
        assert_eq!(received.id, spec.id);
        answer(&mut send, &CommandReply::Accepted).await;
    }
}
