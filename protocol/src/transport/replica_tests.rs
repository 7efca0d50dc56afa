//! Who gets in where replicas listen for each other, and where a replica's certificate does not get in.

use super::*;
use crate::id::ServerId;
use quinn::{Endpoint, SendStream};
use rustls::client::Resumption;
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn authority() -> Authority {
    Authority::create(SystemTime::now()).unwrap()
}

fn trusted(authority: &Authority) -> [CertificateDer<'static>; 1] {
    [authority.certificate().clone()]
}

fn replica(authority: &Authority, name: &str) -> Identity {
    authority.issue_replica(name, DAY, SystemTime::now()).unwrap()
}

/// A listener that admits as replicas do.
fn listen(authority: &Authority, name: &str) -> (Endpoint, SocketAddr) {
    let config = replica_server_config(replica(authority, name), &trusted(authority)).unwrap();
    let endpoint = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = endpoint.local_addr().unwrap();
    (endpoint, address)
}

/// Dials `name` at the listener, and what became of it on the listener's side, or why nothing did on the other.
async fn outcome(
    (endpoint, address): &(Endpoint, SocketAddr),
    config: quinn::ClientConfig,
    name: &str,
) -> Result<ReplicaPeer, String> {
    let dialler = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let dial = async {
        let connection = dialler.connect_with(config, *address, name).unwrap().await.map_err(|e| e.to_string())?;
        // A stream is had only where the listener let the client in.
        tokio::select! {
            opened = connection.open_bi() => opened.map(|_| ()).map_err(|error| error.to_string())?,
            reason = connection.closed() => return Err(reason.to_string()),
        }
        Ok(connection)
    };
    let admit = async {
        let connection = endpoint.accept().await.unwrap().await.map_err(|error| error.to_string())?;
        let peer = admit_replica(&connection).map_err(|error| error.to_string());
        if peer.is_err() {
            Close::CertificateRequired.close(&connection);
        }
        Ok::<_, String>((connection, peer?))
    };
    let (dialled, admitted) = tokio::join!(dial, admit);
    dialled?;
    admitted.map(|(_, peer)| peer)
}

fn client(identity: &Identity, authority: &Authority, alpn: &'static [u8]) -> quinn::ClientConfig {
    client_config(Some(identity), &trusted(authority), alpn).unwrap()
}

#[tokio::test]
async fn a_replica_reaches_another_on_both_protocols_and_each_knows_the_other() {
    let authority = authority();
    let listener = listen(&authority, "there");
    let here = replica(&authority, "here");
    for alpn in [REPLICA, REPLICA_BULK] {
        let config = replica_client_config(&here, &trusted(&authority), alpn).unwrap();
        let peer = outcome(&listener, config, &replica_name("there")).await.unwrap();
        assert_eq!(peer.replica, "here");
        assert!(peer.not_after > crate::time::now_ms());
    }
}

