//! What a client still sends when it is answered: a body that is too large, or of a request that is refused by its head. HTTP/1
//! has to close a connection on which bytes are left; a client that is not told so sends its next request into nothing, and
//! may lose the answer to the reset as well. So a little of what is left is passed over, and where more comes the answer says
//! that the connection ends.

use axum::{
    body::{Body, Bytes},
    extract::Request,
    middleware::Next,
    response::Response,
};
use http::{HeaderValue, Version, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

/// Bytes that are passed over.
const PASSED_OVER_BYTES: usize = 4 << 20;
/// The time for it.
const PASSING_OVER: Duration = Duration::from_secs(2);

/// Where a body is put that nobody has read to its end; `bool`: some of it was asked for.
type Left = Arc<Mutex<Option<(Body, bool)>>>;

pub(super) async fn layer(request: Request, next: Next) -> Response {
    if request.version() > Version::HTTP_11 || http_body::Body::is_end_stream(request.body()) {
        return next.run(request).await;
    }
    let left = Left::default();
    let waits_for_consent = request.headers().contains_key(header::EXPECT);
    let request = request.map(|body| Body::new(Watched { body: Some(body), asked: false, left: left.clone() }));
    let mut response = next.run(request).await;
    let unread = left.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((body, asked)) = unread {
        // Who waits for consent has not begun to send, and does if the body is read now.
        let passed_over = (asked || !waits_for_consent) && passed_over(body).await;
        if !passed_over {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
    response
}

/// Reads the rest; false where it does not end soon.
async fn passed_over(mut body: Body) -> bool {
    let reading = async {
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > PASSED_OVER_BYTES {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(PASSING_OVER, reading).await.unwrap_or(false)
}

/// A body that is not lost where it is dropped before its end.
struct Watched {
    body: Option<Body>,
    asked: bool,
    left: Left,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.asked = true;
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !http_body::Body::is_end_stream(body)) {
            *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some((body, self.asked));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, middleware, response::IntoResponse};
    use http::StatusCode;
    use hyper_util::{rt::TokioIo, service::TowerToHyperService};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    /// A connection to a server that reads nothing, or all, of a body.
    fn connection() -> DuplexStream {
        let (client, server) = duplex(64 << 10);
        let served = async |request: Request| {
            if request.uri().path() == "/refused" {
                return StatusCode::UNAUTHORIZED.into_response();
            }
            request.into_body().collect().await.unwrap().to_bytes().len().to_string().into_response()
        };
        let routes = Router::new().fallback(served).layer(middleware::from_fn(layer));
        let service = TowerToHyperService::new(routes);
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service));
        client
    }

    fn head(path: &str, more: &str) -> String {
        format!("POST {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n")
    }

    /// An answer's head, in lowercase.
    async fn answer(client: &mut DuplexStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.expect("an answer"));
        }
        String::from_utf8(head).expect("text").to_lowercase()
    }

    #[tokio::test]
    async fn what_is_left_of_a_refused_request_does_not_end_the_connection() {
        let mut client = connection();
        for _ in 0..2 {
            let body = vec![b'x'; 2 << 20];
            client
                .write_all(head("/refused", &format!("Content-Length: {}\r\n", body.len())).as_bytes())
                .await
                .unwrap();
            client.write_all(&body).await.unwrap();
            let answer = answer(&mut client).await;
            assert!(answer.starts_with("http/1.1 401") && !answer.contains("connection: close"), "{answer}");
        }
        client.write_all(head("/read", "Content-Length: 3\r\nConnection: close\r\n").as_bytes()).await.unwrap();
        client.write_all(b"abc").await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("\r\n3"), "{text}");
    }

    #[tokio::test]
    async fn where_too_much_is_left_the_answer_says_that_the_connection_ends() {
        let client = connection();
        let (mut reading, mut writing) = tokio::io::split(client);
        let sending = tokio::spawn(async move {
            let length = 2 * PASSED_OVER_BYTES;
            let head = head("/refused", &format!("Content-Length: {length}\r\n"));
            // Until nobody reads it any more.
            let _ = writing.write_all(head.as_bytes()).await;
            let _ = writing.write_all(&vec![b'x'; length]).await;
        });
        let mut text = String::new();
        reading.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 401") && text.to_lowercase().contains("connection: close"), "{text}");
        sending.await.unwrap();
    }

    #[tokio::test]
    async fn who_waits_for_consent_is_not_asked_for_what_nobody_wants() {
        let mut client = connection();
        let head = head("/refused", "Content-Length: 5\r\nExpect: 100-continue\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let answer = answer(&mut client).await;
        assert!(answer.starts_with("http/1.1 401") && answer.contains("connection: close"), "{answer}");
    }
}
