//! Join tokens, certificates and their renewal.

use crate::{
    agent::{ask_to_enrol, enrolled, hello, join},
    plane::Plane,
};
use hoody_control_plane::{nodes::authority, service::enrolment};
use hoody_protocol::{
    enrol::EnrolReply,
    image::Digest,
    join_token::JoinToken,
    link::HelloReply,
    stream,
    transport::{CertificateDer, Identity, NODE_CERTIFICATE_LIFETIME, certificate_identity, generate_node_key},
};
use std::time::{Duration, SystemTime};

#[tokio::test]
async fn a_token_enrols_one_key_which_may_ask_again_until_its_first_hello() {
    let plane = Plane::start().await;
    let server = plane.server("one").await;
    let token = plane.token(server).await;
    let (key, other) = (generate_node_key().unwrap(), generate_node_key().unwrap());

    let agent = join(plane.address, &token, &key).await.unwrap();
    assert_eq!(agent.server, server);
    assert_eq!(join(plane.address, &token, &other).await.err().unwrap(), "token_used");
    // The answer was lost: the same key asks again.
    let again = join(plane.address, &token, &key).await.unwrap();
    assert_eq!(again.server, server);

    let _link = again.link(&plane, vec![]).await;
    assert_eq!(join(plane.address, &token, &key).await.err().unwrap(), "token_used");
}

#[tokio::test]
async fn expired_and_unknown_tokens_are_refused_by_name() {
    let plane = Plane::start().await;
    let server = plane.server("one").await;
    let token = plane.token(server).await;
    plane.execute("UPDATE join_tokens SET expires_at = 1".to_owned()).await;
    let key = generate_node_key().unwrap();
    assert_eq!(join(plane.address, &token, &key).await.err().unwrap(), "token_expired");
    plane.execute("DELETE FROM join_tokens".to_owned()).await;
    assert_eq!(join(plane.address, &token, &key).await.err().unwrap(), "token_unknown");
    assert_eq!(plane.text("SELECT public_key FROM servers".to_owned()).await, "", "nothing was pinned");
}

#[tokio::test]
async fn a_token_of_another_control_plane_is_refused_by_the_agent() {
    let (plane, other) = (Plane::start().await, Plane::start().await);
    let server = other.server("one").await;
    let token = other.token(server).await;
    let error = join(plane.address, &token, &generate_node_key().unwrap()).await.err().unwrap();
    assert!(error.contains("UnknownIssuer"), "{error}");
    let parsed: JoinToken = token.parse().unwrap();
    assert_ne!(parsed.authority, authority::open(&plane.app.store, &plane.app.keys).await.unwrap().present.digest());
    // The token was not shown to the wrong one: it still works where it belongs.
    join(other.address, &token, &generate_node_key().unwrap()).await.unwrap();
}

#[tokio::test]
async fn one_key_is_the_identity_of_one_server() {
    let plane = Plane::start().await;
    let (first, second) = (plane.server("one").await, plane.server("two").await);
    let key = generate_node_key().unwrap();
    join(plane.address, &plane.token(first).await, &key).await.unwrap();
    assert_eq!(join(plane.address, &plane.token(second).await, &key).await.err().unwrap(), "wrong_key");
}

#[tokio::test]
async fn a_new_key_takes_the_servers_place_and_the_old_one_is_out() {
    let plane = Plane::start().await;
    let old = enrolled(&plane, "one").await;
    let link = old.link(&plane, vec![]).await;
    let token = plane.token(old.server).await;
    let new = join(plane.address, &token, &generate_node_key().unwrap()).await.unwrap();
    assert_eq!(new.server, old.server);
    assert!(link.closed().await.is_some());
    assert_eq!(old.refusal(&plane, &hello(vec![])).await, ("wrong_key".to_owned(), false));
    new.link(&plane, vec![]).await;
}