#[tokio::test]
async fn another_replica_at_the_address_is_not_taken_for_the_one_that_was_dialled() {
    let authority = authority();
    let listener = listen(&authority, "successor");
    let config = replica_client_config(&replica(&authority, "here"), &trusted(&authority), REPLICA).unwrap();
    let error = outcome(&listener, config, &replica_name("there")).await.unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn nobody_else_gets_in() {
    let foreign = authority();
    let authority = authority();
    let listener = listen(&authority, "there");
    let key = generate_node_key().unwrap();
    let chain = authority.issue_node(ServerId::generate(), &key.public_key(), SystemTime::now()).unwrap();
    let expired = authority.issue_replica("old", DAY, SystemTime::now() - 3 * DAY).unwrap();
    let own = authority.issue_server(DAY, SystemTime::now()).unwrap();
    for (who, identity) in [
        ("no certificate", None),
        ("a node's", Some(Identity::of_node(chain, &key))),
        ("the control plane's own towards nodes", Some(own)),
        ("another platform's replica", Some(replica(&foreign, "here"))),
        ("an expired replica", Some(expired)),
    ] {
        for alpn in [REPLICA, REPLICA_BULK] {
            let config = client_config(identity.as_ref(), &trusted(&authority), alpn).unwrap();
            let outcome = outcome(&listener, config, &replica_name("there")).await;
            assert!(outcome.is_err(), "{who}: {outcome:?}");
        }
    }
    // A protocol of nodes is not spoken here, whoever asks.
    let config = client(&replica(&authority, "here"), &authority, NODE);
    outcome(&listener, config, &replica_name("there")).await.unwrap_err();
}

#[tokio::test]
async fn a_replicas_certificate_is_neither_a_nodes_nor_the_control_planes() {
    let authority = authority();
    let own = authority.issue_server(DAY, SystemTime::now()).unwrap();
    let config = server_config(own, &trusted(&authority), Arc::new(AnyPeer)).unwrap();
    let nodes = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = nodes.local_addr().unwrap();
    let identity = replica(&authority, "here");
    for alpn in [NODE, BULK] {
        let dialler = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let connecting = dialler.connect_with(client(&identity, &authority, alpn), address, SERVER_NAME).unwrap();
        let (_, accepted) = tokio::join!(connecting, async { nodes.accept().await.unwrap().await });
        accepted.unwrap_err();
    }
    // Nor does whoever dials the control plane take a replica for it, even where the replica would let it in.
    let listener = listen(&authority, "there");
    let error = outcome(&listener, client(&identity, &authority, REPLICA), SERVER_NAME).await.unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn every_connection_shows_its_certificate_again() {
    let authority = authority();
    let listener = listen(&authority, "there");
    // One that would go on with a session of before.
    let mut eager = tls::client(Some(&replica(&authority, "here")), &trusted(&authority), REPLICA).unwrap();
    eager.resumption = Resumption::in_memory_sessions(8);
    eager.enable_early_data = true;
    let config = quic::client(eager, quinn::TransportConfig::default()).unwrap();
    let there = replica_name("there");
    for _ in 0..2 {
        outcome(&listener, config.clone(), &there).await.unwrap();
    }
    let dialler = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let again = dialler.connect_with(config, listener.1, &there).unwrap();
    assert!(again.into_0rtt().is_err(), "it was given what it needs to come back unasked");
}

/// Writes until no byte more is taken at once: what the windows allow.
async fn fill(send: &mut SendStream) {
    let bytes = vec![0; 1 << 20];
    loop {
        tokio::select! {
            biased;
            written = send.write(&bytes) => written.unwrap(),
            () = std::future::ready(()) => return,
        };
    }
}

#[tokio::test]
async fn streams_that_nobody_reads_hold_up_no_other() {
    for (alpn, streams) in [(REPLICA, REPLICA_STREAMS), (REPLICA_BULK, REPLICA_BULK_STREAMS)] {
        for to_who_has_dialled in [true, false] {
            let authority = authority();
            let (listener, address) = listen(&authority, "there");
            let dialler = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
            let config = replica_client_config(&replica(&authority, "here"), &trusted(&authority), alpn).unwrap();
            let dialling = dialler.connect_with(config, address, &replica_name("there")).unwrap();
            let (dialled, accepted) = tokio::join!(dialling, async { listener.accept().await.unwrap().await });
            let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
            admit_replica(&accepted).unwrap();
            let open = async || {
                let mut ours = dialled.open_bi().await.unwrap();
                ours.0.write_all(b"?").await.unwrap();
                (ours, accepted.accept_bi().await.unwrap())
            };
            let mut full = Vec::new();
            for _ in 1..streams {
                let (mut ours, mut theirs) = open().await;
                fill(if to_who_has_dialled { &mut theirs.0 } else { &mut ours.0 }).await;
                full.push((ours, theirs));
            }
            let question = async {
                let (mut ours, mut theirs) = open().await;
                theirs.1.read_exact(&mut [0]).await.unwrap();
                theirs.0.write_all(b"!").await.unwrap();
                ours.1.read_exact(&mut [0]).await.unwrap();
            };
            let answered = tokio::time::timeout(Duration::from_secs(20), question).await;
            assert!(answered.is_ok(), "{} {to_who_has_dialled}", String::from_utf8_lossy(alpn));
        }
    }
}
