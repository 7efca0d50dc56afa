//! Credentials of upstream proxies: sealed for their container wherever they are stored, opened only to be sent to
//! the container's node.

use crate::{
    keys::{KeyError, Keys},
    store::container::{NetworkKind, NetworkSettings, NetworkState},
};
use hoody_protocol::{
    container::ContainerSpec,
    egress::{Credentials, EgressSpec},
    id::ContainerId,
};

const PURPOSE: &str = "egress-credentials";

/// Sealed credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SealedCredentials {
    /// They do not open.
    #[error("the credentials of container {0} do not open")]
    Key(ContainerId, #[source] KeyError),
    /// What is sealed is something else.
    #[error("the credentials of container {0} are damaged")]
    Damaged(ContainerId),
}

/// Seals credentials for the column; none are empty.
pub(super) fn seal(keys: &Keys, container: ContainerId, credentials: Option<&Credentials>) -> String {
    let Some(credentials) = credentials else { return String::new() };
    let text = serde_json::to_vec(credentials).expect("plain data always encodes");
    keys.seal(PURPOSE, &container.to_string(), &text)
}

/// Opens what [`seal`] sealed.
pub(super) fn open(
    keys: &Keys,
    container: ContainerId,
    sealed: &str,
) -> Result<Option<Credentials>, SealedCredentials> {
    if sealed.is_empty() {
        return Ok(None);
    }
    let opened = keys.open_sealed(PURPOSE, &container.to_string(), sealed);
    let opened = opened.map_err(|error| SealedCredentials::Key(container, error))?;
    serde_json::from_slice(&opened).map(Some).map_err(|_| SealedCredentials::Damaged(container))
}

/// The sealed credentials of one container, sealed for another.
pub fn sealed_for(keys: &Keys, from: ContainerId, to: ContainerId, sealed: &str) -> Result<String, SealedCredentials> {
    Ok(seal(keys, to, open(keys, from, sealed)?.as_ref()))
}

/// Puts the credentials into a specification that is about to be sent.
pub fn complete(keys: &Keys, spec: &mut ContainerSpec, sealed: &str) -> Result<(), SealedCredentials> {
    if let Some(EgressSpec::Proxy(upstream)) = &mut spec.egress {
        upstream.credentials = open(keys, spec.id, sealed)?;
    }
    Ok(())
}

/// The settings and sealed credentials of a container that a node held and nobody knew.
pub fn adopted(keys: &Keys, spec: &ContainerSpec, now: i64) -> (Option<NetworkSettings>, String) {
    let Some(egress) = &spec.egress else { return (None, String::new()) };
    let upstream = match egress {
        EgressSpec::Block => None,
        EgressSpec::Proxy(upstream) => Some(upstream),
    };
    let settings = NetworkSettings {
        kind: upstream.map_or(NetworkKind::Block, |upstream| NetworkKind::of(upstream.kind)),
        endpoint: upstream.map(|upstream| (upstream.host.to_string(), upstream.port)),
        proxy: upstream.map(|upstream| super::upstream::render(&upstream.host, upstream.port)),
        dns_servers: upstream.map(|upstream| upstream.dns.to_vec()).unwrap_or_default(),
        country: None,
        region: None,
        city: None,
        comment: None,
        configured_at: now,
        state: NetworkState::Started,
    };
    (Some(settings), seal(keys, spec.id, egress.credentials()))
}
