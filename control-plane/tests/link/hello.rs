//! Links coming up and going down.

use crate::{
    agent::{Agent, endpoint, enrolled, entry, foreign, hello, soon},
    plane::{Plane, eventually},
};
use hoody_control_plane::service::enrolment;
use hoody_protocol::{
    container::State,
    id::{ContainerId, ServerId},
    link::{HelloReply, InventoryEntry},
    transport::{BULK, Close, ENROL, Identity, NODE, SERVER_NAME, client_config},
    version::{ProtocolRange, SpecVersion},
};
use std::time::Duration;

/// Connects with this identity; whether a stream could be opened, else why not.
async fn try_connect(
    plane: &Plane,
    agent: &Agent,
    identity: Option<&Identity>,
    alpn: &'static [u8],
) -> Result<(), String> {
    let config = client_config(identity, &agent.authorities, alpn).unwrap();
    let endpoint = endpoint();
    let connecting = endpoint.connect_with(config, plane.address, SERVER_NAME).unwrap();
    let connection = soon("the handshake", connecting).await.map_err(|error| error.to_string())?;
    tokio::select! {
        opened = connection.open_bi() => opened.map(|_| ()).map_err(|error| error.to_string()),
        reason = connection.closed() => Err(reason.to_string()),
    }
}

#[tokio::test]
async fn a_hello_brings_the_server_online_with_its_facts_and_capacity() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    assert!(!plane.online(agent.server).await);
    let mut link = agent.link(&plane, vec![]).await;
    assert!(plane.online(agent.server).await && plane.app.nodes.is_linked(agent.server));
    let server = agent.server;
    let number = async |column: &str| plane.number(format!("SELECT {column} FROM servers WHERE id = '{server}'")).await;
    assert_eq!(number("cpu_millis").await, 4000);
    assert_eq!(number("memory_bytes").await, 8 << 30);
    assert_eq!(plane.text("SELECT boot_id FROM servers".to_owned()).await, "boot");
    assert_eq!(plane.text("SELECT architecture FROM servers".to_owned()).await, "amd64");
    link.heartbeat().await;
    eventually("the heartbeat", async || plane.app.nodes.heartbeat(server)).await;

    Close::Done.close(&link.connection);
    eventually("offline", async || (!plane.online(server).await).then_some(())).await;
    assert!(!plane.app.nodes.is_linked(server));
}

#[tokio::test]
async fn a_capacity_that_an_operator_set_is_kept() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    drop(agent.link(&plane, vec![]).await);
    plane.execute("UPDATE servers SET memory_bytes = 77".to_owned()).await;
    let mut larger = hello(vec![]);
    larger.facts.cpu_cores = 8;
    larger.facts.memory_bytes = 16 << 30;
    agent.say(&plane, &larger).await.unwrap();
    assert_eq!(plane.number("SELECT memory_bytes FROM servers".to_owned()).await, 77);
    assert_eq!(plane.number("SELECT cpu_millis FROM servers".to_owned()).await, 8000);
}

#[tokio::test]
async fn nobody_gets_in_without_a_certificate_of_ours() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let stranger = foreign(agent.server);
    for alpn in [NODE, BULK] {
        let error = try_connect(&plane, &agent, None, alpn).await.unwrap_err();
        assert!(error.contains("client certificate required"), "{error}");
        let error = try_connect(&plane, &agent, Some(&stranger), alpn).await.unwrap_err();
        assert!(error.contains("UnknownIssuer"), "{error}");
    }
    assert!(try_connect(&plane, &agent, Some(&stranger), ENROL).await.is_err());
    // And the listener goes on.
    agent.link(&plane, vec![]).await;
}

#[tokio::test]
async fn a_revoked_server_is_closed_at_once_and_not_let_in_again() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let link = agent.link(&plane, vec![]).await;
    let (_endpoint, bulk) = agent.connect(&plane, BULK).await;
    soon("the bulk connection", bulk.open_bi()).await.unwrap();
    eventually("the bulk connection", async || plane.app.nodes.is_linked(agent.server).then_some(())).await;
    enrolment::revoke(&plane.app, agent.server).await.unwrap();
    assert_eq!(link.closed().await, Some(Close::Revoked));
    assert_eq!(Close::of(&soon("the bulk connection's end", bulk.closed()).await), Some(Close::Revoked));
    assert_eq!(agent.refusal(&plane, &hello(vec![])).await, ("server_revoked".to_owned(), false));
    let (_endpoint, bulk) = agent.connect(&plane, BULK).await;
    assert_eq!(Close::of(&soon("the bulk connection's end", bulk.closed()).await), Some(Close::Revoked));
    assert!(!plane.online(agent.server).await);
}

