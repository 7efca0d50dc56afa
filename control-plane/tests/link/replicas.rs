//! Another replica, by hand: what this one gives to it and takes from it, and who is not let in. Its certificate is
//! issued as replicas issue theirs: the authority's key is in the store that they share.

mod limits;

use crate::{
    agent::{Link, enrolled, fill, frame, soon},
    plane::{PATIENCE, Plane},
};
use hoody_control_plane::nodes::{Asked, Reach, authority, remote::OpenError};
use hoody_protocol::{
    container::Cause,
    exec::{ProcessInput, ProcessOutput, TerminalQuery},
    id::{ContainerId, ExportId, ServerId, TransferId},
    inspection::{InspectionQuery, InspectionReply},
    link::{CommandReply, Refusal},
    replica::{Age, KnownQuery, KnownReply, Moved, RelayPurpose, RelayReply, RelayRequest},
    stats::{NodeStats, StatsBatch},
    stream::{self, StreamError},
    time::now_ms,
    transfer::{TransferData, TransferOffer, TransferReply, TransferRequest},
    transport::{
        BULK, CertificateDer, Close, Identity, NODE, REPLICA, REPLICA_BULK, admit_replica, client_config,
        replica_client_config, replica_name, replica_server_config,
    },
};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, SystemTime},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const OTHER: &str = "0123456789abcdef01234567";

type Ends = (SendStream, RecvStream);

/// Another replica of a plane, which listens too.
struct Other {
    endpoint: Endpoint,
    identity: Identity,
    authorities: [CertificateDer<'static>; 1],
}

impl Other {
    async fn of(plane: &Plane) -> Self {
        let present = authority::open(&plane.app.store, &plane.app.keys).await.unwrap().present;
        let authorities = [present.certificate().clone()];
        let identity = present.issue_replica(OTHER, DAY, SystemTime::now()).unwrap();
        let config = replica_server_config(identity.clone(), &authorities).unwrap();
        let endpoint = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        Self { endpoint, identity, authorities }
    }

    /// Dials the plane.
    async fn dial(&self, plane: &Plane, alpn: &'static [u8]) -> Connection {
        let config = replica_client_config(&self.identity, &self.authorities, alpn).unwrap();
        let name = replica_name(&plane.app.replica);
        soon("the handshake", self.endpoint.connect_with(config, plane.inside(), &name).unwrap()).await.unwrap()
    }

    /// Takes the plane's connection.
    async fn accept(&self) -> Connection {
        let incoming = soon("a connection", self.endpoint.accept()).await.unwrap();
        let connection = soon("the handshake", incoming.accept().unwrap()).await.unwrap();
        admit_replica(&connection).unwrap();
        connection
    }

    /// Takes the connection on which the plane asks, which is there from now on: what is asked next need not wait for it.
    async fn asked(&self, plane: &Plane, server: ServerId) -> Connection {
        let nodes = plane.app.nodes.clone();
        let asking = tokio::spawn(async move { nodes.measured(server).await });
        let connection = self.accept().await;
        drop(soon("a question", connection.accept_bi()).await.unwrap());
        assert!(asking.await.unwrap().is_none());
        connection
    }

    /// Has the server's link, as the store says.
    async fn holds(&self, plane: &Plane, server: ServerId, address: SocketAddr) {
        plane
            .execute(format!(
                "INSERT INTO replicas (id, started_at, expires_at, address) VALUES ('{OTHER}', 1, {}, '{address}'); \
                 UPDATE servers SET online = 1, linked_to = '{OTHER}' WHERE id = '{server}'",
                now_ms() + 60_000
            ))
            .await;
    }

    fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }
}

async fn relay(connection: &Connection, server: ServerId, purpose: RelayPurpose) -> (RelayReply, Ends) {
    let (mut send, mut recv) = soon("a stream", connection.open_bi()).await.unwrap();
    stream::write(&mut send, &RelayRequest { server, purpose }).await.unwrap();
    let reply = soon("an answer", stream::read(&mut recv)).await.unwrap();
    (reply, (send, recv))
}

