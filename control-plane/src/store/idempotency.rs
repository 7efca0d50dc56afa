//! Answers to requests with an `Idempotency-Key`.
//!
//! A key is claimed by one request at a time; while it has no answer, its `body` is the claim: who works on it,
//! and, once the request has changed something, what. [`note`] writes the latter in the transaction of the change
//! itself, so that what is committed is known also where the process dies before it has answered. It also refuses
//! a change whose key was given to somebody else meanwhile: a change is made by one claim only.

use super::{Store, StoreError, replica};
use hoody_protocol::{
    id::{RequestId, UserId},
    time::now_ms,
};
use sqlx::{AnyConnection, Row, any::AnyRow};
use std::time::Duration;

/// How long an answer is kept.
pub const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

tokio::task_local! {
    /// The claim of the request that this task works on.
    static CLAIM: Claim;
}

/// Who works on the first request with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    user: UserId,
    key: String,
    /// `<replica> <random>`; the first words of the row's `body`.
    text: String,
}

/// What a request has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// What kind of thing, for example `container`.
    pub what: String,
    /// Its id.
    pub id: String,
}

/// What is known about a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nothing: the request is to be worked on, and [`finish`] or [`forget`] called.
    First(Claim),
    /// It was used for another request.
    OtherRequest,
    /// The first request is still being worked on.
    Running,
    /// The process that worked on it died after it had committed this and before it had answered; the answer is
    /// to be made anew, and [`finish`] called.
    Committed(Claim, Effect),
    /// The answer.
    Done {
        /// HTTP status.
        status: u16,
        /// The sealed body.
        sealed: String,
    },
}

/// A row without an answer.
struct Working {
    text: String,
    effect: Option<Effect>,
    created_at: i64,
}

/// Claims a key for a request that the process `own` works on. A claim without effect that is older than
/// `abandoned` counts for nothing; so does one of a process that is dead.
pub async fn begin(
    store: &Store,
    own: &str,
    user: UserId,
    key: &str,
    request_hash: &str,
    abandoned: Duration,
) -> Result<Begun, StoreError> {
    let now = now_ms() as i64;
    let claim = Claim { user, key: key.to_owned(), text: format!("{own} {}", RequestId::generate()) };
    let mut tx = store.begin().await?;
    sqlx::query("DELETE FROM idempotency_keys WHERE user_id = $1 AND created_at < $2")
        .bind(user.to_string())
        .bind(now - KEPT.as_millis() as i64)
        .execute(&mut *tx)
        .await?;
    let inserted = sqlx::query(
        "INSERT INTO idempotency_keys (user_id, key, request_hash, body, created_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (user_id, key) DO NOTHING",
    )
    .bind(user.to_string())
    .bind(key)
    .bind(request_hash)
    .bind(&claim.text)
    .bind(now)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    if inserted == 1 {
        tx.commit().await?;
        return Ok(Begun::First(claim));
    }
    let row = sqlx::query(
        "SELECT request_hash, status, body, created_at FROM idempotency_keys WHERE user_id = $1 AND key = $2",
    )
    .bind(user.to_string())
    .bind(key)
    .fetch_optional(&mut *tx)
    .await?;
    // Freed between the two statements: as good as still running, the client tries again.
    let Some(row) = row else { return Ok(Begun::Running) };
    let same = row.try_get::<String, _>("request_hash")? == request_hash;
    let known = match (answer(&row)?, same) {
        (Some(_), false) => return Ok(Begun::OtherRequest),
        (Some(done), true) => return Ok(done),
        (None, _) => working(&row)?,
    };
    let holder = known.text.split(' ').next().unwrap_or_default();
    let over = known.created_at < now - abandoned.as_millis() as i64;
    // Builds before this one did not say who works on it.
    let known_holder = !holder.is_empty() && holder != own;
    let dead = over || (known_holder && !replica::is_alive(&mut tx, holder).await?);
    match known.effect {
        _ if !same && (known.effect.is_some() || !dead) => return Ok(Begun::OtherRequest),
        _ if !dead => return Ok(Begun::Running),
        Some(effect) => return Ok(Begun::Committed(Claim { text: known.text, ..claim }, effect)),
        None => {}
    }
    // Nothing of the first request was committed, and from now on nothing of it can be.
    let taken = sqlx::query(
        "UPDATE idempotency_keys SET request_hash = $3, body = $4, created_at = $5 \
         WHERE user_id = $1 AND key = $2 AND status IS NULL AND COALESCE(body, '') = $6",
    )
    .bind(user.to_string())
    .bind(key)
    .bind(request_hash)
    .bind(&claim.text)
    .bind(now)
    .bind(&known.text)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    tx.commit().await?;
    Ok(if taken == 1 { Begun::First(claim) } else { Begun::Running })
}

