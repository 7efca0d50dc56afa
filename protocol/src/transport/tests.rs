//! Two endpoints on the loopback interface: who gets in, and who does not.

use super::{quic::LARGEST_PACKET, *};
use crate::{
    id::ServerId,
    image::Digest,
    stream::{self, StreamError},
};
use quinn::{ConnectionError, Endpoint};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Counts how often it is asked, and refuses one node.
#[derive(Debug, Default)]
struct Counting {
    asked: AtomicU32,
    refused: Option<ServerId>,
}

impl PeerCheck for Counting {
    fn check(&self, peer: &PeerIdentity) -> Result<(), PeerRefused> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.refused == Some(peer.server) { Err(PeerRefused) } else { Ok(()) }
    }
}

/// A control plane's listener that admits, or closes as its answer says.
struct Listener {
    endpoint: Endpoint,
    address: SocketAddr,
    authority: Authority,
    check: Arc<Counting>,
}

impl Listener {
    fn start(refused: Option<ServerId>) -> Self {
        let authority = Authority::create(SystemTime::now()).unwrap();
        let check = Arc::new(Counting { refused, ..Default::default() });
        let identity = authority.issue_server(DAY, SystemTime::now()).unwrap();
        let config = server_config(identity, &[authority.certificate().clone()], check.clone()).unwrap();
        let endpoint = listen((Ipv4Addr::LOCALHOST, 0).into(), config, &[7; RESET_SECRET_BYTES]).unwrap();
        let address = endpoint.local_addr().unwrap();
        Self { endpoint, address, authority, check }
    }

    /// The next connection, as far as it gets.
    async fn next(&self) -> Result<(quinn::Connection, Result<Admitted, AdmitError>), ConnectionError> {
        let connection = self.endpoint.accept().await.unwrap().await?;
        let admitted = admit(&connection);
        Ok((connection, admitted))
    }

    fn node(&self, server: ServerId, now: SystemTime) -> (Identity, NodeKey) {
        let key = generate_node_key().unwrap();
        let chain = self.authority.issue_node(server, &key.public_key(), now).unwrap();
        (Identity::of_node(chain, &key), key)
    }

    fn authorities(&self) -> [CertificateDer<'static>; 1] {
        [self.authority.certificate().clone()]
    }
}

fn dialler() -> Endpoint {
    Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap()
}

