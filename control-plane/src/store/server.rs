//! Server rows as tenants and operators see them. Identity and liveness are in [`super::node`], capacity
//! that containers have reserved in the containers' reservations.

use super::{Store, StoreError, event, node::IdentityConflict, pool};
use crate::{
    event::{Actor, EventKind, NewEvent},
    page::Page,
};
use hoody_protocol::{
    id::{PoolId, ServerId, UserId},
    link::NodeFacts,
    time::now_ms,
};
use sqlx::{AnyConnection, AssertSqlSafe, Row, any::AnyRow};

/// A server.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its id.
    pub id: ServerId,
    /// Unique name.
    pub name: String,
    /// The tenant who rents it.
    pub owner: Option<UserId>,
    /// The pool it is in.
    pub pool: Option<PoolId>,
    /// It is given to accounts of the free tier, and not for rent.
    pub is_free: bool,
    /// `created`, `enrolled`, `disabled` or `revoked`.
    pub status: String,
    /// Where it is.
    pub place: Place,
    /// Milliseconds since the epoch.
    pub rental_start: Option<i64>,
    /// Milliseconds since the epoch.
    pub rental_end: Option<i64>,
    /// What its agent said about it.
    pub facts: Option<NodeFacts>,
    /// Its agent's version.
    pub agent_version: Option<String>,
    /// Its agent has enrolled at least once.
    pub has_key: bool,
    /// Its link is up.
    pub online: bool,
    /// Milliseconds since the epoch.
    pub online_changed_at: Option<i64>,
    /// In OCI terms.
    pub architecture: String,
    /// What it has.
    pub capacity: Capacity,
    /// What containers have reserved of it; `containers` are how many.
    pub used: Capacity,
    /// The last agent that came with its identity while its link was up.
    pub identity_conflict: Option<IdentityConflict>,
    /// Milliseconds since the epoch.
    pub created_at: i64,
    /// Milliseconds since the epoch.
    pub updated_at: i64,
}

/// Where a server is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// ISO 3166 country code.
    pub country: String,
    /// Region.
    pub region: String,
    /// City.
    pub city: String,
    /// Datacenter.
    pub datacenter: String,
}

/// An amount of everything that containers take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a core.
    pub cpu_millis: i64,
    /// Memory.
    pub memory_bytes: i64,
    /// Disk.
    pub disk_bytes: i64,
    /// Containers.
    pub containers: i64,
}

const COLUMNS: &str = "id, name, owner_id, pool_id, is_free, status, country, region, city, datacenter, rental_start, \
    rental_end, \
    facts, agent_version, CASE WHEN public_key IS NULL THEN 0 ELSE 1 END AS has_key, online, online_changed_at, \
    architecture, cpu_millis, memory_bytes, disk_bytes, max_containers, cpu_millis_used, memory_bytes_used, \
    disk_bytes_used, containers_used, identity_conflict, created_at, updated_at";

fn corrupt<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::Corrupt { what, source: Box::new(error) }
}

