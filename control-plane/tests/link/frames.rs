//! Bytes that are no messages: refused with a typed reason, and both sides go on.

use crate::{
    agent::{Link, ask_to_enrol, enrolled, entry, frame, soon, status},
    plane::Plane,
};
use hoody_protocol::{
    codec::{HEADER_BYTES, MAX_BODY_BYTES},
    container::State,
    image::Digest,
    link::{Refusal, Report, ReportAck},
    stream,
    tag::Message,
    transport::{Close, NODE},
};

/// A header that announces `length` bytes of a message with this tag.
fn header(length: usize, tag: u16) -> Vec<u8> {
    [&(length as u32).to_be_bytes()[..], &tag.to_be_bytes()].concat()
}

/// Frames that nobody understands, with the code of their refusal.
fn nonsense() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let batch = hoody_protocol::link::ReportBatch::TAG;
    let ack = frame(&ReportAck { position: 1 });
    vec![
        ("unknown tag", [header(3, 9999), vec![1, 2, 3]].concat(), "unexpected_message"),
        ("known tag in the wrong place", ack, "unexpected_message"),
        ("not CBOR", [header(4, batch), vec![0xff; 4]].concat(), "unexpected_message"),
        ("oversized", header(MAX_BODY_BYTES, batch), "malformed_message"),
        ("absurd length of an unknown tag", header(u32::MAX as usize, 9999), "malformed_message"),
        ("truncated", [header(100, batch), vec![1; 10]].concat(), "malformed_message"),
        ("truncated header", vec![0; HEADER_BYTES - 1], "malformed_message"),
    ]
}

async fn still_works(link: &mut Link, container: hoody_protocol::id::ContainerId) {
    link.report(vec![Report::Status(status(container, 1, State::Running))]).await.unwrap();
}

#[tokio::test]
async fn nonsense_on_a_stream_of_a_link_is_refused_and_the_link_goes_on() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let spec = plane.container(agent.server, vec![]).await;
    let mut link = agent.link(&plane, vec![entry(&spec, 1)]).await;
    for (what, bytes, code) in nonsense() {
        assert_eq!(link.refused_bytes(&bytes).await, code, "{what}");
        still_works(&mut link, spec.id).await;
    }
    for (_, bytes, _) in nonsense() {
        let mut uni = link.connection.open_uni().await.unwrap();
        uni.write_all(&bytes).await.unwrap();
        let _ = uni.finish();
    }
    still_works(&mut link, spec.id).await;
    assert!(link.connection.close_reason().is_none());
}

#[tokio::test]
async fn one_stream_goes_on_after_a_message_that_is_not_understood() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    let spec = plane.container(agent.server, vec![]).await;
    let mut link = agent.link(&plane, vec![entry(&spec, 1)]).await;
    still_works(&mut link, spec.id).await;
    let (send, recv) = link.reports.as_mut().unwrap();
    send.write_all(&[header(5000, 9999), vec![7; 5000]].concat()).await.unwrap();
    let refusal: Refusal = soon("a refusal", stream::read(recv)).await.unwrap();
    assert_eq!(&*refusal.cause.code, "unexpected_message");
    still_works(&mut link, spec.id).await;

    let (send, recv) = &mut link.control;
    send.write_all(&[header(2, 9999), vec![7; 2]].concat()).await.unwrap();
    let refusal: Refusal = soon("a refusal", stream::read(recv)).await.unwrap();
    assert_eq!(&*refusal.cause.code, "unexpected_message");
    link.heartbeat().await;
    still_works(&mut link, spec.id).await;
}

#[tokio::test]
async fn a_flood_of_nonsense_ends_the_link_and_nothing_else() {
    let plane = Plane::start().await;
    let (agent, other) = (enrolled(&plane, "one").await, enrolled(&plane, "two").await);
    let bystander = other.link(&plane, vec![]).await;
    let link = agent.link(&plane, vec![]).await;
    let flood = async {
        while let Ok(mut uni) = link.connection.open_uni().await {
            let _ = uni.write_all(&[0xff; 32]).await;
            let _ = uni.finish();
        }
    };
    soon("the end of the link", flood).await;
    assert_eq!(link.closed().await, Some(Close::Protocol));
    assert!(bystander.connection.close_reason().is_none());
    agent.link(&plane, vec![]).await;
}

#[tokio::test]
async fn nonsense_instead_of_a_hello_or_an_enrolment_is_refused_and_the_listener_goes_on() {
    let plane = Plane::start().await;
    let agent = enrolled(&plane, "one").await;
    for (what, bytes, code) in nonsense() {
        let (_endpoint, connection) = agent.connect(&plane, NODE).await;
        let (mut send, mut recv) = soon("a stream", connection.open_bi()).await.unwrap();
        send.write_all(&bytes).await.unwrap();
        let _ = send.finish();
        let refusal = soon("a refusal", stream::read::<Refusal>(&mut recv)).await;
        assert_eq!(
            refusal.map(|refusal| refusal.cause.code.to_string()).map_err(|error| format!("{error:?}")),
            Ok(code.to_owned()),
            "{what}"
        );
        assert_eq!(Close::of(&soon("the end", connection.closed()).await), Some(Close::Protocol));
    }
    let authority = Digest::of(&agent.authorities[0]);
    let error = ask_to_enrol(plane.address, authority, &ReportAck { position: 1 }).await.unwrap_err();
    assert!(error.contains("refused"), "{error}");
    agent.link(&plane, vec![]).await;
}
