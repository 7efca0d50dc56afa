//! What a person writes: one list of settings for flags, environment and the TOML file (where the names
//! have underscores instead of hyphens).

use super::{LogFormat, Secret, SmtpTls, Span};
use ipnet::IpNet;
use serde::Deserialize;
use std::{net::SocketAddr, path::PathBuf};

macro_rules! settings {
    ($($(#[$meta:meta])* $name:ident: $type:ty;)+) => {
        /// Settings as written; what is absent is left to the next source.
        #[derive(Debug, Clone, Default, clap::Args, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Settings {
            $($(#[$meta])* pub $name: Option<$type>,)+
        }

        impl Settings {
            /// These settings, with `other` filling in what is absent.
            pub fn or(self, other: Self) -> Self {
                Self { $($name: self.$name.or(other.$name),)+ }
            }
        }
    };
}

settings! {
    /// A TOML file with more settings
    #[arg(long, env = "HOODY_CONFIG")]
    #[serde(skip)]
    config: PathBuf;
    /// Where keys, image blobs and the SQLite database are kept
    #[arg(long, env = "HOODY_DATA_DIR")]
    data_dir: PathBuf;
    /// sqlite://<path> or postgres://<user>@<host>/<database>; default: hoody.db in the data folder
    #[arg(long, env = "HOODY_DATABASE_URL", hide_env_values = true)]
    database_url: Secret;
    /// Address of the public API (TCP)
    #[arg(long, env = "HOODY_HTTP_ADDRESS")]
    http_address: SocketAddr;
    /// Certificate chain of the public API, PEM
    #[arg(long, env = "HOODY_TLS_CERTIFICATE")]
    tls_certificate: PathBuf;
    /// Key of the certificate, PEM
    #[arg(long, env = "HOODY_TLS_KEY")]
    tls_key: PathBuf;
    /// Address for the nodes (UDP)
    #[arg(long, env = "HOODY_NODE_ADDRESS")]
    node_address: SocketAddr;
    /// host:port under which nodes reach this control plane; written into join tokens
    #[arg(long, env = "HOODY_NODE_PUBLIC_ADDRESSES", value_delimiter = ',', num_args = 1..)]
    node_public_addresses: Vec<String>;
    /// Address for other replicas of this control plane (UDP); without one they cannot ask for this one's links
    #[arg(long, env = "HOODY_REPLICA_ADDRESS")]
    replica_address: SocketAddr;
    /// host:port under which other replicas reach that address
    #[arg(long, env = "HOODY_REPLICA_ANNOUNCED_ADDRESS")]
    replica_announced_address: String;
    /// URL under which clients reach the public API
    #[arg(long, env = "HOODY_PUBLIC_URL")]
    public_url: String;
    /// Address for metrics and probes (plain HTTP)
    #[arg(long, env = "HOODY_METRICS_ADDRESS")]
    metrics_address: SocketAddr;
    /// Origins whose browsers may call the API
    #[arg(long, env = "HOODY_CORS_ORIGINS", value_delimiter = ',', num_args = 1..)]
    cors_origins: Vec<String>;
    /// Networks of proxies whose X-Forwarded-For is believed
    #[arg(long, env = "HOODY_TRUSTED_PROXIES", value_delimiter = ',', num_args = 1..)]
    trusted_proxies: Vec<IpNet>;
    /// Networks beyond the public internet in which tenants' upstream proxies may be
    #[arg(long, env = "HOODY_EGRESS_ALLOWED_NETWORKS", value_delimiter = ',', num_args = 1..)]
    egress_allowed_networks: Vec<IpNet>;
    /// Networks beyond the public internet in which registries may be
    #[arg(long, env = "HOODY_REGISTRY_ALLOWED_NETWORKS", value_delimiter = ',', num_args = 1..)]
    registry_allowed_networks: Vec<IpNet>;
    /// host[:port] of registries that are spoken to without TLS
    #[arg(long, env = "HOODY_REGISTRY_PLAIN_HTTP", value_delimiter = ',', num_args = 1..)]
    registry_plain_http: Vec<String>;
    /// Certificate authorities of registries beside the system's (PEM)
    #[arg(long, env = "HOODY_REGISTRY_CERTIFICATE")]
    registry_certificate: PathBuf;
    /// MiB that the layers of one pulled image may have together
    #[arg(long, env = "HOODY_REGISTRY_MAX_IMAGE_MIB")]
    registry_max_image_mib: u32;
    /// How logs are written
    #[arg(long, env = "HOODY_LOG_FORMAT")]
    log_format: LogFormat;
    /// File with the master key (64 hexadecimal characters); made at the first start
    #[arg(long, env = "HOODY_MASTER_KEY_FILE")]
    master_key_file: PathBuf;
    /// The master key itself; only as the environment variable, since other users can see flags
    #[arg(long, env = "HOODY_MASTER_KEY", hide = true, hide_env_values = true)]
    #[serde(skip)]
    master_key: Secret;
    /// How long a write waits for the server before it is answered as still going on
    #[arg(long, env = "HOODY_DESIRED_STATE_DEADLINE")]
    desired_state_deadline: Span;
    /// How long an operation may take
    #[arg(long, env = "HOODY_OPERATION_DEADLINE")]
    operation_deadline: Span;
    /// How often a node reports
    #[arg(long, env = "HOODY_HEARTBEAT_INTERVAL")]
    heartbeat_interval: Span;
    /// How long a request may take
    #[arg(long, env = "HOODY_REQUEST_DEADLINE")]
    request_deadline: Span;
    /// How long requests in progress may go on after a request to stop
    #[arg(long, env = "HOODY_SHUTDOWN_DEADLINE")]
    shutdown_deadline: Span;
    /// Thousandths of a core that a container gets where its creation does not say
    #[arg(long, env = "HOODY_DEFAULT_CPU_MILLIS")]
    default_cpu_millis: u32;
    /// Memory in MiB that a container gets where its creation does not say
    #[arg(long, env = "HOODY_DEFAULT_MEMORY_MIB")]
    default_memory_mib: u32;
    /// Disk in MiB that a container gets where its creation does not say
    #[arg(long, env = "HOODY_DEFAULT_DISK_MIB")]
    default_disk_mib: u32;
    /// Processes that a container may have
    #[arg(long, env = "HOODY_DEFAULT_PIDS")]
    default_pids: u32;
    /// Network rate of a container in Mbit/s, each direction; also the most that one can ask for. 0: no limit
    #[arg(long, env = "HOODY_CONTAINER_NETWORK_MBIT")]
    container_network_mbit: u32;
    /// Containers of one project
    #[arg(long, env = "HOODY_CONTAINER_MAX_PER_PROJECT")]
    container_max_per_project: u32;
    /// Snapshots of one container, at most 64
    #[arg(long, env = "HOODY_SNAPSHOT_MAX_PER_CONTAINER")]
    snapshot_max_per_container: u32;
    /// Projects of one user
    #[arg(long, env = "HOODY_PROJECT_MAX_PER_USER")]
    project_max_per_user: u32;
    /// Days that events are kept
    #[arg(long, env = "HOODY_EVENT_RETENTION_DAYS")]
    event_retention_days: u32;
    /// Days that the log of API requests is kept
    #[arg(long, env = "HOODY_ACTIVITY_RETENTION_DAYS")]
    activity_retention_days: u32;
    /// Requests a minute per user
    #[arg(long, env = "HOODY_RATE_LIMIT_AUTHENTICATED")]
    rate_limit_authenticated: u32;
    /// Requests a minute per address without a valid token
    #[arg(long, env = "HOODY_RATE_LIMIT_ANONYMOUS")]
    rate_limit_anonymous: u32;
    /// Logins a minute per address and account
    #[arg(long, env = "HOODY_RATE_LIMIT_LOGIN")]
    rate_limit_login: u32;
    /// Sign-ups and mails asked for a minute per address
    #[arg(long, env = "HOODY_RATE_LIMIT_SIGNUP")]
    rate_limit_signup: u32;
    /// Memory in KiB that hashing a password takes (argon2id)
    #[arg(long, env = "HOODY_PASSWORD_MEMORY_KIB")]
    password_memory_kib: u32;
    /// Passes over that memory
    #[arg(long, env = "HOODY_PASSWORD_PASSES")]
    password_passes: u32;
    /// Lanes of it
    #[arg(long, env = "HOODY_PASSWORD_LANES")]
    password_lanes: u32;
    /// The mail server's host; without one mails are written to files in the data folder
    #[arg(long, env = "HOODY_SMTP_HOST")]
    smtp_host: String;
    /// The mail server's port; default: 587, with implicit TLS 465
    #[arg(long, env = "HOODY_SMTP_PORT")]
    smtp_port: u16;
    /// Encryption of the connection to it; none only to this machine
    #[arg(long, env = "HOODY_SMTP_TLS")]
    smtp_tls: SmtpTls;
    /// User at the mail server
    #[arg(long, env = "HOODY_SMTP_USERNAME")]
    smtp_username: String;
    /// The user's password; only as the environment variable or in the file
    #[arg(long, env = "HOODY_SMTP_PASSWORD", hide = true, hide_env_values = true)]
    smtp_password: Secret;
    /// A certificate of the mail server to trust beside the system's, PEM
    #[arg(long, env = "HOODY_SMTP_CERTIFICATE")]
    smtp_certificate: PathBuf;
    /// Sender of mails: Name <address>
    #[arg(long, env = "HOODY_MAIL_FROM")]
    mail_from: String;
    /// Where pages take the tokens of mails: <web_url>/verify-email?token=…
    #[arg(long, env = "HOODY_WEB_URL")]
    web_url: String;
    /// Id of this platform's registration at GitHub; without one nobody signs in with it
    #[arg(long, env = "HOODY_GITHUB_CLIENT_ID")]
    github_client_id: String;
    /// The registration's secret; only as the environment variable or in the file
    #[arg(long, env = "HOODY_GITHUB_CLIENT_SECRET", hide = true, hide_env_values = true)]
    github_client_secret: Secret;
    /// GitHub's page, where it is not the public one
    #[arg(long, env = "HOODY_GITHUB_AUTHORIZE_URL")]
    github_authorize_url: String;
    /// Where GitHub exchanges codes
    #[arg(long, env = "HOODY_GITHUB_TOKEN_URL")]
    github_token_url: String;
    /// Where GitHub tells who somebody is
    #[arg(long, env = "HOODY_GITHUB_USER_URL")]
    github_user_url: String;
    /// Where GitHub tells somebody's addresses
    #[arg(long, env = "HOODY_GITHUB_EMAILS_URL")]
    github_emails_url: String;
    /// Id of this platform's registration at Google; without one nobody signs in with it
    #[arg(long, env = "HOODY_GOOGLE_CLIENT_ID")]
    google_client_id: String;
    /// The registration's secret; only as the environment variable or in the file
    #[arg(long, env = "HOODY_GOOGLE_CLIENT_SECRET", hide = true, hide_env_values = true)]
    google_client_secret: Secret;
    /// Google's page, where it is not the public one
    #[arg(long, env = "HOODY_GOOGLE_AUTHORIZE_URL")]
    google_authorize_url: String;
    /// Where Google exchanges codes
    #[arg(long, env = "HOODY_GOOGLE_TOKEN_URL")]
    google_token_url: String;
    /// Where Google tells who somebody is
    #[arg(long, env = "HOODY_GOOGLE_USER_URL")]
    google_user_url: String;
    /// Addresses of applications that logins may be handed to, each whole
    #[arg(long, env = "HOODY_OAUTH_REDIRECT_URIS", value_delimiter = ',', num_args = 1..)]
    oauth_redirect_uris: Vec<String>;
    /// Certificates to trust at the providers beside the system's, PEM
    #[arg(long, env = "HOODY_OAUTH_CERTIFICATE")]
    oauth_certificate: PathBuf;
    /// Repository at GitHub (owner/name) of which intent=star_check asks whether somebody starred it
    #[arg(long, env = "HOODY_GITHUB_STAR_REPOSITORY")]
    github_star_repository: String;
    /// Where GitHub tells what somebody starred, where it is not the public address
    #[arg(long, env = "HOODY_GITHUB_STARRED_URL")]
    github_starred_url: String;
    /// Whether a free server needs an invite code
    #[arg(long, env = "HOODY_FREE_TIER_NEEDS_INVITE")]
    free_tier_needs_invite: bool;
    /// Image of the default container of the free tier
    #[arg(long, env = "HOODY_FREE_TIER_IMAGE")]
    free_tier_image: String;
    /// JSON file with the numbers that /meta/social-stats answers
    #[arg(long, env = "HOODY_SOCIAL_STATS_FILE")]
    social_stats_file: PathBuf;
}
