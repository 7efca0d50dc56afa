//! What an account is beside what every request needs of it ([`super::user`]): profile, onboarding, password.

use super::{Store, StoreError};
use hoody_protocol::{id::UserId, time::now_ms};
use serde_json::{Map, Value};
use sqlx::{AnyConnection, Row};

/// A JSON object.
pub type Object = Map<String, Value>;

/// The profile of an account.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// When the e-mail address was verified, milliseconds.
    pub email_verified_at: Option<i64>,
    /// A picture.
    pub avatar_url: Option<String>,
    /// What clients keep about the account.
    pub metadata: Object,
    /// Milestone → when it was reached.
    pub onboarding: Object,
    /// Ed25519, hexadecimal.
    pub public_key: Option<String>,
    /// How the account was made; `None`: by an operator.
    pub signup_method: Option<String>,
    /// Region of the free server wished for.
    pub signup_region: Option<String>,
    /// The invite code sent with the sign-up was not good.
    pub signup_code_failed: bool,
    /// Since when the free tier is open, milliseconds.
    pub free_tier_unlocked_at: Option<i64>,
    /// What opened it.
    pub free_tier_unlock_source: Option<String>,
    /// When the free server was claimed, milliseconds.
    pub free_tier_claimed_at: Option<i64>,
}

/// The profile of the account.
pub async fn get(store: &Store, id: UserId) -> Result<Option<Profile>, StoreError> {
    let row = sqlx::query(
        "SELECT email_verified_at, avatar_url, metadata, onboarding, public_key, signup_method, signup_region, \
         signup_code_failed, free_tier_unlocked_at, free_tier_unlock_source, free_tier_claimed_at \
         FROM users WHERE id = $1",
    )
    .bind(id.to_string())
    .fetch_optional(store.reader())
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Profile {
        email_verified_at: row.try_get("email_verified_at")?,
        avatar_url: row.try_get("avatar_url")?,
        metadata: object(&row.try_get::<String, _>("metadata")?, "users.metadata")?,
        onboarding: object(&row.try_get::<String, _>("onboarding")?, "users.onboarding")?,
        public_key: row.try_get("public_key")?,
        signup_method: row.try_get("signup_method")?,
        signup_region: row.try_get("signup_region")?,
        signup_code_failed: row.try_get::<i64, _>("signup_code_failed")? != 0,
        free_tier_unlocked_at: row.try_get("free_tier_unlocked_at")?,
        free_tier_unlock_source: row.try_get("free_tier_unlock_source")?,
        free_tier_claimed_at: row.try_get("free_tier_claimed_at")?,
    }))
}

fn object(text: &str, what: &'static str) -> Result<Object, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt { what, source: Box::new(error) })
}

/// What an update changes; `None`: nothing.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Name for people.
    pub alias: Option<String>,
    /// Replaces what clients keep about the account.
    pub metadata: Option<Object>,
    /// Ed25519, hexadecimal.
    pub public_key: Option<String>,
    /// May use the admin API.
    pub is_admin: Option<bool>,
    /// May not log in.
    pub is_banned: Option<bool>,
    /// PHC string.
    pub password_hash: Option<String>,
}

/// Applies a change; false where there is no such account.
pub async fn update(connection: &mut AnyConnection, id: UserId, change: &Change) -> Result<bool, StoreError> {
    let updated = sqlx::query(
        "UPDATE users SET alias = COALESCE($2, alias), metadata = COALESCE($3, metadata), \
         public_key = COALESCE($4, public_key), is_admin = COALESCE($5, is_admin), \
         is_banned = COALESCE($6, is_banned), password_hash = COALESCE($7, password_hash), updated_at = $8 \
         WHERE id = $1",
    )
    .bind(id.to_string())
    .bind(change.alias.as_deref())
    .bind(change.metadata.as_ref().map(|metadata| Value::Object(metadata.clone()).to_string()))
    .bind(change.public_key.as_deref())
    .bind(change.is_admin.map(i64::from))
    .bind(change.is_banned.map(i64::from))
    .bind(change.password_hash.as_deref())
    .bind(now_ms() as i64)
    .execute(connection)
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// Replaces a password's hash, if it still is `old`: a new password meanwhile wins.
pub async fn rehash(store: &Store, id: UserId, old: &str, new: &str) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query("UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2")
        .bind(id.to_string())
        .bind(old)
        .bind(new)
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}

/// The hash of the account's password, a PHC string.
pub async fn password_hash(store: &Store, id: UserId) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar("SELECT password_hash FROM users WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(store.reader())
        .await?)
}

/// Notes how an account that a sign-up made came to be.
pub async fn signed_up(connection: &mut AnyConnection, id: UserId, region: Option<&str>) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE users SET signup_method = 'email', signup_region = $2, email_verified_at = created_at WHERE id = $1",
    )
    .bind(id.to_string())
    .bind(region)
    .execute(connection)
    .await?;
    Ok(())
}

/// The account's e-mail address counts as verified.
pub async fn verified(connection: &mut AnyConnection, id: UserId) -> Result<(), StoreError> {
    sqlx::query("UPDATE users SET email_verified_at = COALESCE(email_verified_at, $2) WHERE id = $1")
        .bind(id.to_string())
        .bind(now_ms() as i64)
        .execute(connection)
        .await?;
    Ok(())
}

/// The account's onboarding, its row locked until the transaction ends.
pub async fn lock_onboarding(connection: &mut AnyConnection, id: UserId) -> Result<Object, StoreError> {
    let text: Option<String> =
        sqlx::query_scalar("UPDATE users SET updated_at = updated_at WHERE id = $1 RETURNING onboarding")
            .bind(id.to_string())
            .fetch_optional(connection)
            .await?;
    text.map_or_else(|| Ok(Object::new()), |text| object(&text, "users.onboarding"))
}

/// Replaces the account's onboarding.
pub async fn set_onboarding(connection: &mut AnyConnection, id: UserId, onboarding: &Object) -> Result<(), StoreError> {
    sqlx::query("UPDATE users SET onboarding = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(Value::Object(onboarding.clone()).to_string())
        .execute(connection)
        .await?;
    Ok(())
}
