//! People who wait to be let in.

use super::{Store, StoreError};
use hoody_protocol::time::now_ms;

/// What somebody says about themselves; `None` leaves it as it is.
#[derive(Debug, Clone, Default)]
pub struct Details {
    /// Kind of organisation.
    pub context: Option<String>,
    /// Line of business.
    pub industry: Option<String>,
    /// What they want to do.
    pub interest: Option<String>,
    /// Their work.
    pub role: Option<String>,
}

/// Adds an address; one that is there already stays as it is.
pub async fn join(store: &Store, email: &str) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query(
        "INSERT INTO waitlist (email, created_at, updated_at) VALUES ($1, $2, $2) ON CONFLICT (email) DO NOTHING",
    )
    .bind(email)
    .bind(now_ms() as i64)
    .execute(&mut *tx)
    .await?;
    Ok(tx.commit().await?)
}

/// Adds what somebody says; nothing where the address does not wait.
pub async fn enrich(store: &Store, email: &str, details: &Details) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    sqlx::query(
        "UPDATE waitlist SET context = COALESCE($2, context), industry = COALESCE($3, industry), \
         interest = COALESCE($4, interest), role = COALESCE($5, role), updated_at = $6 WHERE email = $1",
    )
    .bind(email)
    .bind(details.context.as_deref())
    .bind(details.industry.as_deref())
    .bind(details.interest.as_deref())
    .bind(details.role.as_deref())
    .bind(now_ms() as i64)
    .execute(&mut *tx)
    .await?;
    Ok(tx.commit().await?)
}
