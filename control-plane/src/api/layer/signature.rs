//! `X-Hoody-Signature` on every response whose length is known and at most [`MAX_SIGNED_BYTES`]; streams
//! and larger bodies are not signed.

use crate::app::App;
use axum::{
    body::{self, Body},
    extract::{OriginalUri, Request, State},
    middleware::Next,
    response::Response,
};
use hoody_protocol::time::now_ms;
use http::{HeaderName, HeaderValue, Method};
use http_body_util::BodyExt;

/// The header.
const HEADER: HeaderName = HeaderName::from_static("x-hoody-signature");
/// Bytes of the largest body that is signed.
const MAX_SIGNED_BYTES: u64 = 1 << 20;

pub(super) async fn layer(
    State(app): State<App>,
    OriginalUri(uri): OriginalUri,
    request: Request,
    next: Next,
) -> Response {
    let method = request.method().clone();
    let response = next.run(request).await;
    let known = http_body::Body::size_hint(response.body()).exact().is_some_and(|bytes| bytes <= MAX_SIGNED_BYTES);
    // The answer to HEAD has no body to verify.
    if !known || method == Method::HEAD {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(body) = body.collect().await else {
        // A body of known length is in memory and cannot fail; if it did, the client sees it end early.
        return Response::from_parts(parts, Body::empty());
    };
    let body = body.to_bytes();
    let value = app.keys.responses.sign(now_ms() / 1000, method.as_str(), parts.status.as_u16(), uri.path(), &body);
    if let Ok(value) = HeaderValue::try_from(value) {
        parts.headers.insert(HEADER, value);
    }
    Response::from_parts(parts, body::Body::from(body))
}