/// Connects and waits until the server let the client in, or said why not.
async fn outcome(listener: &Listener, config: quinn::ClientConfig) -> Result<Admitted, String> {
    let dialler = dialler();
    let connect = async {
        let connecting = dialler.connect_with(config, listener.address, SERVER_NAME).unwrap();
        let connection = connecting.await.map_err(|error| error.to_string())?;
        // The client has finished its handshake before the server looked at its certificate: only a
        // stream shows whether it was let in.
        tokio::select! {
            opened = connection.open_bi() => opened.map(|_| ()).map_err(|error| error.to_string())?,
            reason = connection.closed() => return Err(reason.to_string()),
        }
        Ok(connection)
    };
    let (client, server) = tokio::join!(connect, async {
        let (connection, admitted) = listener.next().await.map_err(|error| error.to_string())?;
        if admitted.is_err() {
            Close::CertificateRequired.close(&connection);
        }
        Ok::<_, String>((connection, admitted))
    });
    client?;
    server?.1.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_node_with_its_certificate_gets_in_on_both_protocols() {
    let listener = Listener::start(None);
    let server = ServerId::generate();
    let (identity, key) = listener.node(server, SystemTime::now());
    for alpn in [NODE, BULK] {
        let config = client_config(Some(&identity), &listener.authorities(), alpn).unwrap();
        let admitted = outcome(&listener, config).await.unwrap();
        let (Admitted::Node(peer) | Admitted::Bulk(peer)) = admitted else { panic!("{admitted:?}") };
        assert_eq!((peer.server, peer.public_key), (server, key.public_key()));
        let remaining = Duration::from_millis(peer.not_after - crate::time::now_ms());
        assert!(remaining > NODE_CERTIFICATE_LIFETIME - DAY && remaining <= NODE_CERTIFICATE_LIFETIME);
    }
}

/// Sends to and fro until `enough` of both sides' largest packets; gives those.
async fn packets_of(listener: &Listener, alpn: &'static [u8], enough: impl Fn(usize, u16) -> bool) -> u16 {
    const BYTES: usize = 64 << 10;
    let (identity, _) = listener.node(ServerId::generate(), SystemTime::now());
    let config = client_config(Some(&identity), &listener.authorities(), alpn).unwrap();
    let endpoint = super::dialler((Ipv4Addr::LOCALHOST, 0).into(), alpn).unwrap();
    let connecting = endpoint.connect_with(config, listener.address, SERVER_NAME).unwrap();
    let (client, server) = tokio::join!(connecting, listener.next());
    let (client, (server, admitted)) = (client.unwrap(), server.unwrap());
    admitted.unwrap();
    let (mut send, mut recv) = client.open_bi().await.unwrap();
    let mut echoed = vec![0; BYTES];
    send.write_all(&echoed).await.unwrap();
    let (mut back, mut there) = server.accept_bi().await.unwrap();
    for round in 0.. {
        there.read_exact(&mut echoed).await.unwrap();
        back.write_all(&echoed).await.unwrap();
        recv.read_exact(&mut echoed).await.unwrap();
        let [one, other] = [&client, &server].map(|connection| connection.stats().path.current_mtu);
        if enough(round, one.min(other)) {
            return one.max(other);
        }
        send.write_all(&echoed).await.unwrap();
    }
    unreachable!("rounds do not end")
}

#[tokio::test]
async fn bulk_finds_out_that_the_network_carries_large_packets_and_a_link_never_tries() {
    let listener = Listener::start(None);
    let large = packets_of(&listener, BULK, |_, packet| packet > LARGEST_PACKET - 100);
    let large = tokio::time::timeout(Duration::from_secs(60), large).await.expect("large packets");
    assert!(large <= LARGEST_PACKET, "{large}");
    // As many exchanges as are plenty for bulk.
    let small = packets_of(&listener, NODE, |round, _| round == 300).await;
    assert!(small <= 1_472, "{small}");
}

#[tokio::test]
async fn without_a_certificate_there_is_only_enrolment() {
    let listener = Listener::start(None);
    for alpn in [NODE, BULK] {
        let config = client_config(None, &listener.authorities(), alpn).unwrap();
        let error = outcome(&listener, config).await.unwrap_err();
        assert!(error.contains("client certificate required"), "{error}");
    }
    let config = enrol_client_config(listener.authority.digest()).unwrap();
    assert_eq!(outcome(&listener, config).await, Ok(Admitted::Enrol));
}

#[tokio::test]
async fn a_foreign_authoritys_certificate_is_refused() {
    let listener = Listener::start(None);
    let (foreign, _) = Listener::start(None).node(ServerId::generate(), SystemTime::now());
    for alpn in [NODE, BULK, ENROL] {
        let config = client_config(Some(&foreign), &listener.authorities(), alpn).unwrap();
        let error = outcome(&listener, config).await.unwrap_err();
        assert!(error.contains("UnknownIssuer"), "{error}");
    }
    assert_eq!(listener.check.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_so_is_one_that_begins_later() {
    let listener = Listener::start(None);
    let now = SystemTime::now();
    for (issued, word) in [(now - NODE_CERTIFICATE_LIFETIME - DAY, "expired"), (now + DAY, "certificate")] {
        let (identity, _) = listener.node(ServerId::generate(), issued);
        let config = client_config(Some(&identity), &listener.authorities(), NODE).unwrap();
        let error = outcome(&listener, config).await.unwrap_err();
        assert!(error.to_lowercase().contains(word), "{error}");
    }
    assert_eq!(listener.check.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_check_refuses_during_the_handshake() {
    let server = ServerId::generate();
    let listener = Listener::start(Some(server));
    let (identity, _) = listener.node(server, SystemTime::now());
    let config = client_config(Some(&identity), &listener.authorities(), NODE).unwrap();
    let error = outcome(&listener, config).await.unwrap_err();
    assert!(error.to_lowercase().contains("revoked"), "{error}");
}

#[tokio::test]
async fn the_control_planes_own_certificate_is_not_one_of_a_node() {
    let listener = Listener::start(None);
    let own = listener.authority.issue_server(DAY, SystemTime::now()).unwrap();
    let config = client_config(Some(&own), &listener.authorities(), NODE).unwrap();
    outcome(&listener, config).await.unwrap_err();
    assert_eq!(listener.check.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_node_cannot_stand_in_for_the_control_plane() {
    let listener = Listener::start(None);
    let (node, _) = listener.node(ServerId::generate(), SystemTime::now());
    let config = server_config(node, &listener.authorities(), Arc::new(AnyPeer)).unwrap();
    let impostor = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = impostor.local_addr().unwrap();
    for config in [
        client_config(None, &listener.authorities(), NODE).unwrap(),
        enrol_client_config(listener.authority.digest()).unwrap(),
    ] {
        let dialler = dialler();
        let connecting = dialler.connect_with(config, address, SERVER_NAME).unwrap();
        let (client, server) = tokio::join!(connecting, async { impostor.accept().await.unwrap().await });
        assert!(client.is_err() && server.is_err());
    }
}

#[tokio::test]
async fn another_control_plane_is_refused_by_the_fingerprint() {
    let listener = Listener::start(None);
    let config = enrol_client_config(Digest::of(b"another authority")).unwrap();
    let error = outcome(&listener, config).await.unwrap_err();
    assert!(error.contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn an_unknown_protocol_is_refused() {
    let listener = Listener::start(None);
    let (identity, _) = listener.node(ServerId::generate(), SystemTime::now());
    let config = client_config(Some(&identity), &listener.authorities(), b"hoody-node/0").unwrap();
    let error = outcome(&listener, config).await.unwrap_err();
    assert!(error.contains("application protocol") || error.contains("120"), "{error}");
}

#[tokio::test]
async fn every_connection_asks_the_verifier_again() {
    let listener = Listener::start(None);
    let (identity, _) = listener.node(ServerId::generate(), SystemTime::now());
    // One configuration for all connections: a session or ticket would be kept in it.
    let config = client_config(Some(&identity), &listener.authorities(), NODE).unwrap();
    for connections in 1..=3 {
        outcome(&listener, config.clone()).await.unwrap();
        assert_eq!(listener.check.asked.load(Ordering::SeqCst), connections);
    }
}

#[tokio::test]
async fn there_is_no_early_data() {
    let listener = Listener::start(None);
    let (identity, _) = listener.node(ServerId::generate(), SystemTime::now());
    let config = client_config(Some(&identity), &listener.authorities(), NODE).unwrap();
    outcome(&listener, config.clone()).await.unwrap();
    let connecting = dialler().connect_with(config, listener.address, SERVER_NAME).unwrap();
    assert!(connecting.into_0rtt().is_err(), "nothing is sent before the handshake");
}

#[tokio::test]
async fn a_frame_that_never_ends_is_cut_off_and_the_connection_goes_on() {
    let listener = Listener::start(None);
    let (identity, _) = listener.node(ServerId::generate(), SystemTime::now());
    let config = client_config(Some(&identity), &listener.authorities(), NODE).unwrap();
    let dialler = dialler();
    let connecting = dialler.connect_with(config, listener.address, SERVER_NAME).unwrap();
    let (client, server) = tokio::join!(connecting, listener.next());
    let (client, (server, admitted)) = (client.unwrap(), server.unwrap());
    admitted.unwrap();

    let (mut send, _recv) = client.open_bi().await.unwrap();
    send.write_all(&[0, 0, 0, 9, 0, 12, 1]).await.unwrap();
    send.finish().unwrap();
    let (_, mut recv) = server.accept_bi().await.unwrap();
    assert!(matches!(stream::read_frame(&mut recv).await, Err(StreamError::Truncated)));

    let (mut send, _recv) = client.open_bi().await.unwrap();
    send.write_all(&[0xff; 64]).await.unwrap();
    let (_, mut recv) = server.accept_bi().await.unwrap();
    assert!(matches!(stream::read_frame(&mut recv).await, Err(StreamError::Decode(_))));
    assert!(server.close_reason().is_none() && client.close_reason().is_none());
}

#[test]
fn a_signing_request_proves_the_key_and_nothing_else() {
    let key = generate_node_key().unwrap();
    let request = signing_request(&key).unwrap();
    assert_eq!(verify_signing_request(&request), Ok(key.public_key()));

    let mut other_signature = request.clone();
    *other_signature.last_mut().unwrap() ^= 1;
    assert_eq!(verify_signing_request(&other_signature), Err(IdentityError::Signature));
    let mut longer = request.clone();
    longer.push(0);
    assert!(matches!(verify_signing_request(&longer), Err(IdentityError::Encoding(_))));
    assert!(matches!(verify_signing_request(&request[..40]), Err(IdentityError::Encoding(_))));

    let ecdsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&ecdsa).unwrap();
    assert_eq!(verify_signing_request(request.der()), Err(IdentityError::NotEd25519));
}

#[test]
fn the_authority_and_a_nodes_key_survive_storage() {
    let authority = Authority::create(SystemTime::now()).unwrap();
    let opened = Authority::open(authority.certificate().to_vec(), authority.pkcs8()).unwrap();
    assert_eq!(opened.digest(), authority.digest());
    let server = ServerId::generate();
    let key = generate_node_key().unwrap();
    let key = NodeKey::from_pkcs8(key.pkcs8()).unwrap();
    let chain = opened.issue_node(server, &key.public_key(), SystemTime::now()).unwrap();
    let peer = certificate_identity(&chain[0]).unwrap();
    assert_eq!((peer.server, peer.public_key), (server, key.public_key()));
    assert_eq!(certificate_identity(&chain[1]), Err(IdentityError::NoNode));
    assert!(Authority::open(b"no certificate".to_vec(), authority.pkcs8()).is_err());
}

#[test]
fn a_public_key_has_one_text_form() {
    let key = generate_node_key().unwrap().public_key();
    assert_eq!(key.to_string().parse(), Ok(key));
    assert!("00".parse::<PublicKey>().is_err());
}