/// Runs the work on a request; what it changes is noted for its key.
pub async fn working_on<T>(claim: Claim, work: impl Future<Output = T>) -> T {
    CLAIM.scope(claim, work).await
}

/// Notes in the transaction of a change what the request that this task works on has changed; the first change
/// counts. Refused where its key was given to another request meanwhile. Nothing for requests without a key.
pub(super) async fn note(connection: &mut AnyConnection, what: &str, id: &str) -> Result<(), StoreError> {
    let Ok(claim) = CLAIM.try_with(Clone::clone) else { return Ok(()) };
    let noted = sqlx::query(
        "UPDATE idempotency_keys SET body = CASE WHEN body = $3 THEN $4 ELSE body END \
         WHERE user_id = $1 AND key = $2 AND status IS NULL AND (body = $3 OR body LIKE $5)",
    )
    .bind(claim.user.to_string())
    .bind(&claim.key)
    .bind(&claim.text)
    .bind(format!("{} {what} {id}", claim.text))
    .bind(format!("{} %", claim.text))
    .execute(connection)
    .await?
    .rows_affected();
    if noted == 1 { Ok(()) } else { Err(StoreError::Duplicate { what: "this Idempotency-Key" }) }
}

/// Stores the answer, where the claim still holds.
pub async fn finish(store: &Store, claim: &Claim, status: u16, sealed: &str) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query(
        "UPDATE idempotency_keys SET status = $3, body = $4 \
         WHERE user_id = $1 AND key = $2 AND status IS NULL AND (body = $5 OR body LIKE $6)",
    )
    .bind(claim.user.to_string())
    .bind(&claim.key)
    .bind(i64::from(status))
    .bind(sealed)
    .bind(&claim.text)
    .bind(format!("{} %", claim.text))
    .execute(&mut *tx)
    .await?;
    Ok(tx.commit().await?)
}

/// Frees the key of a request that came to nothing.
pub async fn forget(store: &Store, claim: &Claim) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query(
        "DELETE FROM idempotency_keys WHERE user_id = $1 AND key = $2 AND status IS NULL AND (body = $3 OR body LIKE $4)",
    )
    .bind(claim.user.to_string())
    .bind(&claim.key)
    .bind(&claim.text)
    .bind(format!("{} %", claim.text))
    .execute(&mut *tx)
    .await?;
    Ok(tx.commit().await?)
}

fn answer(row: &AnyRow) -> Result<Option<Begun>, StoreError> {
    let status: Option<i64> = row.try_get("status")?;
    let body: Option<String> = row.try_get("body")?;
    Ok(match (status.and_then(|status| u16::try_from(status).ok()), body) {
        (Some(status), Some(sealed)) => Some(Begun::Done { status, sealed }),
        _ => None,
    })
}

/// `<replica> <random> [<what> <id>]`; rows of builds before this one have no text.
fn working(row: &AnyRow) -> Result<Working, StoreError> {
    let text = row.try_get::<Option<String>, _>("body")?.unwrap_or_default();
    let mut words = text.split(' ').skip(2);
    let effect = words.next().zip(words.next()).map(|(what, id)| Effect { what: what.to_owned(), id: id.to_owned() });
    Ok(Working { effect, created_at: row.try_get("created_at")?, text })
}
