//! A container in the contract's shape.

use super::{runtime_info::RuntimeInfo, transfer::TransferData};
use crate::{
    api::time::rfc3339,
    store::{
        container::{ContainerRow, ServerInfo, Status},
        image_pull::Pull,
    },
};
use hoody_protocol::{id::RealmId, time::now_ms};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use utoipa::ToSchema;

const GIB: f64 = (1u64 << 30) as f64;

/// A container.
#[derive(Debug, Serialize, ToSchema)]
pub struct ContainerData {
    id: String,
    name: String,
    /// The contract's word: creating, running, paused, stopped, failed, deleting and others.
    status: &'static str,
    /// When the server last reported on it; null: not yet.
    reported_at: Option<String>,
    /// How old that report's news is: milliseconds since the server saw the state.
    reported_age_ms: Option<u64>,
    /// The server is connected now.
    server_online: bool,
    project_id: String,
    project_alias: String,
    container_image: String,
    /// As long as the image is being pulled from a registry, and after a pull that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    image_pull: Option<ImagePullData>,
    /// As long as its file system is on its way from another server; with `runtime=true`, also while it is synced.
    #[serde(skip_serializing_if = "Option::is_none")]
    transfer: Option<TransferData>,
    runtime: String,
    server_id: String,
    server_name: String,
    server: ServerData,
    server_expired: bool,
    server_expired_at: Option<String>,
    server_expired_reason: Option<&'static str>,
    /// Its address on the server, once it has one.
    ip_address: Option<String>,
    autostart: bool,
    color: String,
    comment: Option<String>,
    environment_vars: BTreeMap<String, String>,
    realm_ids: Vec<String>,
    /// Limits that it runs under.
    specs: SpecsData,
    ai: bool,
    dev_kit: bool,
    hoody_kit: bool,
    prespawn: bool,
    kvm: bool,
    /// After a creation with KVM: where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    kvm_note: Option<&'static str>,
    ramdisk: bool,
    ramdisk_scope: String,
    /// It belongs to the owner's default project.
    is_default: bool,
    pool_id: Option<String>,
    /// The container it is a copy of.
    source_container_id: Option<String>,
    last_used_snapshot: Option<String>,
    snapshot_count: i64,
    ssh_hostname: Option<String>,
    ssh_public_key: Option<String>,
    #[schema(value_type = Object)]
    volumes: Map<String, Value>,
    has_proxy_domains: bool,
    has_proxy_permissions: bool,
    proxy_permissions_scope: &'static str,
    proxy_domains_count: u32,
    /// With `include_proxy_domains`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    proxy_domains: Option<Vec<Value>>,
    /// With `include_proxy_permissions`; empty: none are set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    proxy_permissions: Option<Map<String, Value>>,
    /// With `runtime=true`: what runs inside; null: nothing, or it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime_info: Option<Option<RuntimeInfo>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
    created_at: String,
    updated_at: String,
}

/// The server that a container is on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ContainerServerData)]
pub(super) struct ServerData {
    name: String,
    country: String,
    region: String,
    city: String,
    datacenter: String,
    expires_at: Option<String>,
    is_free: bool,
    #[schema(value_type = Object)]
    specs: Value,
}

/// The pull of a container's image.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ImagePullData {
    /// The image.
    reference: String,
    /// `queued`, `running` or `failed`.
    state: &'static str,
    bytes_done: u64,
    /// Bytes of all layers; 0: not known yet.
    bytes_total: u64,
    /// Why it failed.
    error: Option<String>,
}

impl From<Pull> for ImagePullData {
    fn from(pull: Pull) -> Self {
        Self {
            reference: pull.reference,
            state: pull.state.as_str(),
            bytes_done: pull.bytes_done,
            bytes_total: pull.bytes_total,
            error: pull.failure.map(|cause| cause.message.to_string()),
        }
    }
}

/// Limits of a container.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SpecsData {
    cpu_cores: f64,
    memory_mb: u64,
    storage_mb: u64,
    /// Mbit/s in each direction; `null`: not limited.
    network_mbit: Option<u32>,
}

/// Something that the owner should know.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Warning {
    #[serde(rename = "type")]
    kind: String,
    message: String,
    expired_at: Option<String>,
}

impl ContainerData {
    /// The same with `proxy_domains` and `proxy_permissions` where wanted; there are none yet.
    pub(super) fn with_proxy(mut self, domains: bool, permissions: bool) -> Self {
        self.proxy_domains = domains.then(Vec::new);
        self.proxy_permissions = permissions.then(Map::new);
        self
    }
}

impl ContainerData {
    /// The same with what runs inside, or a warning where that is not known.
    pub(super) fn with_runtime_info(mut self, seen: Result<Option<RuntimeInfo>, String>) -> Self {
        self.runtime_info = Some(seen.unwrap_or_else(|message| {
            let kind = "runtime_info_unavailable".to_owned();
            self.warnings.push(Warning { kind, message, expired_at: None });
            None
        }));
        self
    }

    /// The same with what is on its way to it, in what runs inside too where that is wanted.
    pub(super) fn with_transfer(mut self, transfer: TransferData) -> Self {
        if let Some(runtime_info) = &mut self.runtime_info {
            runtime_info.get_or_insert_default().transfer = Some(transfer.clone());
        }
        self.transfer = Some(transfer);
        self
    }

    /// The same with what a creation says about KVM.
    pub(super) fn created(mut self) -> Self {
        self.kvm_note = self.kvm.then_some("/dev/kvm is there from the first start on, for the container's root");
        self
    }
}