/// A stream that the plane relays to the agent, and the agent's end of it, after one message of the former.
async fn relayed(talk: &Connection, link: &Link, server: ServerId) -> (Ends, Ends) {
    let (reply, mut asking) = relay(talk, server, RelayPurpose::Conversation).await;
    assert_eq!(reply, RelayReply::Opened);
    let query = TerminalQuery { container: ContainerId::generate() };
    stream::write(&mut asking.0, &query).await.unwrap();
    let mut asked = soon("the stream", link.connection.accept_bi()).await.unwrap();
    assert_eq!(stream::read::<TerminalQuery>(&mut asked.1).await.unwrap(), query);
    (asking, asked)
}

#[tokio::test]
async fn another_replica_gets_a_nodes_streams_and_what_either_end_does_reaches_the_other() {
    let plane = Plane::with_replicas().await;
    let agent = enrolled(&plane, "one").await;
    let link = agent.link(&plane, vec![]).await;
    let other = Other::of(&plane).await;
    let talk = other.dial(&plane, REPLICA).await;

    // A whole exchange, to the end in both directions.
    let ((mut send, mut recv), (mut node_send, mut node_recv)) = relayed(&talk, &link, agent.server).await;
    let output = ProcessOutput::Output(vec![7; 16 << 10].try_into().unwrap());
    for _ in 0..64 {
        stream::write(&mut node_send, &output).await.unwrap();
        assert_eq!(soon("output", stream::read::<ProcessOutput>(&mut recv)).await.unwrap(), output);
    }
    stream::write(&mut send, &ProcessInput::End).await.unwrap();
    send.finish().unwrap();
    assert_eq!(soon("input", stream::read::<ProcessInput>(&mut node_recv)).await.unwrap(), ProcessInput::End);
    assert!(matches!(soon("an end", stream::read_frame(&mut node_recv)).await, Err(StreamError::Finished)));
    node_send.finish().unwrap();
    assert!(matches!(soon("an end", stream::read_frame(&mut recv)).await, Err(StreamError::Finished)));

    // Breaking off keeps its code, so that the node ends the process, and the caller is not told of an end.
    let ((mut send, mut recv), (mut node_send, mut node_recv)) = relayed(&talk, &link, agent.server).await;
    send.reset(stream::CANCELLED).unwrap();
    let broken = soon("a reset", stream::read_frame(&mut node_recv)).await;
    assert!(
        matches!(broken, Err(StreamError::Read(quinn::ReadError::Reset(code))) if code == stream::CANCELLED),
        "{broken:?}"
    );
    node_send.reset(stream::MALFORMED).unwrap();
    let broken = soon("a reset", stream::read_frame(&mut recv)).await;
    assert!(
        matches!(broken, Err(StreamError::Read(quinn::ReadError::Reset(code))) if code == stream::MALFORMED),
        "{broken:?}"
    );
    let ((send, recv), (node_send, node_recv)) = relayed(&talk, &link, agent.server).await;
    drop(recv);
    soon("a stop", node_send.stopped()).await.unwrap().expect("a code");
    drop(node_recv);
    soon("a stop", send.stopped()).await.unwrap().expect("a code");

    // The other replica is gone: so is what it asked for.
    let (_asking, (node_send, mut node_recv)) = relayed(&talk, &link, agent.server).await;
    talk.close(0_u32.into(), b"killed");
    let broken = soon("a reset", stream::read_frame(&mut node_recv)).await;
    assert!(matches!(broken, Err(StreamError::Read(quinn::ReadError::Reset(_)))), "{broken:?}");
    soon("a stop", node_send.stopped()).await.unwrap().expect("a code");
}

