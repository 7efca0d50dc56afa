//! The authority is replaced while nodes are linked.

use crate::{
    agent::{Agent, Link, answer, ask_to_enrol, enrolled, join, soon},
    plane::{PATIENCE, Plane, eventually},
};
use hoody_control_plane::nodes::authority;
use hoody_protocol::{
    enrol::EnrolReply,
    link::{CommandReply, RenewalOrder},
    stream,
    transport::{CertificateDer, Close, Identity, NODE, SERVER_NAME, client_config},
};

/// Waits for the order to renew, obeys it, and gives the agent as it is then.
async fn renew(agent: &Agent, link: &Link) -> Agent {
    let (mut send, mut recv) = soon("the order", link.connection.accept_bi()).await.unwrap();
    stream::read::<RenewalOrder>(&mut recv).await.unwrap();
    answer(&mut send, &CommandReply::Accepted).await;
    let reply: EnrolReply = stream::ask(&link.connection, &agent.renewal(&agent.key()), PATIENCE).await.unwrap();
    renewed(agent, reply)
}

fn renewed(agent: &Agent, reply: EnrolReply) -> Agent {
    let EnrolReply::Issued { chain, authorities, .. } = reply else { panic!("{reply:?}") };
    let ders = |list: Vec<hoody_protocol::bounded::Bytes<_>>| {
        list.into_iter().map(|der| CertificateDer::from(der.into_inner())).collect::<Vec<_>>()
    };
    let identity = Identity::of_node(ders(chain.into_inner()), &agent.key());
    Agent { identity, authorities: ders(authorities.into_inner()), ..agent.clone() }
}

/// Why the handshake, or what follows it, fails.
async fn shut_out(plane: &Plane, agent: &Agent) -> Option<String> {
    let config = client_config(Some(&agent.identity), &agent.authorities, NODE).unwrap();
    let endpoint = crate::agent::endpoint();
    match endpoint.connect_with(config, plane.address, SERVER_NAME).unwrap().await {
        Err(error) => Some(error.to_string()),
        Ok(connection) => tokio::time::timeout(PATIENCE, connection.closed()).await.ok().map(|error| error.to_string()),
    }
}

async fn stored(plane: &Plane) -> authority::Authorities {
    authority::open(&plane.app.store, &plane.app.keys).await.unwrap()
}

#[tokio::test]
async fn linked_nodes_move_to_the_next_authority_and_then_the_old_one_is_retired() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let link = agent.link(&plane, vec![]).await;
    let old = stored(&plane).await.present.digest();
    // By another process, as an operator's command does it.
    authority::rotate(&plane.app.store, &plane.app.keys).await.unwrap();
    let moved = renew(&agent, &link).await;
    assert_eq!(moved.authorities.len(), 2, "it trusts both");
    assert_eq!(stored(&plane).await.present.digest(), old, "until it has come with the new certificate");
    // An enrolment meanwhile works with either: the token names the one, the certificate is of the other.
    let late = enrolled(&plane, "late").await;
    let late_link = late.link(&plane, vec![]).await;
    let link = moved.link(&plane, vec![]).await;
    eventually("the old authority is retired", async || {
        let now = stored(&plane).await;
        (now.next.is_none() && now.present.digest() != old).then_some(())
    })
    .await;
    eventually("the listener has the new one", async || {
        // New links are by the new authority alone, and tokens carry it.
        let token: hoody_protocol::join_token::JoinToken =
            plane.token(plane.server(&format!("s{}", rand::random::<u32>())).await).await.parse().unwrap();
        (token.authority != old
            && ask_to_enrol(plane.address, token.authority, &agent.renewal(&agent.key())).await.is_ok())
        .then_some(())
    })
    .await;
    assert!(shut_out(&plane, &agent).await.is_some(), "the old certificate is worth nothing");
    assert!(link.connection.close_reason().is_none() && late_link.connection.close_reason().is_none());
    moved.link(&plane, vec![]).await;
    late.link(&plane, vec![]).await;
}

#[tokio::test]
async fn a_node_that_is_away_keeps_the_old_authority_until_an_operator_retires_it() {
    let plane = Plane::start().await;
    let (here, stubborn) = (enrolled(&plane, "here").await, enrolled(&plane, "stubborn").await);
    let link = here.link(&plane, vec![]).await;
    let refuses = stubborn.link(&plane, vec![]).await;
    authority::rotate(&plane.app.store, &plane.app.keys).await.unwrap();
    let moved = renew(&here, &link).await;
    let link = moved.link(&plane, vec![]).await;
    // The order has come to the other too, which did not obey.
    let (_send, mut recv) = soon("the order", refuses.connection.accept_bi()).await.unwrap();
    stream::read::<RenewalOrder>(&mut recv).await.unwrap();
    assert!(stored(&plane).await.next.is_some());
    let again = stubborn.link(&plane, vec![]).await;
    assert!(again.connection.close_reason().is_none(), "it may still come with its old certificate");
    assert!(authority::retire(&plane.app.store, &plane.app.keys).await.unwrap());
    assert_eq!(again.closed().await, Some(Close::Expired));
    assert!(shut_out(&plane, &stubborn).await.is_some());
    assert!(link.connection.close_reason().is_none());
    // It joins again, with the key it has.
    let token = plane.token(stubborn.server).await;
    let rejoined = join(plane.address, &token, &stubborn.key()).await.unwrap();
    assert_eq!(rejoined.server, stubborn.server);
    rejoined.link(&plane, vec![]).await;
}
