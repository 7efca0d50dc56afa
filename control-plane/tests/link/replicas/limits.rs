//! What one side may take of the other's: streams, places, and the length of a question.

use super::*;
use crate::exports::ordered;
use hoody_control_plane::nodes::NoExport;
use hoody_protocol::{codec::HEADER_BYTES, replica::MAX_ASKED};
use std::collections::HashMap;

/// Gives the plane a stream that it asks for.
async fn give(connection: &Connection) -> (RelayPurpose, Ends) {
    let (mut send, mut recv) = soon("a stream", connection.accept_bi()).await.unwrap();
    let request: RelayRequest = stream::read(&mut recv).await.unwrap();
    stream::write(&mut send, &RelayReply::Opened).await.unwrap();
    (request.purpose, (send, recv))
}

#[tokio::test]
async fn conversations_leave_streams_to_questions_and_archives_to_transfers() {
    let plane = Plane::with_replicas().await;
    let target = enrolled(&plane, "target").await;
    let server = plane.server("away").await;
    let other = Other::of(&plane).await;
    other.holds(&plane, server, other.address()).await;
    let talk = other.asked(&plane, server).await;
    let container = ContainerId::generate();

    let (mut here, mut there) = (Vec::new(), Vec::new());
    let refused = loop {
        let nodes = plane.app.nodes.clone();
        let mut opening = tokio::spawn(async move { nodes.open(server, &TerminalQuery { container }).await });
        let opened = tokio::select! {
            (purpose, ends) = give(&talk) => {
                assert_eq!(purpose, RelayPurpose::Conversation);
                there.push(ends);
                soon("the stream", opening).await
            }
            opened = &mut opening => opened,
        };
        match opened.unwrap() {
            Ok(stream) => here.push(stream),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, OpenError::TooMany), "{refused:?} after {}", here.len());
    let nodes = plane.app.nodes.clone();
    let asking = tokio::spawn(async move {
        nodes.ask::<_, InspectionReply>(server, &InspectionQuery { container }, PATIENCE).await.map_err(|_| ())
    });
    let (purpose, (mut send, _recv)) = give(&talk).await;
    assert_eq!(purpose, RelayPurpose::Question);
    stream::write(&mut send, &InspectionReply::NotRunning).await.unwrap();
    assert!(matches!(asking.await.unwrap(), Ok(InspectionReply::NotRunning)));
    // One that ends makes room for another.
    drop(here.pop());
    let nodes = plane.app.nodes.clone();
    let opening = tokio::spawn(async move { nodes.open(server, &TerminalQuery { container }).await.map(drop) });
    let (_, _ends) = give(&talk).await;
    soon("the stream", opening).await.unwrap().unwrap();

    let (_, first) = ordered(&plane, server);
    let bulk = other.accept().await;
    let mut archives = vec![(give(&bulk).await, first)];
    let refused = loop {
        let (_, mut order) = ordered(&plane, server);
        tokio::select! {
            given = give(&bulk) => archives.push((given, order)),
            ended = &mut order => break ended.unwrap(),
        }
    };
    assert!(matches!(refused, Err(NoExport::TooMany)), "{refused:?} after {}", archives.len());
    let transfer = plane.transfer(server, target.server).await.id;
    let (_endpoint, connection) = target.connect(&plane, BULK).await;
    let (mut send, _recv) = soon("a stream", connection.open_bi()).await.unwrap();
    stream::write(&mut send, &TransferRequest { transfer, offset: 0 }).await.unwrap();
    assert_eq!(give(&bulk).await.0, RelayPurpose::Transfer(transfer));
}

#[tokio::test]
async fn whoever_makes_up_addresses_takes_no_place_from_replicas() {
    /// Connections that may be in their handshake at once.
    const PLACES: usize = 128;
    let plane = Plane::with_replicas().await;
    let other = Other::of(&plane).await;
    // First packets of clients that are nowhere: whatever is sent to them is not read.
    let nowhere = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (endpoint, address) = (crate::agent::endpoint(), nowhere.local_addr().unwrap());
    let config = client_config(None, &other.authorities, REPLICA).unwrap();
    let (mut dials, mut firsts, mut packet) = (Vec::new(), HashMap::new(), [0; 2048]);
    while firsts.len() < PLACES {
        dials.push(endpoint.connect_with(config.clone(), address, &replica_name("somebody")).unwrap());
        while firsts.len() < dials.len() {
            let length = soon("a first packet", nowhere.recv(&mut packet)).await.unwrap();
            firsts.entry(dial_of(&packet)).or_insert_with(|| packet[..length].to_vec());
        }
    }
    for packet in firsts.values() {
        nowhere.send_to(packet, plane.inside()).await.unwrap();
        tokio::task::yield_now().await;
    }
    other.dial(&plane, REPLICA).await;
}

/// The same question, about so many servers.
fn question(count: usize) -> Vec<u8> {
    let servers: Vec<_> = std::iter::repeat_n(ServerId::from_bytes([7; 12]), count).collect();
    let servers = servers.try_into().unwrap();
    frame(&KnownQuery { servers, containers: Default::default(), transfers: Default::default() })
}

/// A question about `count` servers as bytes, made one about one more. CBOR writes the length of such lists in two
/// bytes behind 0x99 (RFC 8949, 3.1).
fn longer(count: u16, item: usize) -> Vec<u8> {
    let mut bytes = question(count.into());
    let head = |count: u16| [&[0x99], &count.to_be_bytes()[..]].concat();
    let list = bytes.windows(3).position(|bytes| bytes == head(count)).unwrap();
    let first = bytes[list + 3..list + 3 + item].to_vec();
    bytes.splice(list..list + 3, [head(count + 1), first].concat());
    let length = u32::try_from(bytes.len() - HEADER_BYTES).unwrap();
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

#[tokio::test]
async fn a_question_of_another_replica_is_no_longer_than_it_may_be() {
    let plane = Plane::with_replicas().await;
    let other = Other::of(&plane).await;
    let talk = other.dial(&plane, REPLICA).await;
    let item = question(MAX_ASKED).len() - question(MAX_ASKED - 1).len();
    let most = u16::try_from(MAX_ASKED).unwrap();
    let ask = async |bytes: &[u8]| {
        let (mut send, mut recv) = talk.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        soon("an answer", stream::read_frame(&mut recv)).await
    };
    // The longest, which is about nothing that is known.
    let answer = ask(&longer(most - 1, item)).await;
    assert!(matches!(answer, Err(StreamError::Finished)), "{answer:?}");
    let answer = ask(&longer(most, item)).await.unwrap();
    assert!(answer.is::<Refusal>(), "{answer:?}");
}
