//! Auth tokens: who they speak for, and what they permit. Their values are only known here by their hash.

use super::{
    Store, StoreError, event,
    user::{self, User},
};
use crate::{
    access::Permissions,
    event::{Actor, EventKind, NewEvent},
};
use hoody_protocol::id::{AuthTokenId, RealmId, UserId};
use ipnet::IpNet;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{AnyConnection, AssertSqlSafe, Row, any::AnyRow};

/// An auth token.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthToken {
    /// Its id.
    pub id: AuthTokenId,
    /// Whom it speaks for.
    pub user: UserId,
    /// The token that made it.
    pub maker: Option<AuthTokenId>,
    /// 0 where a session made it, else one more than its maker's.
    pub depth: i64,
    /// For people.
    pub alias: String,
    /// The value's beginning.
    pub prefix: String,
    /// What it permits.
    pub permissions: Permissions,
    /// The realms it is for; empty: all.
    pub realms: Vec<RealmId>,
    /// May be used outside of realms.
    pub allow_no_realm: bool,
    /// Where it may be used from; empty: everywhere.
    pub networks: Vec<IpNet>,
    /// May use the vault, given the permission.
    pub vault_access: bool,
    /// May read events, given the permission.
    pub event_access: bool,
    /// May not make other credentials.
    pub deny_reauthorization: bool,
    /// Its own switch.
    pub is_enabled: bool,
    /// A token that it comes from is disabled.
    pub is_suspended: bool,
    /// Milliseconds since the epoch.
    pub expires_at: Option<i64>,
    /// Milliseconds since the epoch; some seconds late.
    pub last_used_at: Option<i64>,
    /// Where from.
    pub last_used_ip: Option<String>,
    /// Ed25519, hexadecimal.
    pub public_key: Option<String>,
    /// What anybody may read who knows the public key.
    pub public_storage: Option<serde_json::Map<String, serde_json::Value>>,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// Milliseconds since the epoch.
    pub updated_at: i64,
}

impl AuthToken {
    /// True where it has expired by `now`, milliseconds.
    pub fn has_expired(&self, now: i64) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    /// True where its own switch and those of all it comes from are on.
    pub fn is_active(&self) -> bool {
        self.is_enabled && !self.is_suspended
    }
}

/// Columns with a prefix, since users have some of the same names.
const COLUMNS: &str = "t.id AS t_id, t.user_id AS t_user_id, t.created_by_token_id, t.delegation_depth, \
    t.alias AS t_alias, t.prefix, t.permissions, t.realm_ids, t.allow_no_realm, t.ip_whitelist, t.vault_access, \
    t.event_access, t.deny_reauthorization, t.is_enabled, t.is_suspended, t.expires_at, t.last_used_at, \
    t.last_used_ip, t.public_key, t.public_storage, t.created_at AS t_created_at, t.updated_at AS t_updated_at";

fn corrupt<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::Corrupt { what, source: Box::new(error) }
}

fn json<T: DeserializeOwned>(text: &str, what: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(corrupt(what))
}

fn text<T: Serialize>(value: &T, what: &'static str) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(corrupt(what))
}

fn networks_text(networks: &[IpNet]) -> Result<String, StoreError> {
    text(&networks.iter().map(IpNet::to_string).collect::<Vec<_>>(), "auth_tokens.ip_whitelist")
}

fn read(row: &AnyRow) -> Result<AuthToken, StoreError> {
    let networks: Vec<String> = json(&row.try_get::<String, _>("ip_whitelist")?, "auth_tokens.ip_whitelist")?;
    let maker: Option<String> = row.try_get("created_by_token_id")?;
    let storage: Option<String> = row.try_get("public_storage")?;
    let flag = |column: &str| row.try_get::<i64, _>(column).map(|flag| flag != 0);
    Ok(AuthToken {
        id: row.try_get::<String, _>("t_id")?.parse().map_err(corrupt("auth_tokens.id"))?,
        user: row.try_get::<String, _>("t_user_id")?.parse().map_err(corrupt("auth_tokens.user_id"))?,
        maker: maker.map(|id| id.parse()).transpose().map_err(corrupt("auth_tokens.created_by_token_id"))?,
        depth: row.try_get("delegation_depth")?,
        alias: row.try_get("t_alias")?,
        prefix: row.try_get("prefix")?,
        permissions: Permissions::from_text(&row.try_get::<String, _>("permissions")?),
        realms: json(&row.try_get::<String, _>("realm_ids")?, "auth_tokens.realm_ids")?,
        allow_no_realm: flag("allow_no_realm")?,
        networks: networks
            .iter()
            .map(|network| network.parse())
            .collect::<Result<_, _>>()
            .map_err(corrupt("auth_tokens.ip_whitelist"))?,
        vault_access: flag("vault_access")?,
        event_access: flag("event_access")?,
        deny_reauthorization: flag("deny_reauthorization")?,
        is_enabled: flag("is_enabled")?,
        is_suspended: flag("is_suspended")?,
        expires_at: row.try_get("expires_at")?,
        last_used_at: row.try_get("last_used_at")?,
        last_used_ip: row.try_get("last_used_ip")?,
        public_key: row.try_get("public_key")?,
        public_storage: storage.map(|text| json(&text, "auth_tokens.public_storage")).transpose()?,
        created_at: row.try_get("t_created_at")?,
        updated_at: row.try_get("t_updated_at")?,
    })
}

