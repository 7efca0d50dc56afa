//! Questions about what runs in a container: asked once for many, bounded in number and time, whatever the node answers.

use crate::{
    agent::{Link, answer, enrolled, soon},
    plane::Plane,
};
use hoody_control_plane::nodes::{Inspected, NoInspection};
use hoody_protocol::{
    container::Cause,
    id::{ContainerId, ServerId},
    inspection::{Inspection, InspectionQuery, InspectionReply},
    link::Refusal,
    stream,
};
use quinn::SendStream;
use std::time::Duration;

fn container(number: u8) -> ContainerId {
    ContainerId::from_bytes([number; 12])
}

/// Asks beside the test.
fn ask(plane: &Plane, server: ServerId, number: u8) -> tokio::task::JoinHandle<Inspected> {
    let nodes = plane.app.nodes.clone();
    tokio::spawn(async move { nodes.inspect(server, container(number)).await })
}

async fn question(link: &Link) -> (ContainerId, SendStream) {
    let (send, mut recv) = soon("a question", link.connection.accept_bi()).await.unwrap();
    (stream::read::<InspectionQuery>(&mut recv).await.unwrap().container, send)
}

#[tokio::test]
async fn many_who_ask_are_one_question() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    assert_eq!(plane.app.nodes.inspect(agent.server, container(1)).await, Err(NoInspection::Offline));
    let link = agent.link(&plane, vec![]).await;
    let asking: Vec<_> = (0..20).map(|_| ask(&plane, agent.server, 1)).collect();
    let (asked, mut send) = question(&link).await;
    assert_eq!(asked, container(1));
    let inspection = Inspection { process_count: 7, ..Inspection::default() };
    answer(&mut send, &InspectionReply::Running(Box::new(inspection))).await;
    for answered in asking {
        assert_eq!(answered.await.unwrap().unwrap().unwrap().process_count, 7);
    }
    // Nobody was asked a second time.
    let second = tokio::time::timeout(Duration::from_millis(200), link.connection.accept_bi()).await;
    assert!(second.is_err(), "{second:?}");
}

#[tokio::test]
async fn every_answer_of_a_node_has_a_meaning() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let link = agent.link(&plane, vec![]).await;
    let cause = Cause::new("inspection_failed", "no");
    let asked = ask(&plane, agent.server, 1);
    answer(&mut question(&link).await.1, &InspectionReply::NotRunning).await;
    assert_eq!(asked.await.unwrap(), Ok(None));
    let asked = ask(&plane, agent.server, 2);
    answer(&mut question(&link).await.1, &InspectionReply::Failed(cause.clone())).await;
    assert_eq!(asked.await.unwrap(), Err(NoInspection::Failed(cause.clone())));
    // An agent from before the question.
    let asked = ask(&plane, agent.server, 3);
    answer(&mut question(&link).await.1, &Refusal { cause }).await;
    assert_eq!(asked.await.unwrap(), Err(NoInspection::Unknown));
    // One that never answers: its question ends, and so do those that wait for their turn behind four such.
    let silent: Vec<_> = (10..18).map(|number| ask(&plane, agent.server, number)).collect();
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(question(&link).await);
    }
    let fifth = tokio::time::timeout(Duration::from_millis(200), link.connection.accept_bi()).await;
    assert!(fifth.is_err(), "more than four questions at once");
    for asked in silent {
        assert_eq!(soon("an end", asked).await.unwrap(), Err(NoInspection::Late));
    }
}
