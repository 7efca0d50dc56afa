//! What an authenticator shows.

use anyhow::{Result, anyhow};
use std::time::SystemTime;
use totp_rs::{Algorithm, Builder, Secret};

/// The code of a base32 secret now.
pub fn code(secret: &str) -> Result<String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let totp = Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(6)
        .with_step_duration(30)
        .with_secret(Secret::try_from_base32(secret).map_err(|_| anyhow!("not base32"))?)
        .build_noncompliant();
    Ok(totp.generate(now).to_string())
}