/// The token with this value's hash and its account: all that a request with it needs, in one read.
pub async fn by_secret(store: &Store, hash: &str) -> Result<Option<(AuthToken, User)>, StoreError> {
    let user = user::columns_of("u");
    let sql = format!(
        "SELECT {COLUMNS}, {user} FROM auth_tokens t JOIN users u ON u.id = t.user_id WHERE t.secret_hash = $1"
    );
    let row = sqlx::query(AssertSqlSafe(sql)).bind(hash).fetch_optional(store.reader()).await?;
    row.map(|row| Ok((read(&row)?, user::from_row(&row)?))).transpose()
}

/// Every token of the user, oldest first.
pub async fn list(store: &Store, user: UserId) -> Result<Vec<AuthToken>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM auth_tokens t WHERE t.user_id = $1 ORDER BY t.created_at, t.id");
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(user.to_string()).fetch_all(store.reader()).await?;
    rows.iter().map(read).collect()
}

/// How many auth tokens the user has.
pub async fn count(store: &Store, user: UserId) -> Result<i64, StoreError> {
    let sql = "SELECT CAST(COUNT(*) AS BIGINT) FROM auth_tokens WHERE user_id = $1";
    Ok(sqlx::query_scalar(sql).bind(user.to_string()).fetch_one(store.reader()).await?)
}

/// Every token of the user, oldest first. Until the transaction ends nobody else changes them: whoever does
/// asks here first.
pub async fn lock(connection: &mut AnyConnection, user: UserId) -> Result<Vec<AuthToken>, StoreError> {
    user::lock(connection, user).await?;
    let sql = format!("SELECT {COLUMNS} FROM auth_tokens t WHERE t.user_id = $1 ORDER BY t.created_at, t.id");
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(user.to_string()).fetch_all(connection).await?;
    rows.iter().map(read).collect()
}

/// The token whose public profile has this key, if it is active and has not expired by `now`.
pub async fn by_public_key(store: &Store, key: &str, now: i64) -> Result<Option<AuthToken>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM auth_tokens t WHERE t.public_key = $1");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(key).fetch_optional(store.reader()).await?;
    let token = row.as_ref().map(read).transpose()?;
    Ok(token.filter(|token| token.is_active() && !token.has_expired(now)))
}

/// Adds a token; `hash` is its value's.
pub async fn insert(connection: &mut AnyConnection, token: &AuthToken, hash: &str) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO auth_tokens (id, user_id, created_by_token_id, delegation_depth, alias, prefix, secret_hash, \
         permissions, realm_ids, allow_no_realm, ip_whitelist, vault_access, event_access, deny_reauthorization, \
         is_enabled, is_suspended, expires_at, public_key, public_storage, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)",
    )
    .bind(token.id.to_string())
    .bind(token.user.to_string())
    .bind(token.maker.map(|maker| maker.to_string()))
    .bind(token.depth)
    .bind(token.alias.clone())
    .bind(token.prefix.clone())
    .bind(hash.to_owned())
    .bind(token.permissions.to_text())
    .bind(text(&token.realms, "auth_tokens.realm_ids")?)
    .bind(i64::from(token.allow_no_realm))
    .bind(networks_text(&token.networks)?)
    .bind(i64::from(token.vault_access))
    .bind(i64::from(token.event_access))
    .bind(i64::from(token.deny_reauthorization))
    .bind(i64::from(token.is_enabled))
    .bind(i64::from(token.is_suspended))
    .bind(token.expires_at)
    .bind(token.public_key.clone())
    .bind(token.public_storage.as_ref().map(|map| text(map, "auth_tokens.public_storage")).transpose()?)
    .bind(token.created_at)
    .bind(token.updated_at)
    .execute(&mut *connection)
    .await?;
    event::insert(connection, &told(EventKind::AuthTokenCreated, token)).await?;
    Ok(())
}

