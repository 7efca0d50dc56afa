//! SOCKS5 (RFC 1928) with user and password (RFC 1929). What the server sends is parsed by functions of bytes alone,
//! which say how many more they are certain to need: nothing is read that belongs to the destination.

use super::DialError;
use crate::control::Credentials;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

const VERSION: u8 = 5;
const AUTH_VERSION: u8 = 1;
const NO_AUTH: u8 = 0;
const USER_PASSWORD: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xff;
const V4: u8 = 1;
const NAME: u8 = 3;
const V6: u8 = 4;
/// Bytes of the longest reply: one that is bound to a name.
const MAX_REPLY_BYTES: usize = 4 + 1 + 255 + 2;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Command {
    Connect = 1,
    Associate = 3,
}

/// How far a parser came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parsed<T> {
    /// At least this many more bytes are needed, and all of them belong to the message.
    More(usize),
    /// The message.
    Done(T),
}

/// Greets the server and authenticates.
pub(super) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    credentials: Option<&Credentials>,
) -> Result<(), DialError> {
    let methods: &[u8] = if credentials.is_some() { &[NO_AUTH, USER_PASSWORD] } else { &[NO_AUTH] };
    send(stream, &[&[VERSION, methods.len() as u8], methods].concat()).await?;
    let [version, method] = read(stream).await?;
    if version != VERSION {
        return Err(DialError::Protocol("the answer is not SOCKS5"));
    }
    match (method, credentials) {
        (NO_AUTH, _) => Ok(()),
        (USER_PASSWORD, Some(credentials)) => authenticate(stream, credentials).await,
        (NONE_ACCEPTABLE, _) => Err(DialError::AuthFailed),
        _ => Err(DialError::Protocol("a method of authentication that was not offered")),
    }
}

async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    Credentials { user, password }: &Credentials,
) -> Result<(), DialError> {
    let mut message = Zeroizing::new(Vec::with_capacity(3 + 2 * 255));
    message.push(AUTH_VERSION);
    for text in [user.reveal(), password.reveal()] {
        message.push(text.len() as u8);
        message.extend_from_slice(text.as_bytes());
    }
    send(stream, &message).await?;
    // A server that hangs up instead of saying no says no all the same.
    let [_, status] = read(stream).await.map_err(|_| DialError::AuthFailed)?;
    if status == 0 { Ok(()) } else { Err(DialError::AuthFailed) }
}

/// Sends a command and returns the address that the server bound; `None` where it is a name.
pub(super) async fn command<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    command: Command,
    address: SocketAddr,
) -> Result<Option<SocketAddr>, DialError> {
    let mut message = vec![VERSION, command as u8, 0];
    write_address(&mut message, address);
    send(stream, &message).await?;
    let mut reply = [0; MAX_REPLY_BYTES];
    let mut length = 0;
    loop {
        match parse_reply(&reply[..length])? {
            Parsed::Done(bound) => return Ok(bound),
            Parsed::More(missing) => {
                stream.read_exact(&mut reply[length..length + missing]).await.map_err(DialError::Ended)?;
                length += missing;
            }
        }
    }
}

/// A reply to a command: the bound address, `None` where it is a name.
pub(crate) fn parse_reply(bytes: &[u8]) -> Result<Parsed<Option<SocketAddr>>, DialError> {
    let [version, code, _, rest @ ..] = bytes else { return Ok(Parsed::More(4 - bytes.len().min(3))) };
    if *version != VERSION {
        return Err(DialError::Protocol("the answer is not SOCKS5"));
    }
    // What follows a refusal does not matter: the connection ends.
    if *code != 0 {
        return Err(DialError::Destination(u16::from(*code)));
    }
    Ok(match parse_address(rest)? {
        Parsed::Done((address, _)) => Parsed::Done(address),
        Parsed::More(missing) => Parsed::More(missing),
    })
}

