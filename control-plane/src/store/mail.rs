//! Mail to be written, and the tokens that mails carry.

use super::{Store, StoreError};
use hoody_protocol::{
    id::{RequestId, UserId},
    time::now_ms,
};
use sqlx::AnyConnection;

/// What somebody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// A new sign-up.
    SignUp,
    /// The mail of a sign-up once more.
    Resend,
    /// A new password.
    Reset,
    /// GitHub opens the account from now on.
    LinkedGithub,
    /// Google opens the account from now on.
    LinkedGoogle,
}

impl JobKind {
    const ALL: [Self; 5] = [Self::SignUp, Self::Resend, Self::Reset, Self::LinkedGithub, Self::LinkedGoogle];

    fn word(self) -> &'static str {
        match self {
            Self::SignUp => "sign_up",
            Self::Resend => "resend",
            Self::Reset => "reset",
            Self::LinkedGithub => "linked_github",
            Self::LinkedGoogle => "linked_google",
        }
    }
}

/// A mail to be written.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// What was asked for.
    pub kind: JobKind,
    /// The address that was named, lower case. Whether it has an account was not looked at yet.
    pub email: String,
    /// The sign-up.
    pub sign_up: Option<String>,
    /// How often it was begun, this time included.
    pub attempts: i64,
    /// Milliseconds since the epoch.
    pub created_at: i64,
}

/// Asks for a mail.
pub async fn enqueue(
    connection: &mut AnyConnection,
    kind: JobKind,
    email: &str,
    sign_up: Option<&str>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO mail_jobs (id, kind, email, sign_up_id, not_before, created_at) VALUES ($1, $2, $3, $4, $5, $5)",
    )
    .bind(RequestId::generate().to_string())
    .bind(kind.word())
    .bind(email)
    .bind(sign_up)
    .bind(now_ms() as i64)
    .execute(connection)
    .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct JobRow {
    id: String,
    kind: String,
    email: String,
    sign_up_id: Option<String>,
    attempts: i64,
    created_at: i64,
}

/// Takes the next mail that is due, for `lease_ms`: until then no other replica takes it.
pub async fn lease(store: &Store, lease_ms: i64) -> Result<Option<Job>, StoreError> {
    let now = now_ms() as i64;
    let mut tx = store.begin().await?;
    // Of two that see the same row, the second finds it no longer due.
    let row: Option<JobRow> = sqlx::query_as(
        "UPDATE mail_jobs SET not_before = $2, attempts = attempts + 1 WHERE not_before <= $1 AND \
         id = (SELECT id FROM mail_jobs WHERE not_before <= $1 ORDER BY not_before, id LIMIT 1) \
         RETURNING id, kind, email, sign_up_id, attempts, created_at",
    )
    .bind(now)
    .bind(now + lease_ms)
    .fetch_optional(&mut *tx)
    .await?;
    tx.commit().await?;
    let Some(row) = row else { return Ok(None) };
    let kind = JobKind::ALL.into_iter().find(|kind| kind.word() == row.kind);
    let kind = kind.ok_or_else(|| StoreError::Corrupt { what: "mail_jobs.kind", source: row.kind.into() })?;
    let JobRow { id, email, sign_up_id: sign_up, attempts, created_at, .. } = row;
    Ok(Some(Job { id, kind, email, sign_up, attempts, created_at }))
}

/// The mail was sent, or nobody wants it.
pub async fn done(store: &Store, id: &str) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query("DELETE FROM mail_jobs WHERE id = $1").bind(id).execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}

/// The mail could not be sent: not again before `not_before`.
pub async fn postpone(store: &Store, id: &str, not_before: i64) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query("UPDATE mail_jobs SET not_before = $2 WHERE id = $1")
        .bind(id)
        .bind(not_before)
        .execute(&mut *tx)
        .await?;
    Ok(tx.commit().await?)
}

/// Whose token it is.
#[derive(Debug, Clone, Copy)]
pub enum TokenFor<'a> {
    /// A sign-up's, to verify the address.
    SignUp(&'a str),
    /// An account's, to reset the password.
    Account(UserId),
}

/// Stores the hash of a token.
pub async fn insert_token(
    store: &Store,
    token_hash: &str,
    email: &str,
    owner: TokenFor<'_>,
    expires_at: i64,
) -> Result<(), StoreError> {
    let (sign_up, user) = match owner {
        TokenFor::SignUp(id) => (Some(id), None),
        TokenFor::Account(id) => (None, Some(id.to_string())),
    };
    let mut tx = store.begin().await?;
    sqlx::query(
        "INSERT INTO mail_tokens (token_hash, email, sign_up_id, user_id, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(token_hash)
    .bind(email)
    .bind(sign_up)
    .bind(user)
    .bind(now_ms() as i64)
    .bind(expires_at)
    .execute(&mut *tx)
    .await?;
    Ok(tx.commit().await?)
}

/// Takes a token for a new password: gives its account; every such token of the account is gone then.
pub async fn take_reset(connection: &mut AnyConnection, token_hash: &str) -> Result<Option<UserId>, StoreError> {
    let taken: Option<String> = sqlx::query_scalar(
        "DELETE FROM mail_tokens WHERE token_hash = $1 AND user_id IS NOT NULL AND expires_at > $2 RETURNING user_id",
    )
    .bind(token_hash)
    .bind(now_ms() as i64)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(user) = taken else { return Ok(None) };
    sqlx::query("DELETE FROM mail_tokens WHERE user_id = $1").bind(&user).execute(connection).await?;
    let user =
        user.parse().map_err(|error| StoreError::Corrupt { what: "mail_tokens.user_id", source: Box::new(error) });
    user.map(Some)
}

/// Deletes an account's tokens.
pub async fn delete_tokens(connection: &mut AnyConnection, user: UserId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM mail_tokens WHERE user_id = $1").bind(user.to_string()).execute(connection).await?;
    Ok(())
}

/// Forgets tokens that have expired.
pub async fn purge(store: &Store) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query("DELETE FROM mail_tokens WHERE expires_at <= $1").bind(now_ms() as i64).execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}
