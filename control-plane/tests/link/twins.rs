//! Two agents with one identity, and agents that come back.

use crate::{
    agent::{Agent, Link, answer, enrolled, entry, hello, status},
    plane::{Plane, eventually},
};
use hoody_protocol::{
    bounded::Text,
    container::State,
    link::{Hello, HelloReply, Report, SpecQuery, SpecReply},
    stream,
    transport::{Close, generate_node_key},
};
use tokio::task::JoinHandle;

fn of(instance: &str) -> Hello {
    Hello { instance: Some(Text::truncated(instance)), ..hello(vec![]) }
}

/// An agent that lives: it answers questions.
fn alive(link: &Link) -> JoinHandle<()> {
    let connection = link.connection.clone();
    tokio::spawn(async move {
        while let Ok((mut send, mut recv)) = connection.accept_bi().await {
            if stream::read::<SpecQuery>(&mut recv).await.is_ok() {
                answer(&mut send, &SpecReply { spec: None }).await;
            }
        }
    })
}

async fn conflict(plane: &Plane, agent: &Agent) -> String {
    plane.text(format!("SELECT identity_conflict FROM servers WHERE id = '{}'", agent.server)).await
}

#[tokio::test]
async fn a_copied_server_is_refused_and_reported_and_the_first_keeps_working() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let spec = plane.container(agent.server, vec![]).await;
    let said = Hello { inventory: vec![entry(&spec, 1)].try_into().unwrap(), ..of("first") };
    let (reply, mut first) = agent.say(&plane, &said).await.unwrap();
    assert!(matches!(reply, HelloReply::Accepted { .. }));
    let living = alive(&first);
    // The copy holds nothing: had its hello counted, everything would be sent again.
    let mut copy = of("second");
    copy.facts.hostname = Text::truncated("copy\nof one");
    assert_eq!(agent.refusal(&plane, &copy).await, ("identity_in_use".to_owned(), false));
    let reported = conflict(&plane, &agent).await;
    assert!(reported.contains("copy\\nof one"), "{reported}");
    assert_eq!(plane.number(format!("SELECT acked_generation FROM containers WHERE id = '{}'", spec.id)).await, 1);
    assert_eq!(first.report(vec![Report::Status(status(spec.id, 1, State::Running))]).await, Ok(1));
    assert_eq!(plane.status(spec.id).await, "running");
    // The same process that connects again replaces its link without a question.
    living.abort();
    let (reply, again) = agent.say(&plane, &said).await.unwrap();
    assert!(matches!(reply, HelloReply::Accepted { .. }));
    assert_eq!(first.closed().await, Some(Close::Replaced));
    // Its process has died and does not answer, though its connection looks alive: a new process gets in.
    let (reply, _restarted) = agent.say(&plane, &of("third")).await.unwrap();
    assert!(matches!(reply, HelloReply::Accepted { .. }), "{reply:?}");
    assert_eq!(again.closed().await, Some(Close::Replaced));
}

#[tokio::test]
async fn an_agent_that_another_replica_holds_is_not_taken_over_by_a_stranger() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let held = |instance: &str| {
        format!(
            "UPDATE servers SET online = 1, linked_to = 'another', instance = '{instance}' WHERE id = '{}'",
            agent.server
        )
    };
    plane.execute(held("first")).await;
    assert_eq!(agent.refusal(&plane, &of("second")).await.0, "identity_in_use");
    // The same agent may come here, and the other replica's lease ends what it holds.
    let (reply, link) = agent.say(&plane, &of("first")).await.unwrap();
    assert!(matches!(reply, HelloReply::Accepted { .. }));
    drop(link);
    eventually("offline", async || (!plane.online(agent.server).await).then_some(())).await;
    plane.execute(held("first")).await;
    eventually("the lease of a replica that is gone", async || (!plane.online(agent.server).await).then_some(())).await;
    let (reply, _link) = agent.say(&plane, &of("second")).await.unwrap();
    assert!(matches!(reply, HelloReply::Accepted { .. }));
}

/// Agents that come back to a restarted control plane.
const AGENTS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn all_agents_come_back_at_once_after_a_restart() {
    let plane = Plane::start().await;
    let mut agents = Vec::new();
    for number in 0..AGENTS {
        let server = plane.server(&format!("server-{number}")).await;
        let token = plane.token(server).await;
        agents.push(crate::agent::join(plane.address, &token, &generate_node_key().unwrap()).await.unwrap());
    }
    let links = futures::future::join_all(agents.iter().map(|agent| agent.link(&plane, vec![]))).await;
    let online = "SELECT CAST(COUNT(*) AS BIGINT) FROM servers WHERE online = 1".to_owned();
    assert_eq!(plane.number(online.clone()).await, AGENTS as i64);
    let plane = plane.restart().await;
    assert_eq!(plane.number(online.clone()).await, 0, "nobody is linked to a process that has just begun");
    drop(links);
    let links = futures::future::join_all(agents.iter().map(|agent| agent.link(&plane, vec![]))).await;
    assert_eq!(plane.number(online).await, AGENTS as i64);
    assert!(links.iter().all(|link| link.connection.close_reason().is_none()));
}
