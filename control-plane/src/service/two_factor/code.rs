//! Codes: made, checked, and each used once.

use crate::{
    app::App,
    caller::Origin,
    error::ServiceError,
    service::account::{
        attempts,
        history::{self, Happening},
    },
    store::{StoreError, two_factor as store, two_factor::Row},
};
use hoody_protocol::{id::UserId, time::now_ms};
use sha2::{Digest, Sha256};
use totp_rs::{Algorithm, Builder, Secret, Totp};
use zeroize::Zeroizing;

/// Purpose under which secrets are sealed.
const PURPOSE: &str = "two-factor";
/// Bytes of a secret (RFC 4226, section 4: 160 bits).
const SECRET_BYTES: usize = 20;
/// Digits of a code.
const DIGITS: u8 = 6;
/// Steps that clocks may differ by.
const DRIFT: u16 = 1;
/// Seconds of a step.
const STEP_S: u64 = 30;
/// Backup codes of an account.
const BACKUP_CODES: usize = 10;
/// Characters of one: 60 bits.
const BACKUP_CHARS: usize = 12;
/// Its characters; none looks like another.
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
const ISSUER: &str = "Hoody";
const WRONG: &str = "the code is wrong, was used, or is too old";

/// A new secret: 160 random bits.
pub(super) fn new_secret() -> Zeroizing<Vec<u8>> {
    let mut secret = Zeroizing::new(vec![0; SECRET_BYTES]);
    rand::fill(secret.as_mut_slice());
    secret
}

/// The generator of an account's codes.
pub(super) fn generator(secret: &[u8], account: &str) -> Result<Totp, ServiceError> {
    Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(DIGITS)
        .with_skew(DRIFT)
        .with_step_duration(STEP_S)
        .with_secret(Secret::new(secret.into()))
        .with_issuer(Some(ISSUER))
        .with_account_name(account)
        .build()
        .map_err(ServiceError::internal)
}

/// A secret as it is stored.
pub(super) fn seal(app: &App, user: UserId, secret: &[u8]) -> String {
    app.keys.seal(PURPOSE, &user.to_string(), secret)
}

/// The step of a right code of the authenticator.
pub(super) fn step_of(app: &App, user: UserId, sealed: &str, code: &str) -> Result<Option<i64>, ServiceError> {
    let secret = app.keys.open_sealed(PURPOSE, &user.to_string(), sealed).map_err(ServiceError::internal)?;
    let step = generator(&secret, "")?.check(code, now_ms() / 1000);
    Ok(step.and_then(|step| i64::try_from(step).ok()))
}

/// New backup codes, and what is stored of them.
pub(super) fn backup_codes(user: UserId) -> (Vec<String>, Vec<String>) {
    let code = || -> String {
        let random: [u8; BACKUP_CHARS] = rand::random();
        // 256 is a multiple of 32, so every character is as likely as any other.
        random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
    };
    let codes: Vec<String> = (0..BACKUP_CODES).map(|_| code()).collect();
    let hashes = codes.iter().map(|code| backup_hash(user, code)).collect();
    (codes, hashes)
}

fn backup_hash(user: UserId, code: &str) -> String {
    hex::encode(Sha256::digest(format!("{user} {code}")))
}

/// Whether the text has the form of an authenticator's code.
pub fn is_code(text: &str) -> bool {
    text.len() == usize::from(DIGITS) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Uses a code of the account, an authenticator's or a backup code: no second use succeeds. Every try counts.
pub async fn confirm(app: &App, user: UserId, field: &str, code: &str, origin: &Origin) -> Result<(), ServiceError> {
    let code = code.trim();
    if code.is_empty() || code.len() > BACKUP_CHARS {
        return Err(ServiceError::invalid(field, "must be six digits or a backup code"));
    }
    attempts::code(app, user).await?;
    let row = super::in_force(app, user).await?;
    if use_code(app, user, &row, code, origin).await? { Ok(()) } else { Err(ServiceError::Unauthenticated(WRONG)) }
}

async fn use_code(app: &App, user: UserId, row: &Row, code: &str, origin: &Origin) -> Result<bool, ServiceError> {
    let mut tx = app.store.begin().await?;
    let used = if is_code(code) {
        match step_of(app, user, &row.sealed, code)? {
            Some(step) => store::use_step(&mut tx, user, step).await?,
            None => false,
        }
    } else {
        let used = store::use_backup_code(&mut tx, user, &backup_hash(user, &code.to_lowercase())).await?;
        if used {
            history::record(&mut tx, user, Happening::BackupCodeUsed, origin).await?;
        }
        used
    };
    tx.commit().await.map_err(StoreError::from)?;
    Ok(used)
}
