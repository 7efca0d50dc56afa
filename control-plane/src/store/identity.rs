//! Which account somebody is who signs in with a provider.

use super::StoreError;
use hoody_protocol::{id::UserId, time::now_ms};
use sqlx::AnyConnection;

/// The account of the provider's `subject`.
pub async fn user_of(
    connection: &mut AnyConnection,
    provider: &str,
    subject: &str,
) -> Result<Option<UserId>, StoreError> {
    let found: Option<String> =
        sqlx::query_scalar("SELECT user_id FROM identities WHERE provider = $1 AND subject = $2")
            .bind(provider)
            .bind(subject)
            .fetch_optional(connection)
            .await?;
    let parsed = found.map(|text| text.parse()).transpose();
    parsed.map_err(|error| StoreError::Corrupt { what: "identities.user_id", source: Box::new(error) })
}

/// Says that the provider's `subject` is the account.
pub async fn insert(
    connection: &mut AnyConnection,
    provider: &str,
    subject: &str,
    user: UserId,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO identities (provider, subject, user_id, created_at) VALUES ($1, $2, $3, $4)")
        .bind(provider)
        .bind(subject)
        .bind(user.to_string())
        .bind(now_ms() as i64)
        .execute(connection)
        .await?;
    Ok(())
}

/// Notes how an account that a provider's word made came to be, and its picture.
pub async fn signed_up(
    connection: &mut AnyConnection,
    user: UserId,
    provider: &str,
    avatar_url: Option<&str>,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE users SET signup_method = $2, avatar_url = $3, email_verified_at = created_at WHERE id = $1")
        .bind(user.to_string())
        .bind(provider)
        .bind(avatar_url)
        .execute(connection)
        .await?;
    Ok(())
}
