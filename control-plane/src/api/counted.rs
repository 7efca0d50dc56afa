//! Requests of strangers that are counted before anything is done for them. Whether they are let through or not,
//! and whatever comes of them, the answer has the same headers.

use super::{envelope::Reply, layer};
use crate::{app::App, caller::Origin, error::ServiceError, rate_limit::Allowance, service::account::attempts};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Does the work where the count allows it, and answers with the count.
pub(super) async fn within<T: Serialize>(
    allowance: Allowance,
    work: impl Future<Output = Result<Reply<T>, ServiceError>>,
) -> Response {
    let outcome = match attempts::within(allowance) {
        Ok(()) => work.await,
        Err(error) => Err(error),
    };
    layer::with_rate_limit(outcome.into_response(), allowance)
}

/// The same for what is counted with sign-ups: sign-up, mails asked for, resets, the waitlist.
pub(super) async fn as_sign_up<T: Serialize>(
    app: &App,
    origin: &Origin,
    work: impl Future<Output = Result<Reply<T>, ServiceError>>,
) -> Result<Response, ServiceError> {
    let allowance = attempts::signup(app, origin.address).await?;
    Ok(within(allowance, work).await)
}
