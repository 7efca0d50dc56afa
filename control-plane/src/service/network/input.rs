//! A network configuration as clients write it, in all its forms, and as a valid change.

use super::upstream::{ProxyText, named_credentials};
use crate::{error::ServiceError, store::container::NetworkKind};
use hoody_protocol::{container::MAX_DNS_SERVERS, egress::Credentials};
use serde::{Deserialize, Deserializer};
use std::{collections::BTreeMap, net::Ipv4Addr};
use utoipa::ToSchema;

/// Characters of the longest place.
const MAX_PLACE_CHARS: usize = 100;
/// Characters of the longest remark.
const MAX_COMMENT_CHARS: usize = 1000;

/// A change; what is absent stays as it is.
#[derive(Deserialize, Default, ToSchema)]
pub struct NetworkInput {
    /// `socks5`, `http`, `https` or `block`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The upstream: `host:port`, or a URL that can hold user and password, which are never shown again.
    pub proxy: Option<ProxyInput>,
    /// User name for the upstream, beside `password`.
    pub username: Option<String>,
    /// Password for the upstream.
    pub password: Option<String>,
    /// IPv4 addresses of name servers, asked through the upstream.
    #[schema(max_items = 4)]
    pub dns_servers: Option<Vec<String>>,
    /// Where the upstream is, for people; `null` removes it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub country: Option<Option<String>>,
    /// Its region.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub region: Option<Option<String>>,
    /// Its city.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub city: Option<Option<String>>,
    /// A remark.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub comment: Option<Option<String>>,
    /// `proxy`, `block`, or `direct` to stop.
    pub mode: Option<String>,
    /// Another form of `type: block`, which also starts or stops it.
    pub blocking: Option<Switch>,
}

/// An upstream as a text, or an object that also starts or stops it.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ProxyInput {
    /// The text.
    Text(String),
    /// The object.
    Object(ProxyObject),
}

/// The object form of an upstream.
#[derive(Deserialize, Default, ToSchema)]
pub struct ProxyObject {
    /// True: in force from now on; false: not any more.
    pub enabled: Option<bool>,
    /// The upstream's text.
    #[serde(alias = "proxy", alias = "server")]
    pub url: Option<String>,
    /// Its host, beside `port`.
    pub host: Option<String>,
    /// Its port.
    pub port: Option<u16>,
    /// As the outer `type`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// As the outer `username`.
    pub username: Option<String>,
    /// As the outer `password`.
    pub password: Option<String>,
    /// `tcp` or `all`: recorded nowhere, since every protocol is taken.
    pub mode: Option<String>,
    /// Only some ports: not built.
    pub ports: Option<Vec<u16>>,
}

/// Whether something is wanted.
#[derive(Deserialize, Default, ToSchema)]
pub struct Switch {
    /// It is.
    #[serde(default)]
    pub enabled: bool,
}

// Passwords: nothing of these is shown.
impl std::fmt::Debug for NetworkInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NetworkInput")
    }
}

impl std::fmt::Debug for ProxyInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProxyInput")
    }
}

impl std::fmt::Debug for ProxyObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProxyObject")
    }
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Switch({})", self.enabled)
    }
}

/// Tells `null` from an absent field.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A valid change.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct NetworkChange {
    pub(super) kind: Option<NetworkKind>,
    pub(super) proxy: Option<ProxyText>,
    pub(super) credentials: Option<Credentials>,
    pub(super) dns_servers: Option<Vec<Ipv4Addr>>,
    pub(super) country: Option<Option<String>>,
    pub(super) region: Option<Option<String>>,
    pub(super) city: Option<Option<String>>,
    pub(super) comment: Option<Option<String>>,
    /// In force from now on, or not any more.
    pub(super) started: Option<bool>,
    /// A proxy of whichever kind is asked for.
    pub(super) wants_proxy: bool,
}

