//! Servers: what tenants rent, and what operators do with them.

mod browse;
pub mod drain;
pub mod operate;
pub mod pool;
pub mod unknown;

pub use browse::Filter;

use crate::{
    access::{Role, object},
    app::App,
    caller::Caller,
    error::ServiceError,
    nodes::Measured,
    store::{
        pool as members,
        server::{self as store, Server},
        server_pool,
    },
};
use hoody_protocol::{id::ServerId, stats::NodeStats, time::now_ms};

/// Heartbeats after which a measurement is stale.
pub(in crate::service) const STALE_AFTER_HEARTBEATS: u32 = 3;
const SERVER: &str = "server";

/// The servers that the caller rents, or may use through a pool, and what the caller is on each.
pub async fn rented(app: &App, caller: &Caller) -> Result<Vec<(Server, Role)>, ServiceError> {
    let servers = store::usable_by(&app.store, caller.user).await?;
    let roles = members::server_roles(app.store.reader(), caller.user, None).await?;
    // Whoever lost one between the two looks does not see it any more.
    Ok(servers.into_iter().filter_map(|server| roles.get(&server.id).map(|role| (server, *role))).collect())
}

/// A server that the caller rents, or may use through a pool, and what the caller is on it.
pub async fn with_role(app: &App, caller: &Caller, id: ServerId) -> Result<(Server, Role), ServiceError> {
    let server = get(app, caller, id).await?;
    let role = object::on_server(app.store.reader(), caller, id, Role::User).await?;
    Ok((server, role))
}

/// A server that the caller rents, or may use through a pool.
pub async fn get(app: &App, caller: &Caller, id: ServerId) -> Result<Server, ServiceError> {
    store::usable(&app.store, id, caller.user).await?.ok_or(ServiceError::NotFound(SERVER))
}

/// The servers that could be rented and that the filter accepts.
pub async fn available(app: &App, filter: &Filter) -> Result<Vec<Server>, ServiceError> {
    let mut servers = store::available(&app.store).await?;
    servers.retain(|server| filter.accepts(server));
    Ok(servers)
}

/// The last measurement of a server and how old it is.
#[derive(Debug)]
pub struct Runtime {
    /// The server.
    pub server: Server,
    /// The measurement; `None` before the first.
    pub stats: Option<NodeStats>,
    /// When it was taken; without one, when the server was last heard of.
    pub taken_at: i64,
    /// How long ago it arrived, milliseconds.
    pub age_ms: u64,
    /// Older than the server should let it become.
    pub stale: bool,
    /// The highest threshold that its storage pool has passed, percent; 0: none.
    pub pool_level: i64,
}

/// The last measurement of a server that the caller may use.
pub async fn runtime(app: &App, caller: &Caller, id: ServerId) -> Result<Runtime, ServiceError> {
    let server = get(app, caller, id).await?;
    let pool_level = server_pool::read(&app.store, id).await?.map_or(0, |told| told.level);
    let now = now_ms();
    let stale_after = (app.config.heartbeat_interval * STALE_AFTER_HEARTBEATS).as_millis() as u64;
    Ok(match app.nodes.measured(id).await {
        Some(Measured { value, taken_at, received_at }) => {
            let age_ms = now.saturating_sub(received_at);
            let stale = age_ms > stale_after;
            Runtime { server, stats: Some(value), taken_at: taken_at as i64, age_ms, stale, pool_level }
        }
        None => {
            let heard_of = server.online_changed_at.unwrap_or(server.created_at);
            let age_ms = now.saturating_sub(heard_of as u64);
            Runtime { server, stats: None, taken_at: heard_of, age_ms, stale: true, pool_level }
        }
    })
}