fn from_row(row: &AnyRow) -> Result<Server, StoreError> {
    let owner: Option<String> = row.try_get("owner_id")?;
    // Without a pool of its own it is in its owner's default pool.
    let pool = row.try_get::<Option<String>, _>("pool_id")?.or_else(|| owner.clone());
    let facts: Option<String> = row.try_get("facts")?;
    // CASE gives an INT on PostgreSQL and an INTEGER of any width on SQLite.
    let has_key = row.try_get::<i64, _>("has_key").or_else(|_| row.try_get::<i32, _>("has_key").map(i64::from))?;
    Ok(Server {
        id: row.try_get::<String, _>("id")?.parse().map_err(corrupt("servers.id"))?,
        name: row.try_get("name")?,
        is_free: row.try_get::<i64, _>("is_free")? != 0,
        owner: owner.map(|text| text.parse()).transpose().map_err(corrupt("servers.owner_id"))?,
        pool: pool.map(|text| text.parse()).transpose().map_err(corrupt("servers.pool_id"))?,
        status: row.try_get("status")?,
        place: Place {
            country: row.try_get("country")?,
            region: row.try_get("region")?,
            city: row.try_get("city")?,
            datacenter: row.try_get("datacenter")?,
        },
        rental_start: row.try_get("rental_start")?,
        rental_end: row.try_get("rental_end")?,
        // Facts that an older build wrote in another form count as none until the next hello.
        facts: facts.and_then(|text| serde_json::from_str(&text).ok()),
        agent_version: row.try_get("agent_version")?,
        has_key: has_key != 0,
        online: row.try_get::<i64, _>("online")? != 0,
        online_changed_at: row.try_get("online_changed_at")?,
        architecture: row.try_get("architecture")?,
        capacity: Capacity {
            cpu_millis: row.try_get("cpu_millis")?,
            memory_bytes: row.try_get("memory_bytes")?,
            disk_bytes: row.try_get("disk_bytes")?,
            containers: row.try_get("max_containers")?,
        },
        used: Capacity {
            cpu_millis: row.try_get("cpu_millis_used")?,
            memory_bytes: row.try_get("memory_bytes_used")?,
            disk_bytes: row.try_get("disk_bytes_used")?,
            containers: row.try_get("containers_used")?,
        },
        identity_conflict: row
            .try_get::<Option<String>, _>("identity_conflict")?
            .and_then(|text| serde_json::from_str(&text).ok()),
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

fn all(rows: &[AnyRow]) -> Result<Vec<Server>, StoreError> {
    rows.iter().map(from_row).collect()
}

/// The server with this id.
pub async fn by_id(store: &Store, id: ServerId) -> Result<Option<Server>, StoreError> {
    sqlx::query(AssertSqlSafe(format!("SELECT {COLUMNS} FROM servers WHERE id = $1")))
        .bind(id.to_string())
        .fetch_optional(store.reader())
        .await?
        .map(|row| from_row(&row))
        .transpose()
}

/// The servers that a user rents, or may use through a pool.
pub async fn usable_by(store: &Store, user: UserId) -> Result<Vec<Server>, StoreError> {
    let usable = pool::usable("servers", "$1");
    let sql = format!("SELECT {COLUMNS} FROM servers WHERE {usable} ORDER BY created_at, id");
    all(&sqlx::query(AssertSqlSafe(sql)).bind(user.to_string()).fetch_all(store.reader()).await?)
}

/// The server with this id, if the user rents it or may use it through a pool.
pub async fn usable(store: &Store, id: ServerId, user: UserId) -> Result<Option<Server>, StoreError> {
    let usable = pool::usable("servers", "$2");
    sqlx::query(AssertSqlSafe(format!("SELECT {COLUMNS} FROM servers WHERE id = $1 AND {usable}")))
        .bind(id.to_string())
        .bind(user.to_string())
        .fetch_optional(store.reader())
        .await?
        .map(|row| from_row(&row))
        .transpose()
}

/// The servers that nobody rents and that could work at once.
pub async fn available(store: &Store) -> Result<Vec<Server>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM servers WHERE owner_id IS NULL AND is_free = 0 AND status = 'enrolled' ORDER BY name, id"
    );
    all(&sqlx::query(AssertSqlSafe(sql)).fetch_all(store.reader()).await?)
}

/// One page of all servers, and how many there are.
pub async fn list(store: &Store, page: Page) -> Result<(Vec<Server>, u64), StoreError> {
    let total: i64 =
        sqlx::query_scalar("SELECT CAST(COUNT(*) AS BIGINT) FROM servers").fetch_one(store.reader()).await?;
    let sql = format!("SELECT {COLUMNS} FROM servers ORDER BY name, id LIMIT $1 OFFSET $2");
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(page.limit as i64)
        .bind(page.offset() as i64)
        .fetch_all(store.reader())
        .await?;
    Ok((all(&rows)?, total as u64))
}

/// What an operator sets; `None` leaves it as it is.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// Unique name.
    pub name: Option<String>,
    /// The tenant; `Some(None)`: nobody.
    pub owner: Option<Option<UserId>>,
    /// Given to the free tier.
    pub is_free: Option<bool>,
    /// Country.
    pub country: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// City.
    pub city: Option<String>,
    /// Datacenter.
    pub datacenter: Option<String>,
    /// Begin of the rental, milliseconds.
    pub rental_start: Option<Option<i64>>,
    /// End of the rental, milliseconds.
    pub rental_end: Option<Option<i64>>,
    /// Thousandths of a core.
    pub cpu_millis: Option<i64>,
    /// Memory.
    pub memory_bytes: Option<i64>,
    /// Disk.
    pub disk_bytes: Option<i64>,
    /// Containers.
    pub max_containers: Option<i64>,
}

/// Inserts a server under this id and name, for [`update`] to fill.
pub async fn insert(connection: &mut AnyConnection, id: ServerId, name: &str) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO servers (id, name, status, created_at, updated_at) VALUES ($1, $2, 'created', $3, $3)")
        .bind(id.to_string())
        .bind(name)
        .bind(now_ms() as i64)
        .execute(&mut *connection)
        .await?;
    let created = NewEvent::of_server(EventKind::ServerCreated, id, None, name, Actor::Operator);
    event::insert(connection, &created).await?;
    Ok(())
}