impl From<ContainerRow> for ContainerData {
    fn from(row: ContainerRow) -> Self {
        let warnings = warnings(&row);
        let ContainerRow { spec, attributes, report, server_info, .. } = row;
        // Without a pool of its own a server is in its renter's default pool, which has the renter's id.
        let pool = server_info.pool.map(|pool| pool.to_string());
        let server_pool = pool.or_else(|| server_info.owner.map(|owner| owner.to_string()));
        let expired = server_info.rental_end.filter(|end| *end <= now_ms() as i64);
        Self {
            id: spec.id.to_string(),
            name: row.name,
            status: row.status.as_str(),
            reported_at: report.as_ref().map(|report| rfc3339(report.at as i64)),
            reported_age_ms: report.as_ref().map(|report| now_ms().saturating_sub(report.at)),
            server_online: server_info.online,
            project_id: spec.project.to_string(),
            project_alias: row.project_alias,
            container_image: row.image_name,
            image_pull: row.pull.map(Into::into),
            transfer: None,
            runtime: row.runtime,
            server_id: row.server.to_string(),
            server_name: server_info.name.clone(),
            server_expired: expired.is_some(),
            server_expired_at: expired.map(rfc3339),
            server_expired_reason: expired.map(|_| "the rental has ended"),
            server: server_info.into(),
            ip_address: report.as_ref().and_then(|report| report.address).map(|address| address.to_string()),
            autostart: spec.autostart,
            color: attributes.color,
            comment: attributes.comment,
            environment_vars: spec.env.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            realm_ids: row.realm_ids.iter().map(RealmId::to_string).collect(),
            specs: SpecsData {
                cpu_cores: f64::from(spec.limits.cpu_millis) / 1000.0,
                memory_mb: spec.limits.memory_bytes >> 20,
                storage_mb: spec.limits.disk_bytes >> 20,
                network_mbit: spec.limits.network_mbit,
            },
            ai: attributes.ai,
            dev_kit: attributes.dev_kit,
            hoody_kit: attributes.hoody_kit,
            prespawn: attributes.prespawn,
            kvm: spec.kvm,
            kvm_note: None,
            ramdisk: spec.ramdisk.is_some(),
            ramdisk_scope: match attributes.ramdisk_scope {
                scope if scope.is_empty() => "container".to_owned(),
                scope => scope,
            },
            is_default: row.project_is_default,
            pool_id: server_pool,
            source_container_id: attributes
                .copied_from
                .or(spec.origin.map(|origin| origin.container))
                .map(|from| from.to_string()),
            last_used_snapshot: row.last_used_snapshot,
            snapshot_count: row.snapshot_count,
            ssh_hostname: None,
            ssh_public_key: spec.ssh_public_key.map(|key| key.to_string()),
            volumes: Map::new(),
            has_proxy_domains: false,
            has_proxy_permissions: false,
            proxy_permissions_scope: "none",
            proxy_domains_count: 0,
            proxy_domains: None,
            proxy_permissions: None,
            runtime_info: None,
            warnings,
            created_at: rfc3339(row.created_at),
            updated_at: rfc3339(row.updated_at),
        }
    }
}

impl From<ServerInfo> for ServerData {
    fn from(server: ServerInfo) -> Self {
        let specs = json!({
            "cpu_cores": server.cpu_millis as f64 / 1000.0,
            "ram_gb": server.memory_bytes as f64 / GIB,
            "disk_gb": server.disk_bytes as f64 / GIB,
            "shared_compute": false,
        });
        Self {
            name: server.name,
            country: server.country,
            region: server.region,
            city: server.city,
            datacenter: server.datacenter,
            expires_at: server.rental_end.map(rfc3339),
            is_free: server.is_free,
            specs,
        }
    }
}

fn warnings(row: &ContainerRow) -> Vec<Warning> {
    let warning = |kind: &str, message: String| Warning { kind: kind.to_owned(), message, expired_at: None };
    let mut warnings = Vec::new();
    let report = row.report.as_ref().filter(|report| report.version >= row.spec.version);
    if let Some(cause) = row.pull.as_ref().and_then(|pull| pull.failure.as_ref()) {
        warnings.push(warning(&cause.code, cause.message.to_string()));
    }
    if let Some(cause) = report.and_then(|report| report.cause.as_ref()) {
        warnings.push(warning(&cause.code, cause.message.to_string()));
    }
    if let Some(cause) = report.and_then(|report| report.firewall_error.as_ref()) {
        warnings.push(warning("firewall_not_in_force", cause.message.to_string()));
    }
    if let Some(cause) = report.and_then(|report| report.limits_error.as_ref()) {
        warnings.push(warning("limits_not_in_force", cause.message.to_string()));
    }
    if let Some(cause) = report.and_then(|report| report.ssh_key_error.as_ref()) {
        warnings.push(warning("ssh_key_not_placed", cause.message.to_string()));
    }
    for failure in report.into_iter().flat_map(|report| report.share_failures.iter()) {
        let name = row.spec.shares.iter().find(|share| share.id == failure.id).map(|share| share.name.as_str());
        if let Some(name) = name {
            let message = format!("the share {name} is not mounted: {}", failure.problem.message());
            warnings.push(warning("share_not_mounted", message));
        }
    }
    let kills = row.report.as_ref().map_or(0, |report| report.oom_kills);
    if kills > 0 && row.status == Status::Running {
        let message =
            format!("{kills} processes were ended since it started because memory ran out: raise specs.memory_mb");
        warnings.push(warning("processes_out_of_memory", message));
    }
    if !row.server_info.online {
        warnings.push(warning("server_offline", "the server is offline: this is its last known state".to_owned()));
    }
    if row.attributes.hoody_kit || row.attributes.dev_kit {
        let message = "the kit is recorded; this platform version does not install it".to_owned();
        warnings.push(warning("kit_not_installed", message));
    }
    warnings
}
