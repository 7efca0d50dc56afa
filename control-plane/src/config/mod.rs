//! Settings: flags, then environment (`HOODY_…`), then a TOML file, then defaults; the first that says
//! something wins. [`Settings`] is what a person writes, [`Config`] what the process works with.

mod mail;
mod oauth;
mod resolve;
mod settings;
mod span;

pub use mail::{Mail, Smtp, SmtpTls};
pub use oauth::{OAuth, OAuthClient, star_url};
pub use resolve::ConfigError;
pub use settings::Settings;
pub use span::Span;

use crate::keys::{MasterKey, MasterKeyError};
use hoody_protocol::container::Limits;
use ipnet::IpNet;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = KIB << 10;
const GIB: u64 = MIB << 10;

/// Limits of a container whose creation names none.
const DEFAULT_LIMITS: Limits =
    Limits { cpu_millis: 1_000, memory_bytes: 512 * MIB, disk_bytes: 4 * GIB, pids: 512, network_mbit: Some(1_000) };

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Certificate chain and key of the HTTP listener, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The chain.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// Requests a client may send in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// Per user.
    pub authenticated: u32,
    /// Per address, without a valid token.
    pub anonymous: u32,
    /// Logins per address and account; of an account from everywhere, and of an address to everything, ten
    /// times as many.
    pub login: u32,
    /// Sign-ups and mails asked for, per address.
    pub signup: u32,
}

/// What hashing a password costs (argon2id).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordCost {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for PasswordCost {
    /// What OWASP's password storage cheat sheet asks for at least.
    fn default() -> Self {
        Self { memory_kib: 19 * 1024, passes: 2, lanes: 1 }
    }
}

/// Registries that images are pulled from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registries {
    /// Networks beyond the public internet in which they may be.
    pub allowed_networks: Vec<IpNet>,
    /// `host[:port]` of those that are spoken to without TLS.
    pub plain_http: Vec<String>,
    /// A PEM file with certificate authorities beside the system's.
    pub certificate: Option<PathBuf>,
    /// Bytes that the layers of one image may have together.
    pub max_image_bytes: u64,
}

impl Default for Registries {
    fn default() -> Self {
        Self { allowed_networks: Vec::new(), plain_http: Vec::new(), certificate: None, max_image_bytes: 8 * GIB }
    }
}

/// The free tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreeTier {
    /// Only who has an invite code gets a free server.
    pub needs_invite: bool,
    /// Image of the default container.
    pub image: String,
}

/// The settings of a running control plane.
#[derive(Debug, Clone)]
pub struct Config {
    /// Everything that is stored outside the database: keys, blobs, the SQLite file.
    pub data_dir: PathBuf,
    /// `sqlite://<path>` or `postgres://…`, which may hold a password.
    pub database_url: Secret,
    /// Where the public API listens (TCP).
    pub http_address: SocketAddr,
    /// Certificate of the public API; `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// Where nodes connect (UDP).
    pub node_address: SocketAddr,
    /// `host:port` under which nodes reach us; written into join tokens.
    pub node_public_addresses: Vec<String>,
    /// Where other replicas connect (UDP); `None`: they do not.
    pub replica_address: Option<SocketAddr>,
    /// `host:port` under which they reach it; `None`: as it is.
    pub replica_announced_address: Option<String>,
    /// URL under which clients reach us.
    pub public_url: String,
    /// Where metrics and probes are served in the clear; `None`: nowhere.
    pub metrics_address: Option<SocketAddr>,
    /// Origins whose browsers may call the API. `*` alone: every one.
    pub cors_origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Networks beyond the public internet in which tenants' upstream proxies may be; at most
    /// [`hoody_protocol::egress::MAX_ALLOWED_NETWORKS`].
    pub egress_allowed_networks: Vec<IpNet>,
    /// Registries that images are pulled from.
    pub registries: Registries,
    /// How logs are written.
    pub log_format: LogFormat,
    /// The file with the master key; made at the first start.
    pub master_key_file: PathBuf,
    /// The master key in hexadecimal; takes the file's place.
    pub master_key: Option<Secret>,
    /// How long a desired-state write waits for the node.
    pub desired_state_deadline: Duration,
    /// How long an operation may take before it is answered as timed out.
    pub operation_deadline: Duration,
    /// How often a node reports.
    pub heartbeat_interval: Duration,
    /// How long a request may take.
    pub request_deadline: Duration,
    /// How long requests in progress may go on after a request to stop.
    pub shutdown_deadline: Duration,
    /// Limits of a container whose creation names none. Of the network rate it is also the most that
    /// can be asked for.
    pub default_limits: Limits,
    /// Containers of one project, where the project says nothing else.
    pub container_max_per_project: u32,
    /// Snapshots of one container; at most [`hoody_protocol::operation::MAX_SNAPSHOTS`].
    pub snapshot_max_per_container: u32,
    /// Projects of one user.
    pub project_max_per_user: u32,
    /// Days that events are kept.
    pub event_retention_days: u32,
    /// Days that the activity log is kept.
    pub activity_retention_days: u32,
    /// Rate limits.
    pub rate_limits: RateLimits,
    /// What hashing a password costs.
    pub password_cost: PasswordCost,
    /// Mail.
    pub mail: Mail,
    /// Signing in with GitHub and Google.
    pub oauth: OAuth,
    /// The free tier.
    pub free_tier: FreeTier,
    /// A JSON file with numbers of followers, kept by somebody else.
    pub social_stats_file: Option<PathBuf>,
}

/// A text that `Debug` does not show.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(from = "String")]
pub struct Secret(pub zeroize::Zeroizing<String>);

impl Secret {
    /// Hides the text.
    pub fn new(text: String) -> Self {
        Self(zeroize::Zeroizing::new(text))
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(text.to_owned()))
    }
}

impl Config {
    /// The defaults, with everything stored below `data_dir`.
    pub fn in_dir(data_dir: PathBuf) -> Self {
        let http_address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
        Self {
            database_url: Secret::new(format!("sqlite://{}", data_dir.join("hoody.db").display())),
            master_key_file: data_dir.join("master.key"),
            data_dir,
            http_address,
            tls: None,
            node_address: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7443),
            node_public_addresses: Vec::new(),
            replica_address: None,
            replica_announced_address: None,
            public_url: format!("http://{http_address}"),
            metrics_address: None,
            cors_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            egress_allowed_networks: Vec::new(),
            registries: Registries::default(),
            log_format: LogFormat::Text,
            master_key: None,
            desired_state_deadline: Duration::from_secs(10),
            operation_deadline: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(5),
            request_deadline: Duration::from_secs(60),
            shutdown_deadline: Duration::from_secs(20),
            default_limits: DEFAULT_LIMITS,
            container_max_per_project: 100,
            snapshot_max_per_container: 10,
            project_max_per_user: 50,
            event_retention_days: 90,
            activity_retention_days: 90,
            rate_limits: RateLimits { authenticated: 1_000, anonymous: 100, login: 10, signup: 5 },
            password_cost: PasswordCost::default(),
            mail: Mail::default(),
            oauth: OAuth::default(),
            free_tier: FreeTier { needs_invite: false, image: "debian/12".to_owned() },
            social_stats_file: None,
        }
    }

    /// The master key: from the settings, else from its file, which is made where there is none.
    pub fn open_master_key(&self) -> Result<MasterKey, MasterKeyError> {
        match &self.master_key {
            Some(Secret(text)) => MasterKey::from_hex(text),
            None => MasterKey::load_or_create(&self.master_key_file),
        }
    }
}
