//! Servers on the wire. What is not known (prices, benchmark scores, traffic) is null or absent.

use crate::{access::Role, api::time::rfc3339, store::server::Server};
use hoody_protocol::time::now_ms;
use serde::Serialize;
use utoipa::ToSchema;

const GB: f64 = 1e9;
const MILLIS_PER_CORE: f64 = 1e3;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServerCpu)]
pub(super) struct Cpu {
    cores: Option<f64>,
    model: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ram {
    capacity_gb: f64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Disks {
    total_gb: f64,
    summary: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Specs {
    cpu: Option<Cpu>,
    ram: Option<Ram>,
    disks: Option<Disks>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Used {
    used: i64,
    max: i64,
}

/// The machine.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Machine {
    id: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    country: String,
    region: String,
    city: String,
    datacenter: String,
    container_capacity: Used,
    /// Its agent is connected.
    is_ready: bool,
    specs: Specs,
}

/// What the caller may do with a server that they or their pool rent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServerAccess)]
pub(super) struct Access {
    /// `owner`, `admin` or `user`: of its pool.
    role: &'static str,
    can_place_containers: bool,
    /// Rent it on, extend it, change its rental.
    can_manage_rental: bool,
    can_run_commands: bool,
}

impl From<Role> for Access {
    fn from(role: Role) -> Self {
        let manages = role >= Role::Admin;
        Self { role: role.as_str(), can_place_containers: true, can_manage_rental: manages, can_run_commands: manages }
    }
}

/// A server with its rental.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Rental {
    id: String,
    server_id: Option<String>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rental_start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rental_end: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining_days: Option<i64>,
    /// Days since it began, one that has begun not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_days: Option<i64>,
    is_free_tier: bool,
    pool_id: Option<String>,
    access: Access,
    server: Option<Machine>,
}

/// A server that can be rented.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Offer {
    id: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    country: String,
    region: String,
    city: String,
    datacenter: String,
    featured: bool,
    is_ready: bool,
    specs: Specs,
}

/// Gigabytes with two decimals.
fn gigabytes(bytes: i64) -> f64 {
    (bytes as f64 / GB * 100.0).round() / 100.0
}

fn model(server: &Server) -> Option<String> {
    server.facts.as_ref().map(|facts| facts.cpu_model.to_string())
}

fn specs(server: &Server) -> Specs {
    let capacity = server.capacity;
    let cpu = Cpu { cores: Some(capacity.cpu_millis as f64 / MILLIS_PER_CORE), model: model(server) };
    let disk_gb = gigabytes(capacity.disk_bytes);
    Specs {
        cpu: (capacity.cpu_millis > 0).then_some(cpu),
        ram: (capacity.memory_bytes > 0).then(|| Ram { capacity_gb: gigabytes(capacity.memory_bytes) }),
        disks: (capacity.disk_bytes > 0).then(|| Disks { total_gb: disk_gb, summary: format!("{disk_gb} GB") }),
    }
}

impl From<(Server, Role)> for Rental {
    fn from((server, role): (Server, Role)) -> Self {
        let now = now_ms() as i64;
        let ended = server.rental_end.is_some_and(|end| end <= now);
        Self {
            id: server.id.to_string(),
            server_id: Some(server.id.to_string()),
            status: if ended { "expired" } else { "active" },
            rental_start: server.rental_start.map(rfc3339),
            rental_end: server.rental_end.map(rfc3339),
            // A day that has begun counts whole.
            remaining_days: server.rental_end.map(|end| ((end - now).max(0) + DAY_MS - 1) / DAY_MS),
            usage_days: server
                .rental_start
                .map(|start| (server.rental_end.unwrap_or(now).min(now) - start).max(0) / DAY_MS),
            is_free_tier: server.is_free,
            pool_id: server.pool.map(|pool| pool.to_string()),
            access: role.into(),
            server: Some(Machine {
                id: server.id.to_string(),
                model: model(&server),
                specs: specs(&server),
                container_capacity: Used { used: server.used.containers, max: server.capacity.containers },
                is_ready: server.online,
                name: server.name,
                country: server.place.country,
                region: server.place.region,
                city: server.place.city,
                datacenter: server.place.datacenter,
            }),
        }
    }
}

impl From<Server> for Offer {
    fn from(server: Server) -> Self {
        Self {
            id: server.id.to_string(),
            model: model(&server),
            specs: specs(&server),
            featured: false,
            is_ready: server.online,
            name: server.name,
            country: server.place.country,
            region: server.place.region,
            city: server.place.city,
            datacenter: server.place.datacenter,
        }
    }
}
