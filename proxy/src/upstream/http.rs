//! HTTP CONNECT (RFC 9110, 9.3.6).

use super::DialError;
use crate::control::Credentials;
use base64::{Engine, engine::general_purpose::STANDARD};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

/// Bytes of an answer's head.
const MAX_HEAD_BYTES: usize = 8 << 10;
/// Header lines of an answer.
const MAX_HEADERS: usize = 64;
/// Bytes asked for at a time: an answer usually has less.
const CHUNK: usize = 1 << 10;

/// Asks for a connection to `destination`. Returns what of the destination's bytes came with the answer.
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    destination: SocketAddr,
    credentials: Option<&Credentials>,
) -> Result<Vec<u8>, DialError> {
    let request = request(destination, credentials);
    stream.write_all(request.as_bytes()).await.map_err(DialError::Ended)?;
    stream.flush().await.map_err(DialError::Ended)?;
    let mut answer = Vec::with_capacity(CHUNK);
    loop {
        if let Some((status, head)) = parse_response(&answer)? {
            return match status {
                200..=299 => Ok(answer.split_off(head)),
                // Some say it as an origin server would.
                401 | 407 => Err(DialError::AuthFailed),
                _ => Err(DialError::Destination(status)),
            };
        }
        if answer.len() >= MAX_HEAD_BYTES {
            return Err(DialError::Protocol("the answer's head is too long"));
        }
        let mut rest = (&mut *stream).take((MAX_HEAD_BYTES - answer.len()).min(CHUNK) as u64);
        if rest.read_buf(&mut answer).await.map_err(DialError::Ended)? == 0 {
            return Err(DialError::Ended(std::io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

fn request(destination: SocketAddr, credentials: Option<&Credentials>) -> Zeroizing<String> {
    // Enough for the longest credentials, so that no copy of them is left where it grew.
    let mut request = Zeroizing::new(String::with_capacity(1 << 10));
    request.push_str(&format!("CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n"));
    if let Some(Credentials { user, password }) = credentials {
        let pair = Zeroizing::new([user.reveal(), ":", password.reveal()].concat());
        request.push_str("Proxy-Authorization: Basic ");
        STANDARD.encode_string(pair.as_bytes(), &mut request);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request
}

/// Status and length of an answer's head; `None` where there is not all of it yet.
pub(crate) fn parse_response(bytes: &[u8]) -> Result<Option<(u16, usize)>, DialError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(head)) => {
            let status = response.code.filter(|status| (100..1000).contains(status));
            Ok(Some((status.ok_or(DialError::Protocol("the status is none"))?, head)))
        }
        Err(_) => Err(DialError::Protocol("the answer is not HTTP")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Secret;

    #[test]
    fn the_request_names_the_destination_and_carries_the_credentials() {
        let credentials = Credentials {
            user: Secret::try_from("aladdin".to_owned()).unwrap(),
            password: Secret::try_from("open sesame".to_owned()).unwrap(),
        };
        let text = request("192.0.2.1:443".parse().unwrap(), Some(&credentials));
        assert_eq!(
            text.as_str(),
            "CONNECT 192.0.2.1:443 HTTP/1.1\r\nHost: 192.0.2.1:443\r\n\
             Proxy-Authorization: Basic YWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
        );
    }

    #[tokio::test]
    async fn what_follows_the_answer_belongs_to_the_destination() {
        let (mut near, mut far) = tokio::io::duplex(4096);
        far.write_all(b"HTTP/1.0 200 Connection established\r\nVia: x\r\n\r\nSSH-2.0-x\r\n").await.unwrap();
        let early = connect(&mut near, "192.0.2.1:22".parse().unwrap(), None).await.unwrap();
        assert_eq!(early, b"SSH-2.0-x\r\n");
    }

    #[tokio::test]
    async fn refusals_and_nonsense_are_told_apart() {
        for (answer, expected) in [
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "the upstream does not accept the credentials"),
            ("HTTP/1.0 401 Unauthorized\r\n\r\n", "the upstream does not accept the credentials"),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", "the upstream did not connect to the destination (503)"),
            ("SSH-2.0-OpenSSH\r\n", "the upstream does not speak its protocol: the answer is not HTTP"),
            ("HTTP/1.1 200 ", "the upstream ended the connection"),
        ] {
            let (mut near, mut far) = tokio::io::duplex(4096);
            far.write_all(answer.as_bytes()).await.unwrap();
            far.shutdown().await.unwrap();
            let error = connect(&mut near, "192.0.2.1:22".parse().unwrap(), None).await.unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let (mut near, mut far) = tokio::io::duplex(64 << 10);
        far.write_all(format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(20_000)).as_bytes()).await.unwrap();
        let error = connect(&mut near, "192.0.2.1:22".parse().unwrap(), None).await.unwrap_err();
        assert!(matches!(error, DialError::Protocol(_)), "a head has a limit: {error}");
    }
}
