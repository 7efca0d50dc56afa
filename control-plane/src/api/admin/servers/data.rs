//! Servers as operators see and set them.

use crate::{
    api::time::rfc3339,
    app::App,
    error::ServiceError,
    service::server::operate,
    store::server::{Capacity, Change, Server},
};
use chrono::DateTime;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// A server as sent. An update changes what is there and keeps the rest.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ServerInput {
    /// Unique; letters, digits, `-`, `_` and `.`.
    #[schema(min_length = 1, max_length = 64)]
    name: Option<String>,
    /// The tenant: an id, user name or e-mail address; null: nobody.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    owner: Option<Option<String>>,
    /// Given to the free tier, one account each, and not for rent.
    is_free: Option<bool>,
    country: Option<String>,
    region: Option<String>,
    city: Option<String>,
    datacenter: Option<String>,
    /// RFC 3339.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    rental_start: Option<Option<String>>,
    /// RFC 3339.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    rental_end: Option<Option<String>>,
    /// Thousandths of a core that containers may have; without it, what the agent reports.
    cpu_millis: Option<i64>,
    /// Memory that containers may have; without it, what the agent reports.
    memory_bytes: Option<i64>,
    /// Disk that containers may have; without it, what the agent reports.
    disk_bytes: Option<i64>,
    max_containers: Option<i64>,
}

/// Tells null (`Some(None)`) from absent (`None`).
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

fn time(field: &str, text: Option<Option<String>>) -> Result<Option<Option<i64>>, ServiceError> {
    let Some(Some(text)) = text else { return Ok(text.map(|_| None)) };
    match DateTime::parse_from_rfc3339(&text) {
        Ok(time) => Ok(Some(Some(time.timestamp_millis()))),
        Err(_) => Err(ServiceError::invalid(field, "must be a time such as 2026-01-31T12:00:00Z, or null")),
    }
}

impl ServerInput {
    /// What is to change, with the owner looked up.
    pub(super) async fn into_change(self, app: &App) -> Result<Change, ServiceError> {
        let owner = match self.owner {
            None => None,
            Some(None) => Some(None),
            Some(Some(named)) => Some(Some(operate::account(app, &named).await?)),
        };
        Ok(Change {
            owner,
            is_free: self.is_free,
            rental_start: time("rental_start", self.rental_start)?,
            rental_end: time("rental_end", self.rental_end)?,
            name: self.name,
            country: self.country,
            region: self.region,
            city: self.city,
            datacenter: self.datacenter,
            cpu_millis: self.cpu_millis,
            memory_bytes: self.memory_bytes,
            disk_bytes: self.disk_bytes,
            max_containers: self.max_containers,
        })
    }
}

/// An amount of everything that containers take.
#[derive(Debug, Serialize, ToSchema)]
struct Amount {
    /// Thousandths of a core.
    cpu_millis: i64,
    memory_bytes: i64,
    disk_bytes: i64,
    containers: i64,
}

impl From<Capacity> for Amount {
    fn from(capacity: Capacity) -> Self {
        let Capacity { cpu_millis, memory_bytes, disk_bytes, containers } = capacity;
        Self { cpu_millis, memory_bytes, disk_bytes, containers }
    }
}

/// What the agent said about its machine.
#[derive(Debug, Serialize, ToSchema)]
struct Facts {
    hostname: String,
    architecture: String,
    kernel: String,
    os: String,
    cpu_model: String,
    cpu_cores: u32,
    memory_bytes: u64,
    disk_bytes: u64,
}

/// An agent with the identity of a server that another agent has.
#[derive(Debug, Serialize, ToSchema)]
struct Conflict {
    at: String,
    remote_address: String,
    hostname: String,
    boot_id: String,
}

/// A server as operators see it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AdminServerData)]
pub(super) struct ServerData {
    id: String,
    name: String,
    /// `created`, `enrolled`, `disabled` or `revoked`.
    status: String,
    /// Its agent is connected.
    online: bool,
    online_changed_at: Option<String>,
    owner_id: Option<String>,
    is_free: bool,
    country: String,
    region: String,
    city: String,
    datacenter: String,
    rental_start: Option<String>,
    rental_end: Option<String>,
    agent_version: Option<String>,
    facts: Option<Facts>,
    capacity: Amount,
    used: Amount,
    /// The last agent that came with this server's identity while its link was up, and was refused: the server
    /// was probably copied.
    identity_conflict: Option<Conflict>,
    created_at: String,
    updated_at: String,
}

impl From<Server> for ServerData {
    fn from(server: Server) -> Self {
        Self {
            id: server.id.to_string(),
            name: server.name,
            status: server.status,
            online: server.online,
            online_changed_at: server.online_changed_at.map(rfc3339),
            is_free: server.is_free,
            owner_id: server.owner.map(|owner| owner.to_string()),
            country: server.place.country,
            region: server.place.region,
            city: server.place.city,
            datacenter: server.place.datacenter,
            rental_start: server.rental_start.map(rfc3339),
            rental_end: server.rental_end.map(rfc3339),
            agent_version: server.agent_version,
            facts: server.facts.map(|facts| Facts {
                hostname: facts.hostname.to_string(),
                architecture: facts.architecture.to_string(),
                kernel: facts.kernel.to_string(),
                os: facts.os.to_string(),
                cpu_model: facts.cpu_model.to_string(),
                cpu_cores: facts.cpu_cores,
                memory_bytes: facts.memory_bytes,
                disk_bytes: facts.disk_bytes,
            }),
            capacity: server.capacity.into(),
            used: server.used.into(),
            identity_conflict: server.identity_conflict.map(|conflict| Conflict {
                at: rfc3339(conflict.at as i64),
                remote_address: conflict.remote,
                hostname: conflict.hostname,
                boot_id: conflict.boot_id,
            }),
            created_at: rfc3339(server.created_at),
            updated_at: rfc3339(server.updated_at),
        }
    }
}