/// An address with port, and its length on the wire.
fn parse_address(bytes: &[u8]) -> Result<Parsed<(Option<SocketAddr>, usize)>, DialError> {
    let (length, name) = match bytes {
        [] => return Ok(Parsed::More(1)),
        [V4, ..] => (1 + 4 + 2, false),
        [V6, ..] => (1 + 16 + 2, false),
        [NAME] => return Ok(Parsed::More(1)),
        [NAME, name, ..] => (1 + 1 + usize::from(*name) + 2, true),
        _ => return Err(DialError::Protocol("an address of an unknown kind")),
    };
    let Some(whole) = bytes.get(..length) else { return Ok(Parsed::More(length - bytes.len())) };
    let port = u16::from_be_bytes([whole[length - 2], whole[length - 1]]);
    let body = &whole[1..length - 2];
    let address: Option<IpAddr> = match (<[u8; 4]>::try_from(body), <[u8; 16]>::try_from(body)) {
        _ if name => None,
        (Ok(v4), _) => Some(Ipv4Addr::from(v4).into()),
        (_, Ok(v6)) => Some(Ipv6Addr::from(v6).into()),
        _ => None,
    };
    Ok(Parsed::Done((address.map(|address| SocketAddr::new(address, port)), length)))
}

fn write_address(message: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(v4) => {
            message.push(V4);
            message.extend_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            message.push(V6);
            message.extend_from_slice(&v6.octets());
        }
    }
    message.extend_from_slice(&address.port().to_be_bytes());
}

/// The header before a UDP packet's content.
pub(crate) fn packet_header(destination: SocketAddr) -> Vec<u8> {
    let mut header = vec![0, 0, 0];
    write_address(&mut header, destination);
    header
}

/// Source and content of a packet from the relay. `None` for fragments, names and nonsense: dropped, as RFC 1928 allows.
pub(crate) fn parse_packet(bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let [_, _, 0, rest @ ..] = bytes else { return None };
    match parse_address(rest) {
        Ok(Parsed::Done((Some(source), length))) => Some((source, &rest[length..])),
        _ => None,
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<(), DialError> {
    stream.write_all(bytes).await.map_err(DialError::Ended)
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<[u8; 2], DialError> {
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes).await.map_err(DialError::Ended)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn replies_are_read_to_their_end_and_not_further() {
        for (reply, bound) in [
            (&b"\x05\x00\x00\x01\xc0\x00\x02\x01\x04\x38"[..], Some("192.0.2.1:1080")),
            (b"\x05\x00\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x35", Some("[2001:db8::1]:53")),
            (b"\x05\x00\x00\x03\x04abcd\x00\x50", None),
            (b"\x05\x00\x00\x03\x00\x00\x50", None),
        ] {
            let mut length = 0;
            let found = loop {
                match parse_reply(&reply[..length]).unwrap() {
                    Parsed::Done(found) => break found,
                    Parsed::More(missing) => length += missing,
                }
            };
            assert_eq!(length, reply.len());
            assert_eq!(found, bound.map(|text| text.parse().unwrap()));
        }
    }

    #[test]
    fn refusals_and_nonsense_are_told_apart() {
        assert!(matches!(parse_reply(b"\x05\x05\x00\x01"), Err(DialError::Destination(5))));
        assert!(matches!(parse_reply(b"HTTP"), Err(DialError::Protocol(_))));
        assert!(matches!(parse_reply(b"\x05\x00\x00\x09\x01"), Err(DialError::Protocol(_))));
    }

    #[test]
    fn a_name_of_sixteen_or_four_bytes_is_a_name() {
        assert_eq!(parse_reply(b"\x05\x00\x00\x03\x03abc\x00\x50").unwrap(), Parsed::Done(None));
        assert_eq!(parse_reply(b"\x05\x00\x00\x03\x0fabcdefghijklmno\x00\x50").unwrap(), Parsed::Done(None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_within_the_longest_reply(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut length = 0;
            while let Ok(Parsed::More(missing)) = parse_reply(&bytes[..length]) {
                prop_assert!(missing > 0 && length + missing <= MAX_REPLY_BYTES);
                length += missing;
                if length > bytes.len() {
                    break;
                }
            }
            let _ = parse_packet(&bytes);
        }

        #[test]
        fn packets_come_back_as_they_were_wrapped(v4: [u8; 4], port: u16, content in proptest::collection::vec(any::<u8>(), 0..64)) {
            let address = SocketAddr::new(Ipv4Addr::from(v4).into(), port);
            let packet = [packet_header(address), content.clone()].concat();
            prop_assert_eq!(parse_packet(&packet), Some((address, &content[..])));
        }
    }
}
