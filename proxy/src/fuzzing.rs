//! The decoders of bytes from outside, for the fuzz targets: functions of any bytes that panic where something is
//! wrong.

use crate::{
    control::message::{self, FromAgent, FromProxy},
    dns::message::Query,
    upstream::{
        parse_response,
        socks5::{Parsed, packet_header, parse_packet, parse_reply},
    },
};

/// What a SOCKS5 server sends: a reply to a command, a packet of its relay.
pub fn socks_reply(bytes: &[u8]) {
    let mut length = 0;
    while let Ok(Parsed::More(missing)) = parse_reply(bytes.get(..length).unwrap_or(bytes)) {
        assert!(missing > 0, "a parser that needs nothing more is done");
        length += missing;
        if length > bytes.len() {
            break;
        }
    }
    assert!(length <= 262, "more than the longest reply");
    if let Some((source, content)) = parse_packet(bytes) {
        let again = [packet_header(source), content.to_vec()].concat();
        assert_eq!(parse_packet(&again), Some((source, content)));
    }
}

/// What an HTTP proxy answers to CONNECT.
pub fn http_response(bytes: &[u8]) {
    if let Ok(Some((status, head))) = parse_response(bytes) {
        assert!(head <= bytes.len() && (100..1000).contains(&status));
    }
}

/// What a container asks, and as an answer to it.
pub fn dns_message(bytes: &[u8]) {
    let Some(query) = Query::parse(bytes) else { return };
    let failure = query.failure();
    assert!(failure.len() <= bytes.len() && query.accept(failure).is_some());
    if let Some(answer) =
        query.accept(bytes.iter().enumerate().map(|(at, byte)| byte | if at == 2 { 0x80 } else { 0 }).collect())
    {
        assert!(query.for_udp(answer).len() <= query.room.max(bytes.len()));
    }
}

/// What agent and proxy send each other.
pub fn control_message(bytes: &[u8]) {
    if let Ok(value) = message::decode::<FromAgent>(bytes) {
        assert_eq!(message::decode::<FromAgent>(&message::encode(&value)).expect("our own message"), value);
    }
    if let Ok(value) = message::decode::<FromProxy>(bytes) {
        assert_eq!(message::decode::<FromProxy>(&message::encode(&value)).expect("our own message"), value);
    }
}