#[tokio::test]
async fn what_this_replica_does_not_have_it_does_not_look_for_elsewhere() {
    let plane = Plane::with_replicas().await;
    let server = plane.server("away").await;
    let other = Other::of(&plane).await;
    // The store says that the one who asks has it: it is not asked in turn.
    other.holds(&plane, server, other.address()).await;
    let (talk, bulk) = (other.dial(&plane, REPLICA).await, other.dial(&plane, REPLICA_BULK).await);
    for (connection, purpose) in [
        (&talk, RelayPurpose::Question),
        (&talk, RelayPurpose::Conversation),
        (&bulk, RelayPurpose::Transfer(TransferId::generate())),
        (&bulk, RelayPurpose::Export(ExportId::generate())),
    ] {
        assert_eq!(relay(connection, server, purpose).await.0, RelayReply::NotLinked);
    }
    // What is no request of a replica is refused.
    let (mut send, mut recv) = talk.open_bi().await.unwrap();
    stream::write(&mut send, &ProcessInput::End).await.unwrap();
    let refusal: Refusal = soon("a refusal", stream::read(&mut recv)).await.unwrap();
    assert_eq!(&*refusal.cause.code, "unexpected_message");
}

#[tokio::test]
async fn a_replica_tells_what_it_has_measured_and_takes_what_another_has() {
    let plane = Plane::with_replicas().await;
    let here = plane.server("here").await;
    let batch = |busy| StatsBatch {
        at: 300,
        node: NodeStats { cpu_busy_percent: busy, ..NodeStats::default() },
        containers: Default::default(),
    };
    plane.app.nodes.measurements.record(here, batch(12.5), |_| true);
    let other = Other::of(&plane).await;
    let talk = other.dial(&plane, REPLICA).await;
    let (mut send, mut recv) = talk.open_bi().await.unwrap();
    let (servers, unknown) = (vec![here, ServerId::generate()].try_into().unwrap(), vec![ContainerId::generate()]);
    let query = KnownQuery { servers, containers: unknown.try_into().unwrap(), transfers: Default::default() };
    stream::write(&mut send, &query).await.unwrap();
    let KnownReply::Server { server, stats, age } = soon("a reply", stream::read(&mut recv)).await.unwrap() else {
        panic!("no measurement")
    };
    assert_eq!((server, stats.cpu_busy_percent, age.taken_at), (here, 12.5, 300));
    assert!(matches!(soon("the end", stream::read_frame(&mut recv)).await, Err(StreamError::Finished)));

    // The other way round.
    let (away, transfer) = (plane.server("away").await, TransferId::generate());
    other.holds(&plane, away, other.address()).await;
    let connection = other.asked(&plane, away).await;
    let ask = || {
        let nodes = plane.app.nodes.clone();
        let asked =
            Asked { servers: [away, here].into(), transfers: vec![(away, transfer)], containers: Vec::default() };
        tokio::spawn(async move { nodes.known(asked).await })
    };
    let tell = async |age_ms| {
        let (mut send, mut recv) = soon("a question", connection.accept_bi()).await.unwrap();
        let query: KnownQuery = stream::read(&mut recv).await.unwrap();
        assert_eq!((&query.servers[..], &query.transfers[..]), (&[away][..], &[transfer][..]));
        let stats = NodeStats { cpu_busy_percent: 99.0, ..NodeStats::default() };
        let age = Age { taken_at: 400, age_ms };
        stream::write(&mut send, &KnownReply::Server { server: away, stats, age }).await.unwrap();
        let moved = Moved { bytes: 17, ..Moved::default() };
        stream::write(&mut send, &KnownReply::Transfer { transfer, moved }).await.unwrap();
        send.finish().unwrap();
    };
    // What was heard here before the link went there is older.
    plane.app.nodes.measurements.record(away, batch(1.0), |_| true);
    let asking = ask();
    tell(0).await;
    let known = asking.await.unwrap();
    assert_eq!(known.servers[&away].value.cpu_busy_percent, 99.0);
    let old = now_ms() - known.servers[&away].received_at;
    assert!(old < 60_000, "an age, not a clock: {old}");
    assert_eq!((known.servers[&here].value.cpu_busy_percent, known.transfers[&transfer].bytes), (12.5, 17));
    // And what was heard here since it was there is newer than what was heard there before.
    plane.app.nodes.measurements.record(away, batch(50.0), |_| true);
    let asking = ask();
    tell(60_000).await;
    assert_eq!(asking.await.unwrap().servers[&away].value.cpu_busy_percent, 50.0);
}

