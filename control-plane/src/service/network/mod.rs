//! A container's network configuration: its egress through an upstream proxy, or blocked. In force while it is
//! started; part of the container's desired state then, so that the node puts it in force before anything leaves.

mod input;
mod sealed;
mod upstream;

pub use input::{NetworkInput, ProxyInput, ProxyObject, Switch};
pub use sealed::{SealedCredentials, adopted, complete, sealed_for};
pub(crate) use upstream::fuzzing as upstream_fuzzing;

use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    service::container::{self, Effect, Progress, change},
    store::container::{ContainerRow, NetworkKind, NetworkSettings, NetworkState},
};
use hoody_protocol::{
    address::DialRules,
    bounded::Text,
    container::{Cause, Desired, State},
    egress::{EgressSpec, Upstream},
    id::ContainerId,
    time::now_ms,
};
use input::NetworkChange;
use std::net::{IpAddr, SocketAddr};
use upstream::ProxyText;

/// The container with its configuration.
pub async fn get(app: &App, caller: &Caller, id: ContainerId) -> Result<ContainerRow, ServiceError> {
    container::get(app, caller, id).await
}

/// Changes the configuration. One that is in force is replaced at once; a new one waits for its start, where the
/// input does not say so itself.
pub async fn update(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    input: NetworkInput,
) -> Result<(ContainerRow, Progress), ServiceError> {
    let wanted = input.check()?;
    let row = container::get(app, caller, id).await?;
    if let Some(proxy) = &wanted.proxy {
        let kind = kind_of(row.attributes.network.as_ref(), &wanted).unwrap_or(NetworkKind::Socks5);
        upstream::check_host(&dial_rules(app), &proxy.host, proxy.port(kind)).await?;
    }
    edit(app, caller, id, |row| {
        let before = row.attributes.network.clone();
        let (settings, credentials) = merged(app, row, wanted)?;
        let same = NetworkSettings { configured_at: 0, ..settings.clone() };
        let unchanged = before.map(|before| NetworkSettings { configured_at: 0, ..before }) == Some(same);
        if let Some(sealed) = &credentials {
            row.egress_credentials.clone_from(sealed);
        } else if unchanged {
            return Ok(Effect::Nothing);
        }
        row.attributes.network = Some(settings);
        put_in_force(row, credentials.is_some())
    })
    .await
}

/// Puts the configuration in force, or takes it back: what the firewall lets pass leaves then directly.
pub async fn set_started(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    started: bool,
) -> Result<(ContainerRow, Progress), ServiceError> {
    edit(app, caller, id, |row| {
        let Some(settings) = &mut row.attributes.network else {
            return Err(ServiceError::Conflict(
                "the container has no network configuration: configure one first".to_owned(),
            ));
        };
        let state = if started { NetworkState::Started } else { NetworkState::Stopped };
        if settings.state == state {
            return Ok(Effect::Nothing);
        }
        settings.state = state;
        put_in_force(row, false)
    })
    .await
}

/// Forgets the configuration, credentials included.
pub async fn remove(app: &App, caller: &Caller, id: ContainerId) -> Result<(ContainerRow, Progress), ServiceError> {
    edit(app, caller, id, |row| {
        if row.attributes.network.take().is_none() {
            return Ok(Effect::Nothing);
        }
        row.egress_credentials.clear();
        put_in_force(row, false)
    })
    .await
}

/// How the configuration fares, as far as the node has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The contract's word.
    pub status: &'static str,
    /// True where it does on the node what was asked.
    pub is_running: bool,
    /// When the node said so; `None` where it has not yet.
    pub checked_at: Option<i64>,
    /// Why not.
    pub cause: Option<Cause>,
}

/// How the container's configuration fares.
pub fn standing(row: &ContainerRow) -> Standing {
    let idle = |status| Standing { status, is_running: false, checked_at: None, cause: None };
    match row.attributes.network.as_ref().map(|network| network.state) {
        None | Some(NetworkState::Configured) => return idle("configured"),
        Some(NetworkState::Stopped) => return idle("stopped"),
        Some(NetworkState::Started) => {}
    }
    let Some(report) = row.report.as_ref().filter(|report| report.version >= row.spec.version) else {
        return idle("configured");
    };
    let checked_at = i64::try_from(report.at).ok();
    if let Some(cause) = &report.firewall_error {
        return Standing { status: "error", is_running: false, checked_at, cause: Some(cause.clone()) };
    }
    match &report.egress {
        Some(egress) if egress.working => Standing { status: "running", is_running: true, checked_at, cause: None },
        Some(egress) => Standing { status: "error", is_running: false, checked_at, cause: egress.cause.clone() },
        // An agent that does not know of egress would run the container without it.
        None if matches!(report.state, State::Running | State::Paused) && report.converged => {
            let cause = Cause::new("agent_too_old", "the server's agent does not support this: it must be upgraded");
            Standing { status: "error", is_running: false, checked_at, cause: Some(cause) }
        }
        None => Standing { checked_at, ..idle("configured") },
    }
}

/// Which addresses nodes may dial for tenants.
fn dial_rules(app: &App) -> DialRules {
    let config = &app.config;
    let public = config.node_public_addresses.iter().filter_map(|address| address.parse::<SocketAddr>().ok());
    let own = public.map(|address| address.ip()).filter(|address: &IpAddr| !address.is_unspecified());
    DialRules { allowed: config.egress_allowed_networks.clone(), own: own.map(Into::into).collect() }
}

