//! The envelope of every JSON response, and the response form of every error.

use super::pagination::Pagination;
use crate::error::{ServiceError, chain};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A successful response.
#[derive(Debug, Serialize, ToSchema)]
pub struct Success<T> {
    /// Always true.
    pub success: bool,
    /// The HTTP status again.
    #[serde(rename = "statusCode")]
    pub status_code: u16,
    /// A sentence for people.
    pub message: String,
    /// What was asked for.
    pub data: T,
    /// Lists only: the numbers of `data.pagination` again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pagination: Option<TopPagination>,
}

/// Pagination as it stands beside `data`.
#[derive(Debug, Serialize, ToSchema)]
pub struct TopPagination {
    /// The page, counted from 1.
    pub page: u64,
    /// Items of a page.
    pub per_page: u64,
    /// Items of a page.
    pub limit: u64,
    /// Items of the whole list.
    pub total: u64,
    /// Pages of the whole list.
    pub total_pages: u64,
    /// True where a later page exists.
    pub has_more: bool,
}

impl From<Pagination> for TopPagination {
    fn from(p: Pagination) -> Self {
        let Pagination { total, page, limit, total_pages } = p;
        Self { page, per_page: limit, limit, total, total_pages, has_more: page < total_pages }
    }
}

/// A successful answer on its way out.
#[derive(Debug)]
pub struct Reply<T>(StatusCode, Success<T>);

impl<T> Reply<T> {
    /// 200.
    pub fn ok(data: T, message: impl Into<String>) -> Self {
        Self::new(StatusCode::OK, data, message)
    }

    /// 201.
    pub fn created(data: T, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CREATED, data, message)
    }

    /// 200 with one page of a list.
    pub fn list(data: T, pagination: Pagination) -> Self {
        let mut reply = Self::new(StatusCode::OK, data, "here is the page you asked for");
        reply.1.pagination = Some(pagination.into());
        reply
    }

    /// Any other status.
    pub fn new(status: StatusCode, data: T, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(status, Success { success: true, status_code: status.as_u16(), message, data, pagination: None })
    }
}

impl<T: Serialize> IntoResponse for Reply<T> {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

/// A failed response.
#[derive(Debug, Serialize, ToSchema)]
pub struct Failure {
    /// Always false.
    pub success: bool,
    /// The HTTP status again.
    #[serde(rename = "statusCode")]
    pub status_code: u16,
    /// What went wrong and what to do next.
    pub message: String,
    /// Stable word for programs.
    pub code: String,
    /// The same with details.
    pub error: FailureDetail,
}

/// The inner part of a failed response.
#[derive(Debug, Serialize, ToSchema)]
pub struct FailureDetail {
    /// Stable word for programs.
    pub code: String,
    /// What went wrong and what to do next.
    pub message: String,
    /// Field or resource → what is wrong with it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// A failed response from its parts.
pub fn failure(
    status: StatusCode,
    code: &str,
    message: impl Into<String>,
    details: BTreeMap<String, String>,
) -> Response {
    let message = message.into();
    let error = FailureDetail { code: code.to_owned(), message: message.clone(), details };
    let body = Failure { success: false, status_code: status.as_u16(), message, code: code.to_owned(), error };
    (status, Json(body)).into_response()
}

impl IntoResponse for ServiceError {
    fn into_response(self) -> Response {
        let message = self.to_string();
        let none = BTreeMap::new();
        match self {
            Self::Invalid(details) => {
                let message = match details.iter().next() {
                    Some((field, problem)) if details.len() == 1 => format!("{field} {problem}"),
                    _ => message,
                };
                failure(StatusCode::BAD_REQUEST, "VALIDATION_ERROR", message, details)
            }
            Self::Grant { code, .. } => failure(StatusCode::BAD_REQUEST, code, message, none),
            Self::Unauthenticated(_) => {
                let mut response = failure(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message, none);
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                response
            }
            Self::Forbidden(_) => failure(StatusCode::FORBIDDEN, "FORBIDDEN", message, none),
            Self::NotFound(_) => failure(StatusCode::NOT_FOUND, "NOT_FOUND", message, none),
            Self::Conflict(_) => failure(StatusCode::CONFLICT, "CONFLICT", message, none),
            Self::ConfirmationRequired { message, token, expires_at } => {
                let details = BTreeMap::from([
                    ("confirmation_token".to_owned(), token.to_string()),
                    ("expires_at".to_owned(), expires_at),
                ]);
                failure(StatusCode::CONFLICT, "CONFIRMATION_REQUIRED", message, details)
            }
            Self::Unprocessable { message, details } => {
                failure(StatusCode::UNPROCESSABLE_ENTITY, "UNPROCESSABLE", message, details)
            }
            Self::RateLimited { retry_after_s } => {
                let mut response = failure(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", message, none);
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
                response
            }
            Self::Elsewhere(_) => failure(StatusCode::MISDIRECTED_REQUEST, "MISDIRECTED", message, none),
            Self::NotImplemented(_) => failure(StatusCode::NOT_IMPLEMENTED, "NOT_IMPLEMENTED", message, none),
            Self::NodeFailed(cause) => {
                let details = BTreeMap::from([("cause".to_owned(), cause.code.to_string())]);
                failure(StatusCode::BAD_GATEWAY, "NODE_FAILED", message, details)
            }
            Self::Unavailable(_) => failure(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message, none),
            Self::NodeTimeout => failure(StatusCode::GATEWAY_TIMEOUT, "NODE_TIMEOUT", message, none),
            Self::Internal(source) => {
                tracing::error!(error = chain(source.as_ref()), "request failed");
                internal()
            }
        }
    }
}

/// 500. The message says only how to find the cause in our logs.
pub fn internal() -> Response {
    let message = "something failed on our side; try again, and name the X-Request-Id of this response if it persists";
    failure(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", message, BTreeMap::new())
}