#[tokio::test]
async fn a_question_goes_through_the_replica_that_has_the_link() {
    let plane = Plane::with_replicas().await;
    let server = plane.server("away").await;
    let nodes = plane.app.nodes.clone();
    assert_eq!(nodes.reach(server, true).await.unwrap(), Reach::Offline, "nobody has it");
    let other = Other::of(&plane).await;
    other.holds(&plane, server, other.address()).await;
    assert_eq!(nodes.reach(server, true).await.unwrap(), Reach::Reached);
    let container = ContainerId::generate();
    let asking = tokio::spawn(async move {
        nodes.ask::<_, InspectionReply>(server, &InspectionQuery { container }, PATIENCE).await.map_err(|_| ())
    });
    let connection = other.accept().await;
    let (mut send, mut recv) = soon("a stream", connection.accept_bi()).await.unwrap();
    let request: RelayRequest = stream::read(&mut recv).await.unwrap();
    assert_eq!(request, RelayRequest { server, purpose: RelayPurpose::Question });
    stream::write(&mut send, &RelayReply::Opened).await.unwrap();
    assert_eq!(stream::read::<InspectionQuery>(&mut recv).await.unwrap().container, container);
    stream::write(&mut send, &InspectionReply::NotRunning).await.unwrap();
    assert!(matches!(asking.await.unwrap(), Ok(InspectionReply::NotRunning)));

    // Whatever the other answers has its meaning.
    for (reply, too_many) in [(RelayReply::NotLinked, false), (RelayReply::TooMany, true)] {
        let nodes = plane.app.nodes.clone();
        let opening = tokio::spawn(async move { nodes.open(server, &TerminalQuery { container }).await.map(drop) });
        let (mut send, mut recv) = soon("a stream", connection.accept_bi()).await.unwrap();
        assert_eq!(stream::read::<RelayRequest>(&mut recv).await.unwrap().purpose, RelayPurpose::Conversation);
        stream::write(&mut send, &reply).await.unwrap();
        match opening.await.unwrap() {
            Err(OpenError::TooMany) => assert!(too_many),
            Err(OpenError::NotLinked) => assert!(!too_many),
            other => panic!("{other:?}"),
        }
    }
}

/// What came to a socket by now.
fn received(socket: &std::net::UdpSocket) -> Option<Vec<u8>> {
    let mut packet = vec![0; 2048];
    socket.set_nonblocking(true).unwrap();
    let length = socket.recv(&mut packet).ok()?;
    packet.truncate(length);
    Some(packet)
}

/// Which dial a client's packet is of: the destination's connection id, which it makes up (RFC 9000, 17.2).
fn dial_of(packet: &[u8]) -> Vec<u8> {
    assert_ne!(packet[0] & 0x80, 0, "a long header");
    packet[6..][..packet[5].into()].to_vec()
}

#[tokio::test]
async fn a_replica_that_is_not_there_is_as_a_server_that_is_offline() {
    let plane = Plane::with_replicas().await;
    let server = plane.server("away").await;
    let other = Other::of(&plane).await;
    // Its socket is there and nobody answers, as on a machine that hangs.
    let silent = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    other.holds(&plane, server, silent.local_addr().unwrap()).await;
    // Whoever asks first finds it out, and those who ask next do not wait again.
    const QUESTIONS: usize = 4;
    for _ in 0..QUESTIONS {
        assert!(soon("an answer", plane.app.nodes.measured(server)).await.is_none());
    }
    let dialled: HashSet<_> = std::iter::from_fn(|| received(&silent)).map(|packet| dial_of(&packet)).collect();
    assert!((1..QUESTIONS).contains(&dialled.len()), "dialled {} times", dialled.len());
    let query = TerminalQuery { container: ContainerId::generate() };
    let opened = soon("an answer", plane.app.nodes.open(server, &query)).await;
    assert!(matches!(opened, Err(OpenError::NotLinked)), "{opened:?}");
    // Its lease has passed: nobody is dialled at all.
    plane.execute("UPDATE replicas SET expires_at = 1".to_owned()).await;
    assert_eq!(plane.app.nodes.reach(server, true).await.unwrap(), Reach::Offline);
    // It lives, and gives others no streams.
    plane.execute(format!("UPDATE replicas SET expires_at = {}, address = NULL", now_ms() + 60_000)).await;
    assert_eq!(plane.app.nodes.reach(server, true).await.unwrap(), Reach::Elsewhere);
}

