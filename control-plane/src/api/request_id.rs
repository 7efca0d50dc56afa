//! `X-Request-Id`: taken from the request where it is harmless, made up otherwise; on every response and
//! in the log lines that belong to the request.

use axum::{extract::Request, middleware::Next, response::Response};
use hoody_protocol::id;
use http::{HeaderName, HeaderValue};
use tracing::Instrument;

/// The header.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of the longest id that a client may choose.
const MAX_CHARS: usize = 128;

/// The id of the request, in its extensions.
#[derive(Debug, Clone)]
pub struct RequestId(pub HeaderValue);

fn harmless(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    (1..=MAX_CHARS).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Middleware: gives the request its id and its log span.
pub async fn layer(mut request: Request, next: Next) -> Response {
    let sent = request.headers().get(HEADER).filter(|value| harmless(value)).cloned();
    let id = sent.unwrap_or_else(|| {
        HeaderValue::try_from(id::RequestId::generate().to_string()).unwrap_or(HeaderValue::from_static("unknown"))
    });
    let span = tracing::info_span!(
        "request",
        id = id.to_str().unwrap_or_default(),
        method = %request.method(),
        path = request.uri().path(),
    );
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).instrument(span).await;
    response.headers_mut().insert(HEADER, id);
    response
}
