//! Authorise, validate, orchestrate.

pub mod container;
pub mod environment;
pub mod firewall;
pub mod image;

use crate::error::ServiceError;

/// 501 for the first option that is asked for: its effect would be missing. `(asked for, field, what it is)`.
pub(crate) fn not_built(options: &[(bool, &str, &str)]) -> Result<(), ServiceError> {
    match options.iter().find(|(asked, ..)| *asked) {
        None => Ok(()),
        Some((_, field, what)) => {
            Err(ServiceError::NotImplemented(format!("{what} are not built yet: leave \"{field}\" out")))
        }
    }
}