/// Whoever holds it, a token is its account's; its value is in no event.
fn told(kind: EventKind, token: &AuthToken) -> NewEvent {
    NewEvent::new(kind, token.id, Some(token.user), Actor::User(token.user))
        .in_realms(&token.realms)
        .with("alias", token.alias.as_str())
}

/// Writes what can change of a token.
pub async fn update(connection: &mut AnyConnection, token: &AuthToken) -> Result<(), StoreError> {
    let sql = format!("SELECT is_enabled FROM auth_tokens WHERE id = $1{}", super::row_lock(connection, "auth_tokens"));
    let before: Option<i64> =
        sqlx::query_scalar(AssertSqlSafe(sql)).bind(token.id.to_string()).fetch_optional(&mut *connection).await?;
    let Some(before) = before else { return Ok(()) };
    sqlx::query(
        "UPDATE auth_tokens SET alias = $2, permissions = $3, realm_ids = $4, allow_no_realm = $5, \
         ip_whitelist = $6, vault_access = $7, event_access = $8, is_enabled = $9, is_suspended = $10, \
         expires_at = $11, public_key = $12, public_storage = $13, updated_at = $14 WHERE id = $1",
    )
    .bind(token.id.to_string())
    .bind(token.alias.clone())
    .bind(token.permissions.to_text())
    .bind(text(&token.realms, "auth_tokens.realm_ids")?)
    .bind(i64::from(token.allow_no_realm))
    .bind(networks_text(&token.networks)?)
    .bind(i64::from(token.vault_access))
    .bind(i64::from(token.event_access))
    .bind(i64::from(token.is_enabled))
    .bind(i64::from(token.is_suspended))
    .bind(token.expires_at)
    .bind(token.public_key.clone())
    .bind(token.public_storage.as_ref().map(|map| text(map, "auth_tokens.public_storage")).transpose()?)
    .bind(token.updated_at)
    .execute(&mut *connection)
    .await?;
    let kind = match (before != 0, token.is_enabled) {
        (false, true) => EventKind::AuthTokenEnabled,
        (true, false) => EventKind::AuthTokenDisabled,
        _ => EventKind::AuthTokenUpdated,
    };
    event::insert(connection, &told(kind, token)).await?;
    Ok(())
}

/// Deletes a token, and with it all that it made.
pub async fn delete(connection: &mut AnyConnection, id: AuthTokenId) -> Result<(), StoreError> {
    let row = sqlx::query("DELETE FROM auth_tokens WHERE id = $1 RETURNING user_id, alias")
        .bind(id.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(()) };
    let user = row.try_get::<String, _>("user_id")?.parse().map_err(corrupt("auth_tokens.user_id"))?;
    let deleted = NewEvent::new(EventKind::AuthTokenDeleted, id, Some(user), Actor::User(user));
    event::insert(connection, &deleted.with("alias", row.try_get::<String, _>("alias")?)).await?;
    Ok(())
}

/// Notes when and where from tokens were last used; later notes stay.
pub async fn note_uses(store: &Store, uses: &[(AuthTokenId, i64, String)]) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    for (id, at, address) in uses {
        sqlx::query(
            "UPDATE auth_tokens SET last_used_at = $2, last_used_ip = $3 \
             WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)",
        )
        .bind(id.to_string())
        .bind(at)
        .bind(address)
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(())
}

#[cfg(test)]
pub mod testing {
    //! Auth tokens for tests, written straight into the store.

    use super::*;
    use crate::service::auth_token::Secret;

    /// A token that may do all that tenants may, from everywhere and for ever.
    pub fn blank(user: UserId) -> AuthToken {
        AuthToken {
            id: AuthTokenId::generate(),
            user,
            maker: None,
            depth: 0,
            alias: "test".to_owned(),
            prefix: "hdy_00000000".to_owned(),
            permissions: Permissions::of_tenants(),
            realms: Vec::new(),
            allow_no_realm: true,
            networks: Vec::new(),
            vault_access: true,
            event_access: true,
            deny_reauthorization: false,
            is_enabled: true,
            is_suspended: false,
            expires_at: None,
            last_used_at: None,
            last_used_ip: None,
            public_key: None,
            public_storage: None,
            created_at: 1,
            updated_at: 1,
        }
    }

    /// A token of the user that may do all that tenants may; `change` makes it another. Gives its value.
    pub async fn token(store: &Store, user: UserId, change: impl FnOnce(&mut AuthToken)) -> String {
        let secret = Secret::generate();
        let mut token = AuthToken { prefix: secret.shown().to_owned(), ..blank(user) };
        change(&mut token);
        let mut tx = store.begin().await.expect("begin");
        insert(&mut tx, &token, &secret.hash()).await.expect("insert the token");
        tx.commit().await.expect("commit");
        secret.reveal().to_owned()
    }
}