/// Dials where the plane listens for replicas; whether a stream was had.
async fn gets_in(plane: &Plane, config: quinn::ClientConfig) -> bool {
    let endpoint = crate::agent::endpoint();
    let name = replica_name(&plane.app.replica);
    let dialled = soon("the handshake", endpoint.connect_with(config, plane.inside(), &name).unwrap()).await;
    let Ok(connection) = dialled else { return false };
    tokio::select! {
        opened = connection.open_bi() => opened.is_ok(),
        _ = connection.closed() => false,
    }
}

#[tokio::test]
async fn a_node_or_a_stranger_does_not_get_in_as_a_replica() {
    let plane = Plane::with_replicas().await;
    let agent = enrolled(&plane, "one").await;
    let replicas = Other::of(&plane).await;
    let foreign = crate::agent::foreign(agent.server);
    for alpn in [REPLICA, REPLICA_BULK] {
        for identity in [None, Some(&agent.identity), Some(&foreign)] {
            let config = client_config(identity, &replicas.authorities, alpn).unwrap();
            assert!(!gets_in(&plane, config).await);
        }
        let config = replica_client_config(&replicas.identity, &replicas.authorities, alpn).unwrap();
        assert!(gets_in(&plane, config).await, "who is a replica does");
    }
    // And a replica's certificate is not one of a node, for either of a node's protocols.
    for alpn in [NODE, BULK] {
        let config = client_config(Some(&replicas.identity), &replicas.authorities, alpn).unwrap();
        let endpoint = crate::agent::endpoint();
        let name = hoody_protocol::transport::SERVER_NAME;
        let dialled = soon("the handshake", endpoint.connect_with(config, plane.address, name).unwrap()).await;
        if let Ok(connection) = dialled {
            soon("its end", connection.closed()).await;
        }
    }
}

#[tokio::test]
async fn a_file_system_is_fetched_through_the_replica_of_its_source() {
    let plane = Plane::with_replicas().await;
    let (source, target) = (enrolled(&plane, "source").await, enrolled(&plane, "target").await);
    let transfer = plane.transfer(source.server, target.server).await.id;
    let other = Other::of(&plane).await;
    other.holds(&plane, source.server, other.address()).await;
    let (_endpoint, bulk) = target.connect(&plane, BULK).await;
    let (mut wants, mut gets) = soon("a stream", bulk.open_bi()).await.unwrap();
    stream::write(&mut wants, &TransferRequest { transfer, offset: 0 }).await.unwrap();

    // The other replica is asked to wait for the offer first, and then to pass on the order.
    let connection = other.accept().await;
    let (mut offers, mut verdicts) = soon("a stream", connection.accept_bi()).await.unwrap();
    let request: RelayRequest = stream::read(&mut verdicts).await.unwrap();
    assert_eq!(request, RelayRequest { server: source.server, purpose: RelayPurpose::Transfer(transfer) });
    stream::write(&mut offers, &RelayReply::Opened).await.unwrap();
    let talk = other.accept().await;
    let (mut send, mut recv) = soon("a stream", talk.accept_bi()).await.unwrap();
    assert_eq!(stream::read::<RelayRequest>(&mut recv).await.unwrap().purpose, RelayPurpose::Question);
    stream::write(&mut send, &RelayReply::Opened).await.unwrap();
    stream::write(&mut send, &CommandReply::Accepted).await.unwrap();

    stream::write(&mut offers, &TransferOffer { transfer, offset: 0, total: None }).await.unwrap();
    let begun: TransferReply = soon("the beginning", stream::read(&mut gets)).await.unwrap();
    assert_eq!(begun, TransferReply::Begin { offset: 0 });
    assert_eq!(soon("it", stream::read::<TransferReply>(&mut verdicts)).await.unwrap(), begun);
    let piece = TransferData::Failed(Cause::new("x", "the source breaks off"));
    stream::write(&mut offers, &piece).await.unwrap();
    assert_eq!(soon("a piece", stream::read::<TransferData>(&mut gets)).await.unwrap(), piece);
    // The replica dies in the middle: the target is told that it broke off, and asks again.
    connection.close(0_u32.into(), b"killed");
    let broken = soon("a reset", stream::read_frame(&mut gets)).await;
    assert!(matches!(broken, Err(StreamError::Read(quinn::ReadError::Reset(_)))), "{broken:?}");
    let state = plane.text(format!("SELECT state FROM transfers WHERE id = '{transfer}'")).await;
    assert_eq!(state, "open");
}