#[tokio::test]
async fn a_revoked_server_gets_no_token_and_its_tokens_are_void() {
    let plane = Plane::start().await;
    let server = plane.server("one").await;
    let token = plane.token(server).await;
    enrolment::revoke(&plane.app, server).await.unwrap();
    assert_eq!(join(plane.address, &token, &generate_node_key().unwrap()).await.err().unwrap(), "token_unknown");
    let error = enrolment::create_join_token(&plane.app, server).await.unwrap_err();
    assert!(error.to_string().contains("revoked"), "{error}");
}

#[tokio::test]
async fn a_signing_request_that_proves_nothing_is_refused() {
    let plane = Plane::start().await;
    let server = plane.server("one").await;
    let token: JoinToken = plane.token(server).await.parse().unwrap();
    let request = hoody_protocol::enrol::EnrolRequest {
        secret: token.secret.clone(),
        csr: vec![0x30, 0x03, 1, 2, 3].try_into().unwrap(),
        agent_version: Default::default(),
    };
    let reply = ask_to_enrol(plane.address, token.authority, &request).await.unwrap();
    assert!(matches!(reply, EnrolReply::Refused(cause) if &*cause.code == "invalid_request"));
    join(plane.address, &token.reveal(), &generate_node_key().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_certificate_is_renewed_over_the_link_for_the_pinned_key_only() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let link = agent.link(&plane, vec![]).await;
    let ask = async |request| -> EnrolReply {
        stream::ask(&link.connection, &request, Duration::from_secs(5)).await.unwrap()
    };
    let EnrolReply::Issued { chain, server, .. } = ask(agent.renewal(&agent.key())).await else { panic!() };
    assert_eq!(server, agent.server);
    let peer = certificate_identity(&CertificateDer::from(chain[0].to_vec())).unwrap();
    assert_eq!((peer.server, peer.public_key), (agent.server, agent.key().public_key()));
    let reply = ask(agent.renewal(&generate_node_key().unwrap())).await;
    assert!(matches!(reply, EnrolReply::Refused(cause) if &*cause.code == "wrong_key"));
}

#[tokio::test]
async fn an_expired_certificate_may_be_renewed_and_nothing_else() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let issued = SystemTime::now() - NODE_CERTIFICATE_LIFETIME - Duration::from_secs(60);
    let authority = authority::open(&plane.app.store, &plane.app.keys).await.unwrap().present;
    let chain = authority.issue_node(agent.server, &agent.key().public_key(), issued).unwrap();
    let mut expired = agent.clone();
    expired.identity = Identity::of_node(chain, &agent.key());
    let error = expired.say(&plane, &hello(vec![])).await.err().unwrap();
    assert!(error.contains("expired"), "{error}");

    let digest = Digest::of(&agent.authorities[0]);
    let reply = ask_to_enrol(plane.address, digest, &agent.renewal(&agent.key())).await.unwrap();
    let EnrolReply::Issued { server, chain, .. } = reply else { panic!("{reply:?}") };
    assert_eq!(server, agent.server);
    let chain = chain.into_inner().into_iter().map(|der| CertificateDer::from(der.into_inner())).collect();
    expired.identity = Identity::of_node(chain, &agent.key());
    expired.link(&plane, vec![]).await;

    let reply = ask_to_enrol(plane.address, digest, &agent.renewal(&generate_node_key().unwrap())).await.unwrap();
    assert!(matches!(reply, EnrolReply::Refused(cause) if &*cause.code == "server_unknown"));
    enrolment::revoke(&plane.app, agent.server).await.unwrap();
    let reply = ask_to_enrol(plane.address, digest, &agent.renewal(&agent.key())).await.unwrap();
    assert!(matches!(reply, EnrolReply::Refused(cause) if &*cause.code == "server_shut_out"));
}

#[tokio::test]
async fn the_authority_outlives_a_restart() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let plane = plane.restart().await;
    let (reply, _link) = agent.say(&plane, &hello(vec![])).await.unwrap();
    assert!(matches!(reply, HelloReply::Accepted { .. }));
}
