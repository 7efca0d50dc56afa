//! Image blobs over the bulk connection.

use crate::{
    agent::{Agent, enrolled, soon},
    plane::Plane,
};
use hoody_protocol::{
    blob::{BlobReply, BlobRequest},
    bounded::Text,
    image::Digest,
    link::Refusal,
    stream,
    transport::{BULK, Close},
};
use quinn::Connection;

const MIB: usize = 1 << 20;

/// Asks for a blob; its size and bytes, or the code of the refusal.
async fn fetch(connection: &Connection, digest: Digest, offset: u64) -> Result<(u64, Vec<u8>), String> {
    let (mut send, mut recv) = soon("a stream", connection.open_bi()).await.unwrap();
    stream::write(&mut send, &BlobRequest { digest, offset }).await.unwrap();
    send.finish().unwrap();
    match soon("an answer", stream::read(&mut recv)).await.unwrap() {
        BlobReply::Found { size } => Ok((size, soon("the bytes", recv.read_to_end(64 * MIB)).await.unwrap())),
        BlobReply::Refused(cause) => Err(cause.code.to_string()),
    }
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| (index * 31 % 251) as u8).collect()
}

async fn setup() -> (Plane, Agent) {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    (plane, agent)
}

#[tokio::test]
async fn a_blob_is_fetched_whole_and_from_an_offset() {
    let (plane, agent) = setup().await;
    let bytes = content(9 * MIB + 17);
    let layer = plane.blob(&bytes);
    plane.container(agent.server, vec![layer.clone()]).await;
    let (_endpoint, connection) = agent.connect(&plane, BULK).await;
    let (size, whole) = fetch(&connection, layer.digest, 0).await.unwrap();
    assert_eq!((size, Digest::of(&whole)), (layer.size, layer.digest));

    // A transfer breaks off in the middle, with the connection.
    let (mut send, mut recv) = soon("a stream", connection.open_bi()).await.unwrap();
    stream::write(&mut send, &BlobRequest { digest: layer.digest, offset: 0 }).await.unwrap();
    let _: BlobReply = stream::read(&mut recv).await.unwrap();
    let mut part = vec![0; 3 * MIB + 5];
    recv.read_exact(&mut part).await.unwrap();
    Close::Done.close(&connection);
    let (_endpoint, connection) = agent.connect(&plane, BULK).await;
    let (size, rest) = fetch(&connection, layer.digest, part.len() as u64).await.unwrap();
    assert_eq!(size, layer.size);
    part.extend(rest);
    assert_eq!(Digest::of(&part), layer.digest);

    assert_eq!(fetch(&connection, layer.digest, size).await.unwrap().1, b"");
    assert_eq!(fetch(&connection, layer.digest, size + 1).await.unwrap_err(), "blob_offset");
    assert_eq!(fetch(&connection, layer.digest, u64::MAX).await.unwrap_err(), "blob_offset");
}

#[tokio::test]
async fn only_layers_of_the_servers_own_containers_are_served() {
    let (plane, agent) = setup().await;
    let other = enrolled(&plane, "two").await;
    let mine = plane.blob(b"mine");
    let theirs = plane.blob(b"theirs");
    let unused = plane.blob(b"unused");
    let mut spec = plane.container(agent.server, vec![mine.clone()]).await;
    plane.container(other.server, vec![theirs.clone()]).await;
    // A tenant writes a digest where it is not a layer.
    plane
        .update(agent.server, &mut spec, |spec| {
            let text = Text::truncated(theirs.digest.to_string());
            spec.env = std::collections::BTreeMap::from([(Text::truncated("X"), text)]).try_into().unwrap();
        })
        .await;
    let (_endpoint, connection) = agent.connect(&plane, BULK).await;
    assert_eq!(fetch(&connection, theirs.digest, 0).await.unwrap_err(), "blob_not_referenced");
    assert_eq!(fetch(&connection, unused.digest, 0).await.unwrap_err(), "blob_not_referenced");
    assert_eq!(fetch(&connection, mine.digest, 0).await.unwrap().1, b"mine");
}

#[tokio::test]
async fn a_blob_that_is_gone_is_a_typed_refusal() {
    let (plane, agent) = setup().await;
    let layer = plane.blob(b"gone");
    plane.container(agent.server, vec![layer.clone()]).await;
    std::fs::remove_file(plane.folder.path().join("blobs").join(layer.digest.hex())).unwrap();
    let (_endpoint, connection) = agent.connect(&plane, BULK).await;
    assert_eq!(fetch(&connection, layer.digest, 0).await.unwrap_err(), "blob_missing");
}

#[tokio::test]
async fn nonsense_on_a_bulk_connection_is_refused_and_the_next_request_served() {
    let (plane, agent) = setup().await;
    let layer = plane.blob(b"blob");
    plane.container(agent.server, vec![layer.clone()]).await;
    let (_endpoint, connection) = agent.connect(&plane, BULK).await;
    for bytes in [&[0xff; 20][..], &[0, 0, 0, 1, 0x27, 0x0f, 1], &[0, 0, 0, 9, 0, 40, 1]] {
        let (mut send, mut recv) = soon("a stream", connection.open_bi()).await.unwrap();
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
        let _: Refusal = soon("a refusal", stream::read(&mut recv)).await.unwrap();
        assert_eq!(fetch(&connection, layer.digest, 0).await.unwrap().1, b"blob");
    }
}

#[tokio::test]
async fn a_slow_reader_does_not_stop_a_second_transfer() {
    let (plane, agent) = setup().await;
    let (large, small) = (plane.blob(&content(24 * MIB)), plane.blob(b"small"));
    plane.container(agent.server, vec![large.clone(), small.clone()]).await;
    let (_endpoint, connection) = agent.connect(&plane, BULK).await;
    let (mut send, _unread) = soon("a stream", connection.open_bi()).await.unwrap();
    stream::write(&mut send, &BlobRequest { digest: large.digest, offset: 0 }).await.unwrap();
    assert_eq!(fetch(&connection, small.digest, 0).await.unwrap().1, b"small");
}

#[tokio::test]
async fn the_connections_of_agents_that_were_killed_do_not_keep_a_new_one_out() {
    let (plane, agent) = setup().await;
    let layer = plane.blob(b"blob");
    plane.container(agent.server, vec![layer.clone()]).await;
    let mut connections = Vec::new();
    for _ in 0..5 {
        // The ones before stay as they are: nobody says that they have ended.
        let (endpoint, connection) = agent.connect(&plane, BULK).await;
        assert_eq!(fetch(&connection, layer.digest, 0).await.unwrap().1, b"blob");
        connections.push((endpoint, connection));
    }
    let reason = soon("the end of the oldest", connections[0].1.closed()).await;
    assert_eq!(Close::of(&reason), Some(Close::Replaced));
}