#[tokio::test]
async fn a_revocation_by_another_process_reaches_the_link() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let link = agent.link(&plane, vec![]).await;
    plane.execute("UPDATE servers SET status = 'disabled'".to_owned()).await;
    assert_eq!(link.closed().await, Some(Close::Revoked));
    assert_eq!(agent.refusal(&plane, &hello(vec![])).await, ("server_disabled".to_owned(), true));
    plane.execute("UPDATE servers SET status = 'enrolled'".to_owned()).await;
    agent.link(&plane, vec![]).await;
}

#[tokio::test]
async fn a_deleted_server_is_unknown() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    plane.execute("DELETE FROM servers".to_owned()).await;
    assert_eq!(agent.refusal(&plane, &hello(vec![])).await, ("server_unknown".to_owned(), false));
}

#[tokio::test]
async fn a_protocol_that_we_do_not_speak_is_refused() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let mut newer = hello(vec![]);
    newer.protocol = ProtocolRange { min: 7, max: 9 };
    assert_eq!(agent.refusal(&plane, &newer).await, ("protocol_unsupported".to_owned(), true));
    // The one before: such an agent ignores what is to hold its containers back.
    newer.protocol = ProtocolRange { min: 1, max: 1 };
    assert_eq!(agent.refusal(&plane, &newer).await, ("protocol_unsupported".to_owned(), false));
    newer.protocol = ProtocolRange { min: 0, max: 0 };
    assert_eq!(agent.refusal(&plane, &newer).await, ("protocol_unsupported".to_owned(), false));
}

#[tokio::test]
async fn a_newer_link_replaces_the_older_and_the_server_stays_online() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let older = agent.link(&plane, vec![]).await;
    let newer = agent.link(&plane, vec![]).await;
    assert_eq!(older.closed().await, Some(Close::Replaced));
    assert!(newer.connection.close_reason().is_none());
    // The old link's end has been processed when its task has passed the turnstile; it must not win.
    for _ in 0..20 {
        assert!(plane.online(agent.server).await && plane.app.nodes.is_linked(agent.server));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_shutdown_tells_agents_to_come_back_at_once() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let link = agent.link(&plane, vec![]).await;
    let plane = plane.restart().await;
    assert_eq!(link.closed().await, Some(Close::Restarting));
    assert!(!plane.online(agent.server).await);
    agent.link(&plane, vec![]).await;
}

#[tokio::test]
async fn a_silent_agent_is_dropped_although_its_connection_lives() {
    // The least patience of the control plane is what this test waits for.
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let link = agent.link(&plane, vec![]).await;
    let closed = tokio::time::timeout(Duration::from_secs(40), link.connection.closed()).await.unwrap();
    assert_eq!(Close::of(&closed), Some(Close::Protocol));
    eventually("offline", async || (!plane.online(agent.server).await).then_some(())).await;
}

#[tokio::test]
async fn a_certificates_end_is_the_links_end() {
    let plane = Plane::start().await;
    let mut agent = enrolled(&plane, "one").await;
    let authority =
        hoody_control_plane::nodes::authority::open(&plane.app.store, &plane.app.keys).await.unwrap().present;
    let lifetime = hoody_protocol::transport::NODE_CERTIFICATE_LIFETIME;
    let issued = std::time::SystemTime::now() - lifetime + Duration::from_secs(3);
    let chain = authority.issue_node(agent.server, &agent.key().public_key(), issued).unwrap();
    agent.identity = Identity::of_node(chain, &agent.key());
    let link = agent.link(&plane, vec![]).await;
    assert_eq!(link.closed().await, Some(Close::Expired));
}

#[tokio::test]
async fn unknown_containers_are_kept_and_listed() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let other: ServerId = plane.server("two").await;
    let foreign = plane.container(other, vec![]).await;
    let ours = plane.container(agent.server, vec![]).await;
    let stray = InventoryEntry {
        container: ContainerId::generate(),
        version: SpecVersion { epoch: 1, generation: 4 },
        state: State::Running,
        sequence: 9,
    };
    let (reply, _link) = agent.say(&plane, &hello(vec![stray, entry(&ours, 1), entry(&foreign, 1)])).await.unwrap();
    assert!(matches!(reply, HelloReply::Accepted { .. }));
    let unknown = hoody_control_plane::store::unknown::list(&plane.app.store, agent.server).await.unwrap();
    let unknown: Vec<_> = unknown.iter().map(|row| row.container).collect();
    let mut expected = vec![stray.container, foreign.id];
    expected.sort();
    assert_eq!(unknown, expected);
    let acked = format!("SELECT acked_generation FROM containers WHERE id = '{}'", foreign.id);
    assert_eq!(plane.number(acked).await, 0, "another server's container is not touched");
}
