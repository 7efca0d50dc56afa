//! What clients send about a token, checked: every bad field at once.

use super::expiry;
use crate::{
    access::{Permissions, template},
    error::ServiceError,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::VerifyingKey;
use hoody_protocol::id::RealmId;
use ipnet::IpNet;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, net::IpAddr};

/// Characters of the longest alias.
const MAX_ALIAS_CHARS: usize = 254;
/// Realms of one token.
const MAX_REALMS: usize = 64;
/// Networks of one token.
const MAX_NETWORKS: usize = 64;
/// Bytes of a public profile's storage, as JSON.
const MAX_STORAGE_BYTES: usize = 16 << 10;

/// A token as sent; `None`: nothing was said. In fields that can be null, `Some(None)` is null.
#[derive(Debug, Default)]
pub struct Input {
    /// For people.
    pub alias: Option<String>,
    /// The tree of permissions.
    pub permissions: Option<Map<String, Value>>,
    /// A template's name.
    pub template: Option<String>,
    /// The realms it is for.
    pub realms: Option<Vec<String>>,
    /// May be used outside of realms.
    pub allow_no_realm: Option<bool>,
    /// Addresses and networks.
    pub networks: Option<Vec<String>>,
    /// May use the vault.
    pub vault_access: Option<bool>,
    /// May read events.
    pub event_access: Option<bool>,
    /// May not make other credentials.
    pub deny_reauthorization: Option<bool>,
    /// Its switch.
    pub is_enabled: Option<bool>,
    /// When it ends, in one of many forms; null: never.
    pub expires_at: Option<Option<Value>>,
    /// Ed25519.
    pub public_key: Option<Option<String>>,
    /// An object, or its text.
    pub public_storage: Option<Option<Value>>,
}

/// The same, checked.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) alias: Option<String>,
    pub(super) permissions: Option<Permissions>,
    pub(super) realms: Option<Vec<RealmId>>,
    pub(super) allow_no_realm: Option<bool>,
    pub(super) networks: Option<Vec<IpNet>>,
    pub(super) vault_access: Option<bool>,
    pub(super) event_access: Option<bool>,
    pub(super) deny_reauthorization: bool,
    pub(super) is_enabled: Option<bool>,
    pub(super) expires_at: Option<Option<i64>>,
    pub(super) public_key: Option<Option<String>>,
    pub(super) public_storage: Option<Option<Map<String, Value>>>,
}

/// Checks all that needs no database.
pub(super) fn check(input: Input) -> Result<Checked, ServiceError> {
    let mut problems = BTreeMap::new();
    let mut keep = |field: &str, problem: String| {
        problems.insert(field.to_owned(), problem);
    };
    let mut checked = Checked {
        allow_no_realm: input.allow_no_realm,
        vault_access: input.vault_access,
        event_access: input.event_access,
        deny_reauthorization: input.deny_reauthorization.unwrap_or(false),
        is_enabled: input.is_enabled,
        ..Checked::default()
    };
    if input.permissions.is_some() && input.template.is_some() {
        keep("permission_template", "cannot stand beside permissions: send one of them".to_owned());
    }
    match input.alias.map(alias).transpose() {
        Ok(alias) => checked.alias = alias,
        Err(problem) => keep("alias", problem),
    }
    match input.permissions.map(|tree| Permissions::from_tree(&tree)).transpose() {
        Ok(permissions) => checked.permissions = permissions,
        Err(error) => keep(&format!("permissions.{}", error.path), error.problem.to_owned()),
    }
    match input.template.map(|name| template::find(&name).ok_or_else(unknown_template)).transpose() {
        Ok(found) => checked.permissions = checked.permissions.or(found.map(|template| template.permissions)),
        Err(problem) => keep("permission_template", problem),
    }
    match input.realms.map(realms).transpose() {
        Ok(realms) => checked.realms = realms,
        Err(problem) => keep("realm_ids", problem),
    }
    match input.networks.map(networks).transpose() {
        Ok(networks) => checked.networks = networks,
        Err(problem) => keep("ip_whitelist", problem),
    }
    let now = chrono::Utc::now();
    match input.expires_at.map(|value| value.map(|value| expiry::parse(&value, now)).transpose()).transpose() {
        Ok(expires_at) => checked.expires_at = expires_at,
        Err(problem) => keep("expires_at", problem),
    }
    match input.public_key.map(|key| key.map(|key| public_key(&key)).transpose()).transpose() {
        Ok(key) => checked.public_key = key,
        Err(problem) => keep("public_key", problem),
    }
    match input.public_storage.map(|value| value.map(storage).transpose()).transpose() {
        Ok(storage) => checked.public_storage = storage,
        Err(problem) => keep("public_storage", problem),
    }
    if problems.is_empty() { Ok(checked) } else { Err(ServiceError::Invalid(problems)) }
}