/// Applies a change; gives the server as it is then.
pub async fn update(
    connection: &mut AnyConnection,
    id: ServerId,
    change: &Change,
) -> Result<Option<Server>, StoreError> {
    let owner = change.owner.map(|owner| owner.map(|id| id.to_string()));
    let sql = format!(
        "UPDATE servers SET name = COALESCE($2, name), \
         owner_id = CASE WHEN $3 = 1 THEN $4 ELSE owner_id END, \
         country = COALESCE($5, country), region = COALESCE($6, region), city = COALESCE($7, city), \
         datacenter = COALESCE($8, datacenter), \
         rental_start = CASE WHEN $9 = 1 THEN $10 ELSE rental_start END, \
         rental_end = CASE WHEN $11 = 1 THEN $12 ELSE rental_end END, \
         cpu_millis = COALESCE($13, cpu_millis), memory_bytes = COALESCE($14, memory_bytes), \
         disk_bytes = COALESCE($15, disk_bytes), max_containers = COALESCE($16, max_containers), updated_at = $17, \
         is_free = COALESCE($18, is_free) \
         WHERE id = $1 RETURNING {COLUMNS}"
    );
    let row = sqlx::query(AssertSqlSafe(sql))
        .bind(id.to_string())
        .bind(change.name.as_deref())
        .bind(i64::from(owner.is_some()))
        .bind(owner.flatten())
        .bind(change.country.as_deref())
        .bind(change.region.as_deref())
        .bind(change.city.as_deref())
        .bind(change.datacenter.as_deref())
        .bind(i64::from(change.rental_start.is_some()))
        .bind(change.rental_start.flatten())
        .bind(i64::from(change.rental_end.is_some()))
        .bind(change.rental_end.flatten())
        .bind(change.cpu_millis)
        .bind(change.memory_bytes)
        .bind(change.disk_bytes)
        .bind(change.max_containers)
        .bind(now_ms() as i64)
        .bind(change.is_free.map(i64::from))
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let server = from_row(&row)?;
    let updated = NewEvent::of_server(EventKind::ServerUpdated, id, server.owner, &server.name, Actor::Operator);
    event::insert(connection, &updated).await?;
    Ok(Some(server))
}

/// Keeps the server's agent out, for now; false where it is not one that could be let in.
pub async fn disable(connection: &mut AnyConnection, id: ServerId) -> Result<bool, StoreError> {
    step(
        connection,
        id,
        EventKind::ServerDisabled,
        "UPDATE servers SET status = 'disabled', updated_at = $2 \
        WHERE id = $1 AND status IN ('created', 'enrolled', 'disabled') RETURNING name, owner_id",
    )
    .await
}

/// Lets a disabled server's agent in again; false where it is not disabled (or let in already).
pub async fn enable(connection: &mut AnyConnection, id: ServerId) -> Result<bool, StoreError> {
    step(
        connection,
        id,
        EventKind::ServerEnabled,
        "UPDATE servers SET status = CASE WHEN public_key IS NULL THEN 'created' ELSE 'enrolled' END, \
        updated_at = $2 WHERE id = $1 AND status IN ('created', 'enrolled', 'disabled') RETURNING name, owner_id",
    )
    .await
}

async fn step(
    connection: &mut AnyConnection,
    id: ServerId,
    kind: EventKind,
    sql: &'static str,
) -> Result<bool, StoreError> {
    let row = sqlx::query(sql).bind(id.to_string()).bind(now_ms() as i64).fetch_optional(&mut *connection).await?;
    let Some(row) = row else { return Ok(false) };
    record(connection, id, kind, &row, Actor::Operator, &[]).await?;
    Ok(true)
}

/// Writes the event of a change that answered `row`, with the server's `name` and `owner_id`.
pub(in crate::store) async fn record(
    connection: &mut AnyConnection,
    id: ServerId,
    kind: EventKind,
    row: &AnyRow,
    actor: Actor,
    details: &[(&str, serde_json::Value)],
) -> Result<(), StoreError> {
    let owner: Option<String> = row.try_get("owner_id")?;
    let owner = owner.map(|text| text.parse()).transpose().map_err(corrupt("servers.owner_id"))?;
    let name: String = row.try_get("name")?;
    let mut told = NewEvent::of_server(kind, id, owner, &name, actor);
    for (field, value) in details {
        told = told.with(field, value.clone());
    }
    event::insert(connection, &told).await?;
    Ok(())
}

/// True where containers are on the server, also those that are being deleted.
pub async fn has_containers(store: &Store, id: ServerId) -> Result<bool, StoreError> {
    let sql = "SELECT id FROM containers WHERE server_id = $1 LIMIT 1";
    let found: Option<String> = sqlx::query_scalar(sql).bind(id.to_string()).fetch_optional(store.reader()).await?;
    Ok(found.is_some())
}

/// Deletes the server; [`StoreError::MissingReference`] where it still has containers, or a move goes on from or to it.
pub async fn delete(connection: &mut AnyConnection, id: ServerId) -> Result<bool, StoreError> {
    // The database would delete them too, but after it has locked the server.
    super::moves::forget_server(connection, id).await?;
    sqlx::query("DELETE FROM join_tokens WHERE server_id = $1").bind(id.to_string()).execute(&mut *connection).await?;
    let row = sqlx::query("DELETE FROM servers WHERE id = $1 RETURNING name, owner_id")
        .bind(id.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(false) };
    // The contract has no kind for it; to whom it matters, the server is gone for good.
    record(connection, id, EventKind::ServerDisabled, &row, Actor::Operator, &[("deleted", true.into())]).await?;
    Ok(true)
}
