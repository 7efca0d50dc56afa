//! `openapi`: the document on standard output.

use super::CliError;
use std::io::{self, Write};

pub(super) fn run() -> Result<(), CliError> {
    let json = crate::api::openapi().to_pretty_json().map_err(|error| CliError::Other(error.to_string()))?;
    let failed = |source| CliError::Io { what: "write to standard output".to_owned(), source };
    writeln!(io::stdout(), "{json}").map_err(failed)
}