#[tokio::test]
async fn what_a_source_offers_here_goes_to_the_replica_that_waits_for_it() {
    let plane = Plane::with_replicas().await;
    let (source, thief) = (enrolled(&plane, "source").await, enrolled(&plane, "thief").await);
    let _link = source.link(&plane, vec![]).await;
    let other = Other::of(&plane).await;
    let waiting = other.dial(&plane, REPLICA_BULK).await;
    let transfer = TransferId::generate();
    let (reply, (mut verdicts, mut gets)) = relay(&waiting, source.server, RelayPurpose::Transfer(transfer)).await;
    assert_eq!(reply, RelayReply::Opened);
    let offer = TransferOffer { transfer, offset: 0, total: Some(9) };
    // Another node's offer under the same id is nobody's.
    let (_endpoint, forged) = thief.connect(&plane, BULK).await;
    let (mut send, mut recv) = soon("a stream", forged.open_bi()).await.unwrap();
    stream::write(&mut send, &offer).await.unwrap();
    let refused: TransferReply = soon("a refusal", stream::read(&mut recv)).await.unwrap();
    assert!(matches!(refused, TransferReply::Refused { .. }), "{refused:?}");
    let (_endpoint, bulk) = source.connect(&plane, BULK).await;
    let (mut send, mut recv) = soon("a stream", bulk.open_bi()).await.unwrap();
    stream::write(&mut send, &offer).await.unwrap();
    assert_eq!(soon("the offer", stream::read::<TransferOffer>(&mut gets)).await.unwrap(), offer);
    stream::write(&mut verdicts, &TransferReply::Begin { offset: 0 }).await.unwrap();
    let begun: TransferReply = soon("the beginning", stream::read(&mut recv)).await.unwrap();
    assert_eq!(begun, TransferReply::Begin { offset: 0 });
    // A reader that stands still holds the source up: a window of each of the two streams, and what is gathered.
    fill(&mut send, &[7; 64 << 10], (1 << 20) + (512 << 10) + (128 << 10)).await;
    // Whoever waited goes: the source is told.
    waiting.close(0_u32.into(), b"killed");
    soon("the source's stream is broken off", async { while send.write(&[0]).await.is_ok() {} }).await;
}

#[tokio::test]
async fn an_orderly_end_closes_the_connections_of_replicas() {
    let plane = Plane::with_replicas().await;
    let other = Other::of(&plane).await;
    let talk = other.dial(&plane, REPLICA).await;
    let closed = tokio::spawn(async move { Close::of(&talk.closed().await) });
    let _plane = plane.restart().await;
    assert_eq!(soon("the end", closed).await.unwrap(), Some(Close::Restarting));
}
