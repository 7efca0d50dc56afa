//! Invite codes.

use super::{Blocked, claim};
use crate::{
    app::App,
    error::ServiceError,
    service::account::{
        attempts,
        policy::{self, Problems},
        profile,
    },
    store::{
        StoreError, free_tier,
        invite_code::{self as store, InviteCode},
        user::User,
    },
};
use hoody_protocol::time::now_ms;
use sha2::{Digest, Sha256};

/// Bytes of the longest code.
const MAX_CODE_BYTES: usize = 128;
/// Random bytes of a code that we make.
const RANDOM_BYTES: usize = 10;
const MAX_USES: i64 = 1_000_000;
const MAX_NOTE_CHARS: usize = 200;

/// What is stored of a code. Codes that people type are compared without their case.
pub fn code_hash(code: &str) -> String {
    hex::encode(Sha256::digest(code.trim().to_lowercase()))
}

/// Checks a code's form.
pub fn check_code(field: &str, code: Option<&str>, problems: &mut Problems) {
    if code.is_some_and(|code| code.trim().is_empty() || code.len() > MAX_CODE_BYTES) {
        problems.insert(field.to_owned(), format!("must be 1 to {MAX_CODE_BYTES} characters"));
    }
}

/// Opens the free tier with a code, and claims a server.
pub async fn redeem(app: &App, user: &User, code: &str) -> Result<Blocked, ServiceError> {
    let mut problems = Problems::new();
    check_code("code", Some(code), &mut problems);
    policy::none_of(problems)?;
    let profile = profile::of(app, user.id).await?;
    if profile.free_tier_unlocked_at.is_none() {
        attempts::invite(app, user.id).await?;
        let mut tx = app.store.begin().await?;
        // First the account: of two requests the second finds it open, and does not use the code.
        if free_tier::unlock(&mut tx, user.id, "invite_code").await?
            && !store::redeem(&mut tx, &code_hash(code)).await?
        {
            return Err(ServiceError::invalid("code", "is not known, is used up or has expired"));
        }
        tx.commit().await.map_err(StoreError::from)?;
    }
    claim(app, user, profile.signup_region.as_deref()).await
}

/// Makes a code, shown once. `lifetime_ms`: `None` for one that does not expire.
pub async fn create(
    app: &App,
    note: &str,
    max_uses: i64,
    lifetime_ms: Option<i64>,
) -> Result<(String, InviteCode), ServiceError> {
    let mut problems = Problems::new();
    if !(1..=MAX_USES).contains(&max_uses) {
        problems.insert("max_uses".to_owned(), format!("must be from 1 to {MAX_USES}"));
    }
    if note.chars().count() > MAX_NOTE_CHARS || note.chars().any(char::is_control) {
        problems.insert("note".to_owned(), format!("must be at most {MAX_NOTE_CHARS} printable characters"));
    }
    policy::none_of(problems)?;
    let code = hex::encode(rand::random::<[u8; RANDOM_BYTES]>());
    let expires_at = lifetime_ms.map(|lifetime| (now_ms() as i64).saturating_add(lifetime));
    let made = store::insert(&app.store, &code_hash(&code), note, max_uses, expires_at).await?;
    Ok((code, made))
}
