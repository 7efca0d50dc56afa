//! The control protocol's messages, any values of them, and their bytes: a proxy is older than its agent after every
//! upgrade of the agent.

#![allow(clippy::unwrap_used, reason = "a panic is the message of a test")]

use hoody_protocol::id::ContainerId;
use hoody_proxy::control::{
    Cause, Counters, Credentials, Egress, Health, Policy, Secret, Status, Upstream, UpstreamKind,
    message::{
        Answer, FromAgent, FromProxy, MAX_ANSWER_BYTES, MAX_MESSAGE_BYTES, MAX_QUERY_BYTES, Notice, Request, decode,
        encode,
    },
    policy::{CREDENTIAL_BYTES, DNS_SERVERS, HOST_BYTES, RANGES},
    status::MESSAGE_BYTES,
};

const ID: ContainerId = ContainerId::from_bytes([7; 12]);

fn secret(length: usize) -> Secret {
    Secret::try_from("s".repeat(length)).unwrap()
}

/// The longest that there can be.
fn largest() -> FromAgent {
    let range = "1234:5678:9abc:def0:1234:5678:9abc:def0/128".parse().unwrap();
    let policy = Policy {
        upstream: Upstream {
            kind: UpstreamKind::Https,
            host: "h".repeat(HOST_BYTES).try_into().unwrap(),
            port: u16::MAX,
            credentials: Some(Credentials { user: secret(CREDENTIAL_BYTES), password: secret(CREDENTIAL_BYTES) }),
            server_name: Some("n".repeat(HOST_BYTES).try_into().unwrap()),
        },
        dns_servers: vec!["1234:5678:9abc:def0:1234:5678:9abc:def0".parse().unwrap(); DNS_SERVERS].try_into().unwrap(),
        allowed: vec![range; RANGES].try_into().unwrap(),
        own: vec![range; RANGES].try_into().unwrap(),
    };
    let egress = Egress { container: ID, address: [255; 4].into(), revision: u64::MAX, policy };
    FromAgent::Request { number: u64::MAX, request: Request::Set(Box::new(egress)) }
}

#[test]
fn the_largest_message_fits_a_packet_and_comes_back() {
    let bytes = encode(&largest());
    assert!(bytes.len() <= MAX_MESSAGE_BYTES, "{} bytes", bytes.len());
    assert_eq!(decode::<FromAgent>(&bytes).unwrap(), largest());
    assert!(decode::<FromAgent>(&[bytes.as_slice(), &[0]].concat()).is_err(), "something after it");
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?}", largest());
    assert!(!shown.contains("sss"), "{shown}");
}

#[test]
fn the_bytes_stay_what_they_are() {
    let golden = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| if byte.is_ascii_graphic() { char::from(*byte).to_string() } else { format!("<{byte:02x}>") })
            .collect::<String>()
    };
    let remove = encode(&FromAgent::Request { number: 1, request: Request::Remove(ID) });
    let welcome = encode(&FromProxy::Notice(Notice::Welcome { protocol: 1, version: "1".try_into().unwrap() }));
    let health =
        Health::Failing { cause: Cause::AuthFailed, message: "no".try_into().unwrap(), since_ms: 1, retry_at_ms: 2 };
    let listeners = "127.0.0.1:9".parse().unwrap();
    let status = Status { container: ID, revision: 3, listeners, health, counters: Counters::default() };
    let listed = encode(&FromProxy::Answer { number: 1, answer: Answer::Listed(Box::new(status)) });
    assert_eq!(golden(&remove), include_str!("messages/remove").trim_end());
    assert_eq!(golden(&welcome), include_str!("messages/welcome").trim_end());
    assert_eq!(golden(&listed), include_str!("messages/listed").trim_end());
}

#[test]
fn a_cause_that_is_not_known_is_another_one() {
    let known = encode(&Cause::AuthFailed);
    assert_eq!(decode::<Cause>(&known).unwrap(), Cause::AuthFailed);
    assert_eq!(decode::<Cause>(&encode(&"something_new")).unwrap(), Cause::Other);
}

#[test]
fn a_status_with_the_longest_message_fits() {
    let health = Health::Failing {
        cause: Cause::CertificateInvalid,
        message: "m".repeat(MESSAGE_BYTES).try_into().unwrap(),
        since_ms: u64::MAX,
        retry_at_ms: u64::MAX,
    };
    let listeners = "255.255.255.255:65535".parse().unwrap();
    let status = Status { container: ID, revision: u64::MAX, listeners, health, counters: Counters::default() };
    assert!(encode(&FromProxy::Notice(Notice::Changed(Box::new(status)))).len() <= MAX_MESSAGE_BYTES);
}

#[test]
fn queries_and_their_answers_fit_and_come_back() {
    let query = FromAgent::Query {
        number: u64::MAX,
        container: ID,
        server: "1234:5678:9abc:def0:1234:5678:9abc:def0".parse().unwrap(),
        query: vec![0xff; MAX_QUERY_BYTES].try_into().unwrap(),
    };
    assert_eq!(decode::<FromAgent>(&encode(&query)).unwrap(), query);
    let answer =
        FromProxy::Queried { number: u64::MAX, answer: Some(vec![0xff; MAX_ANSWER_BYTES].try_into().unwrap()) };
    assert!(encode(&answer).len() <= MAX_MESSAGE_BYTES);
    assert_eq!(decode::<FromProxy>(&encode(&answer)).unwrap(), answer);
}