impl NetworkInput {
    /// Checks every field.
    pub(super) fn check(self) -> Result<NetworkChange, ServiceError> {
        let mut problems = BTreeMap::new();
        let mut problem = |field: &str, text: &str| _ = problems.insert(field.to_owned(), text.to_owned());
        let mut change = NetworkChange::default();
        let (mut kind, mut user, mut password) = (self.kind, self.username, self.password);
        let text = match self.proxy {
            None => None,
            Some(ProxyInput::Text(text)) => Some(text),
            Some(ProxyInput::Object(object)) => {
                if object.ports.is_some_and(|ports| !ports.is_empty()) {
                    return Err(ServiceError::NotImplemented(
                        "a proxy for some ports only is not built: leave proxy.ports out, and every port is taken"
                            .to_owned(),
                    ));
                }
                if object.mode.is_some_and(|mode| mode != "tcp" && mode != "all") {
                    problem("proxy.mode", "must be tcp or all");
                }
                change.started = object.enabled;
                change.wants_proxy = object.enabled == Some(true);
                kind = kind.or(object.kind);
                user = user.or(object.username);
                password = password.or(object.password);
                match (object.url, object.host, object.port) {
                    (Some(url), ..) => Some(url),
                    (None, Some(host), Some(port)) => Some(super::upstream::render(&host, port)),
                    (None, Some(host), None) => Some(host),
                    (None, None, _) => None,
                }
            }
        };
        match kind.as_deref().map(str::parse) {
            Some(Ok(kind)) => change.kind = Some(kind),
            Some(Err(words)) => problem("type", words),
            None => {}
        }
        match self.mode.as_deref() {
            None => {}
            Some("proxy") if change.kind != Some(NetworkKind::Block) => change.wants_proxy = true,
            Some("block" | "blocking") if change.kind.is_none_or(|kind| kind == NetworkKind::Block) => {
                change.kind = Some(NetworkKind::Block);
            }
            Some("direct" | "none") => change.started = Some(false),
            Some("proxy" | "block" | "blocking") => problem("mode", "contradicts type"),
            Some(_) => problem("mode", "must be proxy, block or direct"),
        }
        match self.blocking {
            Some(Switch { enabled: true })
                if change.wants_proxy || change.kind.is_some_and(|kind| kind != NetworkKind::Block) =>
            {
                problem("blocking", "contradicts the proxy: ask for one of them");
            }
            Some(Switch { enabled: true }) => (change.kind, change.started) = (Some(NetworkKind::Block), Some(true)),
            Some(Switch { enabled: false }) => change.started = change.started.or(Some(false)),
            None => {}
        }
        match text.as_deref().map(ProxyText::parse) {
            Some(Ok(proxy)) => {
                if proxy.kind.is_some() && change.kind.is_some() && proxy.kind != change.kind {
                    problem("proxy", "has another scheme than type says");
                }
                change.kind = change.kind.or(proxy.kind);
                change.credentials = proxy.credentials.clone();
                change.proxy = Some(proxy);
            }
            Some(Err(text)) => problem("proxy", text),
            None => {}
        }
        match (user, password) {
            (Some(user), Some(password)) => match named_credentials(&user, &password) {
                Ok(credentials) => change.credentials = Some(credentials),
                Err(text) => problem("password", text),
            },
            (None, None) => {}
            _ => problem("password", "is needed beside username, and the other way round"),
        }
        match self.dns_servers.map(dns_servers).transpose() {
            Ok(servers) => change.dns_servers = servers,
            Err(text) => problem("dns_servers", &text),
        }
        for (field, value, target, most) in [
            ("country", self.country, &mut change.country, MAX_PLACE_CHARS),
            ("region", self.region, &mut change.region, MAX_PLACE_CHARS),
            ("city", self.city, &mut change.city, MAX_PLACE_CHARS),
            ("comment", self.comment, &mut change.comment, MAX_COMMENT_CHARS),
        ] {
            if value.iter().flatten().any(|text| text.chars().count() > most || text.contains('\0')) {
                problem(field, &format!("must be at most {most} characters"));
            }
            *target = value;
        }
        if problems.is_empty() { Ok(change) } else { Err(ServiceError::Invalid(problems)) }
    }
}

fn dns_servers(texts: Vec<String>) -> Result<Vec<Ipv4Addr>, String> {
    if texts.len() > MAX_DNS_SERVERS {
        return Err(format!("must be at most {MAX_DNS_SERVERS} addresses"));
    }
    let mut servers = Vec::new();
    for text in texts {
        let server: Ipv4Addr = text.trim().parse().map_err(|_| "must be IPv4 addresses".to_owned())?;
        if server.is_unspecified() || server.is_multicast() || server.is_broadcast() || server.is_loopback() {
            return Err(format!("{server} is no address of a name server"));
        }
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    Ok(servers)
}
