//! Rate limits: `X-RateLimit-*` on every response, 429 with `Retry-After` over the limit.

use crate::{
    api::{caller::Credential, client},
    app::App,
    error::ServiceError,
    rate_limit::{Allowance, Client},
};
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue};

pub(super) async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    let allowance = match request.extensions().get::<Credential>() {
        // The signature was checked, so this is whom it names, even if the token was ended since.
        Some(Credential(Ok(presented))) => app.limiters.authenticated.count(Client::User(presented.user())),
        _ => {
            let address = client::address(request.headers(), request.extensions(), &app.config);
            app.limiters.anonymous.count(Client::address(address))
        }
    };
    let response = match allowance.retry_after_s {
        Some(retry_after_s) => ServiceError::RateLimited { retry_after_s }.into_response(),
        None => next.run(request).await,
    };
    with_headers(response, allowance)
}

/// Adds the headers, unless a stricter limit inside has set them.
pub(crate) fn with_headers(mut response: Response, allowance: Allowance) -> Response {
    let values = [
        ("x-ratelimit-limit", u64::from(allowance.limit)),
        ("x-ratelimit-remaining", u64::from(allowance.remaining)),
        ("x-ratelimit-reset", allowance.reset_at),
    ];
    for (name, value) in values {
        response.headers_mut().entry(HeaderName::from_static(name)).or_insert(HeaderValue::from(value));
    }
    response
}