fn unknown_template() -> String {
    let names: Vec<_> = template::TEMPLATES.iter().map(|template| template.name).collect();
    format!("must be one of {}", names.join(", "))
}

fn alias(text: String) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '_' | '-');
    if (1..=MAX_ALIAS_CHARS).contains(&text.len()) && text.chars().all(plain) {
        return Ok(text);
    }
    Err(format!("must be 1 to {MAX_ALIAS_CHARS} letters, digits, spaces, - or _"))
}

fn realms(texts: Vec<String>) -> Result<Vec<RealmId>, String> {
    if texts.len() > MAX_REALMS {
        return Err(format!("must be at most {MAX_REALMS} ids"));
    }
    let parsed: Result<Vec<RealmId>, _> = texts.iter().map(|text| text.parse()).collect();
    let mut realms = parsed.map_err(|error| format!("must be a list of ids: {error}"))?;
    realms.sort_unstable();
    realms.dedup();
    Ok(realms)
}

fn networks(texts: Vec<String>) -> Result<Vec<IpNet>, String> {
    if texts.len() > MAX_NETWORKS {
        return Err(format!("must be at most {MAX_NETWORKS} addresses or networks"));
    }
    let mut networks = texts.iter().map(|text| network(text.trim())).collect::<Result<Vec<_>, _>>()?;
    networks.sort_unstable();
    networks.dedup();
    Ok(networks)
}

fn network(text: &str) -> Result<IpNet, String> {
    let parsed = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    match parsed {
        // Clients with such addresses are seen with their IPv4 address.
        Some(IpNet::V6(v6)) if v6.addr().to_ipv4_mapped().is_some() => {
            Err(format!("{text} is an IPv4 network in IPv6 form: write it as IPv4"))
        }
        Some(network) => Ok(network.trunc()),
        None => Err(format!("{text} is neither an address nor a network like 192.0.2.0/24 or 2001:db8::/32")),
    }
}

/// An Ed25519 public key, in hexadecimal or base64, as hexadecimal.
pub(super) fn public_key(text: &str) -> Result<String, String> {
    let text = text.trim();
    let bytes = hex::decode(text).ok().or_else(|| STANDARD.decode(text).ok());
    let bytes: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.try_into().ok());
    let key = bytes.and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok()).filter(|key| !key.is_weak());
    key.map(|key| hex::encode(key.as_bytes()))
        .ok_or_else(|| "must be an Ed25519 public key: 32 bytes in hexadecimal or base64".to_owned())
}

fn storage(value: Value) -> Result<Map<String, Value>, String> {
    let value = match value {
        Value::String(text) => serde_json::from_str(&text).map_err(|_| "must be an object".to_owned())?,
        other => other,
    };
    let Value::Object(map) = value else { return Err("must be an object".to_owned()) };
    let bytes = serde_json::to_vec(&map).map_err(|error| error.to_string())?.len();
    if bytes > MAX_STORAGE_BYTES {
        return Err(format!("must be at most {MAX_STORAGE_BYTES} bytes of JSON"));
    }
    Ok(map)
}