async fn edit(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    edit: impl FnOnce(&mut ContainerRow) -> Result<Effect, ServiceError>,
) -> Result<(ContainerRow, Progress), ServiceError> {
    let (row, progress, ()) = change(app, caller, id, |row| {
        if row.spec.desired == Desired::Deleted {
            return Err(ServiceError::Conflict("the container is being deleted".to_owned()));
        }
        edit(row).map(|effect| (effect, ()))
    })
    .await?;
    let report = row.report.as_ref().filter(|report| report.version >= row.spec.version);
    match report.and_then(|report| report.firewall_error.clone()) {
        // What was in force before still is.
        Some(cause) => Err(ServiceError::NodeFailed(cause)),
        None => Ok((row, progress)),
    }
}

/// The kind that the configuration has after the change.
fn kind_of(before: Option<&NetworkSettings>, wanted: &NetworkChange) -> Option<NetworkKind> {
    let before = before.map(|before| before.kind);
    let proxy = before.filter(|kind| *kind != NetworkKind::Block);
    // "A proxy", of whichever kind: the one that is there.
    wanted.kind.or(if wanted.wants_proxy || wanted.proxy.is_some() { proxy } else { before })
}

/// The settings after the change, and the sealed credentials where they change.
fn merged(
    app: &App,
    row: &ContainerRow,
    wanted: NetworkChange,
) -> Result<(NetworkSettings, Option<String>), ServiceError> {
    let before = row.attributes.network.as_ref();
    let Some(kind) = kind_of(before, &wanted) else {
        let field = if wanted.wants_proxy { "proxy" } else { "type" };
        return Err(ServiceError::invalid(field, "is required: the container has no such configuration yet"));
    };
    if kind == NetworkKind::Block && wanted.proxy.is_some() {
        return Err(ServiceError::invalid("proxy", "has no place beside type block"));
    }
    let former = before.and_then(|before| before.endpoint.clone().zip(before.proxy.clone()));
    let (endpoint, proxy) = match (&wanted.proxy, former) {
        _ if kind == NetworkKind::Block => (None, None),
        (Some(proxy), _) => (Some((proxy.host.clone(), proxy.port(kind))), Some(proxy.shown.clone())),
        (None, Some((endpoint, text))) => {
            if ProxyText::parse(&text).is_ok_and(|text| text.kind.is_some_and(|of| of != kind)) {
                return Err(ServiceError::invalid("proxy", "is required: the one before is of another type"));
            }
            (Some(endpoint), Some(text))
        }
        (None, None) => return Err(ServiceError::invalid("proxy", "is required for this type")),
    };
    if endpoint.is_none() && wanted.credentials.is_some() {
        return Err(ServiceError::invalid("password", "has no place beside type block"));
    }
    let moved = before.is_none_or(|before| (before.kind, &before.endpoint) != (kind, &endpoint));
    let id = row.spec.id;
    let held = sealed::open(&app.keys, id, &row.egress_credentials).map_err(ServiceError::internal)?;
    let next = match wanted.credentials {
        Some(given) => Some(given),
        // Credentials are for one endpoint: another one is not told them.
        None if moved => None,
        None => held.clone(),
    };
    let credentials = (next != held).then(|| sealed::seal(&app.keys, id, next.as_ref()));
    let state = match (wanted.started, before.map(|before| before.state)) {
        (Some(true), _) => NetworkState::Started,
        (Some(false), Some(NetworkState::Started | NetworkState::Stopped)) => NetworkState::Stopped,
        (_, state) => state.unwrap_or(NetworkState::Configured),
    };
    let text = |given: Option<Option<String>>, former: fn(&NetworkSettings) -> &Option<String>| match given {
        Some(given) => given,
        None => before.and_then(|before| former(before).clone()),
    };
    let settings = NetworkSettings {
        kind,
        endpoint,
        proxy,
        dns_servers: wanted
            .dns_servers
            .unwrap_or_else(|| before.map(|before| before.dns_servers.clone()).unwrap_or_default()),
        country: text(wanted.country, |before| &before.country),
        region: text(wanted.region, |before| &before.region),
        city: text(wanted.city, |before| &before.city),
        comment: text(wanted.comment, |before| &before.comment),
        configured_at: now_ms() as i64,
        state,
    };
    Ok((settings, credentials))
}

/// Makes the specification say what the settings do; `renewed`: there are other credentials.
fn put_in_force(row: &mut ContainerRow, renewed: bool) -> Result<Effect, ServiceError> {
    let settings = row.attributes.network.as_ref().filter(|settings| settings.state == NetworkState::Started);
    let egress = match settings {
        None => None,
        Some(settings) => Some(egress(settings)?),
    };
    let effect = match &egress {
        Some(EgressSpec::Proxy(_)) if renewed => Effect::Desired,
        _ if row.spec.egress != egress => Effect::Desired,
        _ => Effect::Record,
    };
    row.spec.egress = egress;
    Ok(effect)
}

fn egress(settings: &NetworkSettings) -> Result<EgressSpec, ServiceError> {
    let (Some(kind), Some((host, port))) = (settings.kind.upstream(), &settings.endpoint) else {
        return Ok(EgressSpec::Block);
    };
    let egress = EgressSpec::Proxy(Upstream {
        kind,
        host: Text::try_from(host.as_str()).map_err(ServiceError::internal)?,
        port: *port,
        // They are sealed beside the specification.
        credentials: None,
        dns: settings.dns_servers.clone().try_into().map_err(ServiceError::internal)?,
    });
    egress.check().map_err(|problem| ServiceError::invalid("proxy", problem))?;
    Ok(egress)
}
