//! `Idempotency-Key` on POST: the same key with the same request gets the stored answer for
//! a day ([`store::KEPT`]); with another request 422; while the first is still being worked on 409.
//!
//! Only successes are stored: a refusal changed nothing and may be tried again. Bodies are sealed, since
//! some show a secret that the database must not hold in the clear. The work goes on where the client
//! hangs up, so that a key's answer is always known in the end. Where the process dies before it has answered,
//! the next request with the key is worked on if nothing was committed, and else gets an answer made anew
//! ([`recovered`]).

use super::recovered;
use crate::{
    api::{caller::Caller, envelope},
    app::App,
    error::ServiceError,
    store::idempotency::{self as store, Begun, Claim},
};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hoody_protocol::id::UserId;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use sha2::{Digest, Sha256};
use tracing::Instrument;

/// The header of the request.
const HEADER: &str = "idempotency-key";
/// The header of an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Characters of the longest key.
const MAX_KEY_CHARS: usize = 255;
/// Purpose under which stored bodies are sealed.
const PURPOSE: &str = "idempotency";
/// A first request that has not ended after this many request deadlines died with its process.
const ABANDONED_AFTER_DEADLINES: u32 = 2;

/// Middleware.
pub(super) async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(HEADER) {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    // Without a caller the handler refuses, or needs none; there is nobody whose key this could be.
    let Ok(caller) = Caller::from_request_parts(&mut parts, &app).await else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    match keyed(app, &caller, Request::from_parts(parts, body), next).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn keyed(app: App, caller: &Caller, request: Request, next: Next) -> Result<Response, ServiceError> {
    let user = caller.user;
    let key = valid_key(&request)?;
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, super::MAX_BODY_BYTES)
        .await
        .map_err(|_| ServiceError::invalid("body", "is larger than this call accepts"))?;
    let hash = request_hash(caller, &parts.method, &parts.uri.to_string(), &body);
    let abandoned = app.config.request_deadline * ABANDONED_AFTER_DEADLINES;
    match store::begin(&app.store, &app.replica, user, &key, &hash, abandoned).await? {
        Begun::First(claim) => {
            hoody_fault::point!("key.claimed");
            let request = Request::from_parts(parts, Body::from(body));
            let work = store::working_on(claim.clone(), first(app, claim, sealed_id(user, &key), request, next));
            // A task of its own, which a client that hangs up does not cancel.
            tokio::spawn(work.in_current_span()).await.unwrap_or_else(|error| {
                tracing::error!(%error, "a request with an idempotency key failed");
                Ok(envelope::internal())
            })
        }
        Begun::Committed(claim, effect) => {
            let response = recovered::answer(&app, caller, parts.uri.path(), effect).await?;
            let mut response = keep(&app, &claim, &sealed_id(user, &key), response).await?;
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            Ok(response)
        }
        Begun::OtherRequest => Err(ServiceError::Unprocessable {
            message: "this Idempotency-Key was used for another request: choose a new one".to_owned(),
            details: [(HEADER.to_owned(), "was used for another request".to_owned())].into(),
        }),
        Begun::Running => Err(ServiceError::Conflict(
            "the first request with this Idempotency-Key is still being worked on: try again shortly".to_owned(),
        )),
        Begun::Done { status, sealed } => {
            let body =
                app.keys.open_sealed(PURPOSE, &sealed_id(user, &key), &sealed).map_err(ServiceError::internal)?;
            let status = StatusCode::from_u16(status).map_err(ServiceError::internal)?;
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (REPLAYED, HeaderValue::from_static("true")),
            ];
            Ok((status, headers, body.to_vec()).into_response())
        }
    }
}

/// Works on the first request with the key and stores its answer.
async fn first(
    app: App,
    claim: Claim,
    sealed_id: String,
    request: Request,
    next: Next,
) -> Result<Response, ServiceError> {
    let mut forget = Forget { app: app.clone(), claim: Some(claim.clone()) };
    let response = next.run(request).await;
    if !response.status().is_success() {
        // The guard forgets the key.
        return Ok(response);
    }
    let response = keep(&app, &claim, &sealed_id, response).await?;
    forget.claim = None;
    hoody_fault::point!("key.answered");
    Ok(response)
}

/// Stores the answer, and returns it.
async fn keep(app: &App, claim: &Claim, sealed_id: &str, response: Response) -> Result<Response, ServiceError> {
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, super::MAX_BODY_BYTES).await.map_err(ServiceError::internal)?;
    let sealed = app.keys.seal(PURPOSE, sealed_id, &body);
    store::finish(&app.store, claim, parts.status.as_u16(), &sealed).await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// Frees the key again where the request did not succeed or panicked.
struct Forget {
    app: App,
    claim: Option<Claim>,
}

impl Drop for Forget {
    fn drop(&mut self) {
        let Some(claim) = self.claim.take() else { return };
        let app = self.app.clone();
        tokio::spawn(async move {
            if let Err(error) = store::forget(&app.store, &claim).await {
                tracing::warn!(error = crate::error::chain(&error), "an idempotency key could not be freed");
            }
        });
    }
}

fn valid_key(request: &Request) -> Result<String, ServiceError> {
    let value = request.headers().get(HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    if (1..=MAX_KEY_CHARS).contains(&value.len()) {
        return Ok(value.to_owned());
    }
    Err(ServiceError::invalid(HEADER, format!("must be 1 to {MAX_KEY_CHARS} printable ASCII characters")))
}

/// The same request: by the same credential, in the same realm, with the same content. An answer that one
/// credential got is not for another that may see less.
fn request_hash(caller: &Caller, method: &Method, uri: &str, body: &Bytes) -> String {
    let mut hash = Sha256::new();
    if let Some(token) = &caller.token {
        hash.update(format!("token {}\n", token.id));
    }
    if let Some(realm) = caller.realm {
        hash.update(format!("realm {realm}\n"));
    }
    hash.update(format!("{method}\n{uri}\n"));
    hash.update(body);
    hex::encode(hash.finalize())
}

fn sealed_id(user: UserId, key: &str) -> String {
    format!("{user}/{key}")
}
