//! Operators: what only an account with the admin flag may do. The admin API's resources are in the
//! submodules.

pub mod commands;
pub mod images;
pub mod invite_codes;
pub mod notifications;
pub mod operations;
pub mod servers;
pub mod unknown_containers;
pub mod users;

use super::caller::{Caller, Identity};
use crate::{app::App, error::ServiceError};
use axum::extract::FromRequestParts;
use http::request::Parts;

/// A caller with the admin flag.
#[derive(Debug, Clone)]
pub struct Admin(pub Caller);

impl FromRequestParts<App> for Admin {
    type Rejection = ServiceError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ServiceError> {
        // What an auth token needs beside it, the table of operations says.
        let identity = Identity::from_request_parts(parts, app).await?;
        let caller = Caller::from_request_parts(parts, app).await?;
        if !identity.user.is_admin {
            return Err(ServiceError::Forbidden("only operators may do this: ask for the admin flag".to_owned()));
        }
        Ok(Self(caller))
    }
}
