//! What runs in a container, in the contract's shape. Displays and terminals, which the contract has too, are of kits that
//! are not installed, and left out. Texts are what programs inside call themselves: made printable once more, for the node
//! may not have.

use super::transfer::TransferData;
use crate::{api::time::rfc3339, service::container::Unseen};
use hoody_protocol::{
    bounded::Text,
    inspection::{Inspection, ProcessInfo, ServiceInfo, SocketInfo},
};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// What runs in a container.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct RuntimeInfo {
    /// Sockets that wait for others.
    network_services: Vec<NetworkService>,
    /// Services of systemd; absent where it does not run or did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<Vec<Service>>,
    /// Processes, with their numbers inside.
    processes: Vec<Process>,
    process_count: u32,
    /// There is more than is shown.
    truncated: bool,
    /// A file system that is on its way to the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transfer: Option<TransferData>,
}

#[derive(Debug, Serialize, ToSchema)]
struct NetworkService {
    protocol: String,
    ip: String,
    port: u16,
    user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SystemdService)]
struct Service {
    name: String,
    unit: String,
    description: String,
    load: String,
    /// What was loaded, in one line.
    loaded: Option<String>,
    active: String,
    sub: String,
    /// State and substate in one line.
    status: String,
    enabled: Option<bool>,
    vendor_preset: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    main_pid: Option<u32>,
    fragment_path: Option<String>,
    drop_in: Option<String>,
    docs: Option<String>,
    control_group: Option<String>,
    /// Processor time used, for example `1.250s`.
    cpu_usage: Option<String>,
    /// Memory in use, for example `12.5M`.
    memory: Option<String>,
    tasks: Option<u64>,
    restart_count: Option<u64>,
    /// When it was last started, where systemd has started it again.
    last_restart: Option<String>,
    /// When its state last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ContainerProcess)]
struct Process {
    pid: u32,
    parent_pid: u32,
    user: String,
    name: String,
    args: String,
    /// The kernel's letter: R, S, D, Z, T and others.
    state: String,
    memory_bytes: u64,
    started_at: String,
}

/// For the answer; why it is not known is a sentence.
pub(super) fn of(seen: Result<Option<Arc<Inspection>>, Unseen>) -> Result<Option<RuntimeInfo>, String> {
    match seen {
        Ok(seen) => Ok(seen.as_deref().map(RuntimeInfo::from)),
        Err(reason) => Err(format!("what runs inside is not known: {reason}")),
    }
}

fn text<const MAX: usize>(text: &Text<MAX>) -> String {
    Text::<MAX>::printable(text).to_string()
}

fn told<const MAX: usize>(text: &Text<MAX>) -> Option<String> {
    (!text.is_empty()).then(|| self::text(text))
}

impl From<&Inspection> for RuntimeInfo {
    fn from(seen: &Inspection) -> Self {
        Self {
            network_services: seen.sockets.iter().map(NetworkService::from).collect(),
            services: seen.services.as_ref().map(|services| services.iter().map(Service::from).collect()),
            processes: seen.processes.iter().map(Process::from).collect(),
            process_count: seen.process_count,
            truncated: seen.truncated,
            transfer: None,
        }
    }
}

impl From<&SocketInfo> for NetworkService {
    fn from(socket: &SocketInfo) -> Self {
        let owner = socket.owner.as_ref();
        Self {
            protocol: text(&socket.protocol),
            ip: socket.ip.to_string(),
            port: socket.port,
            user: text(&socket.user),
            pid: owner.map(|owner| owner.pid),
            program: owner.map(|owner| text(&owner.name)),
            path: owner.map(|owner| text(&owner.path)),
            args: owner.map(|owner| text(&owner.args)),
        }
    }
}

impl From<&ServiceInfo> for Service {
    fn from(service: &ServiceInfo) -> Self {
        let unit = text(&service.unit);
        let moment = |at: Option<u64>| at.and_then(|at| i64::try_from(at).ok()).map(rfc3339);
        let loaded = told(&service.load).map(|load| match (told(&service.fragment_path), told(&service.enabled)) {
            (Some(path), Some(enabled)) => format!("{load} ({path}; {enabled})"),
            (Some(path), None) => format!("{load} ({path})"),
            (None, _) => load,
        });
        Self {
            name: unit.strip_suffix(".service").unwrap_or(&unit).to_owned(),
            description: text(&service.description),
            load: text(&service.load),
            loaded,
            active: text(&service.active),
            sub: text(&service.sub),
            status: format!("{} ({})", text(&service.active), text(&service.sub)),
            enabled: match service.enabled.as_str() {
                "enabled" | "enabled-runtime" => Some(true),
                "disabled" | "masked" | "masked-runtime" => Some(false),
                // Static, generated, alias: it is not for its owner to say.
                _ => None,
            },
            vendor_preset: told(&service.preset),
            pid: service.main_pid,
            main_pid: service.main_pid,
            fragment_path: told(&service.fragment_path),
            drop_in: told(&service.drop_in),
            docs: told(&service.docs),
            control_group: told(&service.control_group),
            cpu_usage: service.cpu_ns.map(|ns| format!("{:.3}s", ns as f64 / 1e9)),
            memory: service.memory_bytes.map(|bytes| format!("{:.1}M", bytes as f64 / f64::from(1 << 20))),
            tasks: service.tasks,
            restart_count: service.restarts,
            last_restart: moment(service.active_since.filter(|_| service.restarts.is_some_and(|count| count > 0))),
            since: moment(service.since),
            unit,
        }
    }
}

impl From<&ProcessInfo> for Process {
    fn from(process: &ProcessInfo) -> Self {
        Self {
            pid: process.pid,
            parent_pid: process.parent,
            user: text(&process.user),
            name: text(&process.name),
            args: text(&process.args),
            state: text(&process.state),
            memory_bytes: process.memory_bytes,
            started_at: rfc3339(i64::try_from(process.started_at).unwrap_or(i64::MAX)),
        }
    }
}
