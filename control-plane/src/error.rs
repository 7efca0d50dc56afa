//! What a request can fail with. One type for all services; its response form is in
//! [`crate::api::envelope`]. Nothing internal reaches a client: [`ServiceError::Internal`] is logged
//! with its whole chain and answered with a request id.

use crate::store::StoreError;
use hoody_protocol::container::Cause;
use std::collections::BTreeMap;

/// Why a request failed. Messages are for clients and say what to do next.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// 400: the input is invalid; field name → what is wrong with it.
    #[error("the request is invalid: see details")]
    Invalid(BTreeMap<String, String>),
    /// 400: a step of OAuth that does not lead on, with its word (RFC 6749, section 5.2; RFC 8628, section 3.5).
    #[error("{message}")]
    Grant {
        /// The word.
        code: &'static str,
        /// A sentence.
        message: &'static str,
    },
    /// 401: no, wrong or expired credential.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// 403: the caller is known, but has not the right.
    #[error("{0}")]
    Forbidden(String),
    /// 404: there is no such resource, or it is not the caller's.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// 409: uniqueness, or the wrong state for this.
    #[error("{0}")]
    Conflict(String),
    /// 409: it runs only when it is confirmed with this token.
    #[error("{message}")]
    ConfirmationRequired {
        /// A sentence.
        message: String,
        /// What to send as `confirmation_token`.
        token: zeroize::Zeroizing<String>,
        /// RFC 3339.
        expires_at: String,
    },
    /// 422: well-formed but impossible.
    #[error("{message}")]
    Unprocessable {
        /// A sentence.
        message: String,
        /// Field or resource → reason.
        details: BTreeMap<String, String>,
    },
    /// 429: too many requests.
    #[error("too many requests: try again in {retry_after_s} s")]
    RateLimited {
        /// Seconds until the next try can succeed.
        retry_after_s: u64,
    },
    /// 421: the server's node is connected to another replica than the one that was asked, and the two do not reach
    /// each other.
    #[error("server {0} is connected to another replica of the control plane: ask that one, or connect again")]
    Elsewhere(String),
    /// 501: not built yet.
    #[error("{0}")]
    NotImplemented(String),
    /// 502: the node refused or failed.
    #[error("the server could not do it: {}", .0.message)]
    NodeFailed(Cause),
    /// 503: the node is offline, or a feature is not configured.
    #[error("{0}")]
    Unavailable(String),
    /// 504: the node did not answer in time.
    #[error("the server did not answer in time; the operation will not run later")]
    NodeTimeout,
    /// 500: our fault.
    #[error("internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ServiceError {
    /// One invalid field.
    pub fn invalid(field: &str, problem: impl Into<String>) -> Self {
        Self::Invalid(BTreeMap::from([(field.to_owned(), problem.into())]))
    }

    /// A fault of ours.
    pub fn internal(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal(Box::new(error))
    }
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Duplicate { what } => Self::Conflict(format!("{what} is already in use")),
            StoreError::MissingReference => Self::NotFound("a resource that the request names"),
            other => Self::internal(other),
        }
    }
}

/// An error with all its causes in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
