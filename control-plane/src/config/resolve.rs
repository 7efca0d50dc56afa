//! From what a person wrote to a configuration: the file added, defaults filled in, and checked what must fit together.

use super::{Config, Mail, OAuth, OAuthClient, RateLimits, Secret, Settings, Smtp, SmtpTls, Span, Tls};
use hoody_protocol::{egress::MAX_ALLOWED_NETWORKS, operation::MAX_SNAPSHOTS};
use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Where the control plane keeps its data unless told otherwise.
const DEFAULT_DATA_DIR: &str = "/var/lib/hoody-control-plane";

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not valid.
    #[error("configuration file {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: toml::de::Error,
    },
    /// One setting does not fit.
    #[error("setting {name}: {problem}")]
    Value {
        /// The setting.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl Settings {
    /// Adds the file's settings and the defaults, and checks what must fit together.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let all = match &self.config {
            None => self,
            Some(path) => {
                let text =
                    fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
                let file = Self::parse(&text, path)?;
                self.or(file)
            }
        };
        all.fill_in()
    }

    /// The settings in the text of a file; `path` is for errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
    }

    fn fill_in(self) -> Result<Config, ConfigError> {
        let invalid = |name, problem: &str| ConfigError::Value { name, problem: problem.to_owned() };
        let mut config = Config::in_dir(self.data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into()));
        macro_rules! take {
            ($($target:ident $(. $inner:ident)? = $value:expr;)+) => {
                $(if let Some(value) = $value { config.$target $(. $inner)? = value; })+
            };
        }
        config.tls = match (self.tls_certificate, self.tls_key) {
            (Some(certificate), Some(key)) => Some(Tls { certificate, key }),
            (None, None) => None,
            (Some(_), None) => return Err(invalid("tls_key", "is needed beside tls_certificate")),
            (None, Some(_)) => return Err(invalid("tls_certificate", "is needed beside tls_key")),
        };
        let smtp = smtp(
            self.smtp_host,
            self.smtp_port,
            self.smtp_tls.unwrap_or_default(),
            (self.smtp_username, self.smtp_password),
            self.smtp_certificate,
        )?;
        let github = provider(
            ("github_client_id", OAuthClient::github),
            (self.github_client_id, self.github_client_secret),
            [self.github_authorize_url, self.github_token_url, self.github_user_url, self.github_emails_url],
        )?;
        let google = provider(
            ("google_client_id", OAuthClient::google),
            (self.google_client_id, self.google_client_secret),
            [self.google_authorize_url, self.google_token_url, self.google_user_url, None],
        )?;
        let redirect_uris = self.oauth_redirect_uris.unwrap_or_default();
        if let Some(bad) = redirect_uris.iter().find(|uri| !uri.starts_with("https://") || uri.contains('#')) {
            return Err(invalid(
                "oauth_redirect_uris",
                &format!("{bad} must begin with https:// and have no fragment"),
            ));
        }
        if self.egress_allowed_networks.as_ref().is_some_and(|networks| networks.len() > MAX_ALLOWED_NETWORKS) {
            return Err(invalid("egress_allowed_networks", &format!("has more than {MAX_ALLOWED_NETWORKS} networks")));
        }
        if self.snapshot_max_per_container.is_some_and(|most| most as usize > MAX_SNAPSHOTS) {
            return Err(invalid("snapshot_max_per_container", &format!("is more than {MAX_SNAPSHOTS}")));
        }
        let star_url = self.github_star_repository.as_deref().map(|repository| {
            super::star_url(self.github_starred_url.as_deref(), repository)
                .map_err(|problem| invalid("github_star_repository", &problem))
        });
        let (certificate, star_url) = (self.oauth_certificate, star_url.transpose()?);
        config.oauth = OAuth { github, google, redirect_uris, certificate, star_url };
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let span = |span: Option<Span>| span.map(|Span(duration)| duration);
        let bytes = |mib: Option<u32>| mib.map(|mib| u64::from(mib) << 20);
        take! {
            database_url = self.database_url;
            http_address = self.http_address;
            node_address = self.node_address;
            node_public_addresses = self.node_public_addresses;
            cors_origins = self.cors_origins;
            trusted_proxies = self.trusted_proxies;
            egress_allowed_networks = self.egress_allowed_networks;
            registries.allowed_networks = self.registry_allowed_networks;
            registries.plain_http = self.registry_plain_http;
            registries.max_image_bytes = bytes(self.registry_max_image_mib);
            log_format = self.log_format;
            master_key_file = self.master_key_file;
            desired_state_deadline = span(self.desired_state_deadline);
            operation_deadline = span(self.operation_deadline);
            heartbeat_interval = span(self.heartbeat_interval);
            request_deadline = span(self.request_deadline);
            shutdown_deadline = span(self.shutdown_deadline);
            default_limits.cpu_millis = self.default_cpu_millis;
            default_limits.memory_bytes = bytes(self.default_memory_mib);
            default_limits.disk_bytes = bytes(self.default_disk_mib);
            default_limits.pids = self.default_pids;
            default_limits.network_mbit = self.container_network_mbit.map(|rate| (rate > 0).then_some(rate));
            container_max_per_project = self.container_max_per_project;
            snapshot_max_per_container = self.snapshot_max_per_container;
            project_max_per_user = self.project_max_per_user;
            event_retention_days = self.event_retention_days;
            activity_retention_days = self.activity_retention_days;
            rate_limits.authenticated = self.rate_limit_authenticated;
            rate_limits.anonymous = self.rate_limit_anonymous;
            rate_limits.login = self.rate_limit_login;
            rate_limits.signup = self.rate_limit_signup;
            password_cost.memory_kib = self.password_memory_kib;
            password_cost.passes = self.password_passes;
            password_cost.lanes = self.password_lanes;
            mail.from = self.mail_from;
            free_tier.needs_invite = self.free_tier_needs_invite;
            free_tier.image = self.free_tier_image;
        }
        config.public_url = self.public_url.unwrap_or_else(|| format!("{scheme}://{}", config.http_address));
        config.mail =
            Mail { smtp, web_url: self.web_url.map(|url| url.trim_end_matches('/').to_owned()), ..config.mail };
        config.social_stats_file = self.social_stats_file;
        config.registries.certificate = self.registry_certificate;
        config.metrics_address = self.metrics_address;
        config.master_key = self.master_key;
        (config.replica_address, config.replica_announced_address) =
            replica(self.replica_address, self.replica_announced_address)?;
        if config.node_public_addresses.is_empty() && !config.node_address.ip().is_unspecified() {
            config.node_public_addresses = vec![config.node_address.to_string()];
        }
        if !config.default_limits.is_valid() {
            return Err(invalid(
                "default_…",
                "a default limit is below the least, or above the most, a container can have",
            ));
        }
        let RateLimits { authenticated, anonymous, login, signup } = config.rate_limits;
        if [authenticated, anonymous, login, signup].contains(&0) {
            return Err(invalid("rate_limit_…", "a rate limit of 0 would refuse everything"));
        }
        if let Err(error) = crate::service::password::parameters(config.password_cost) {
            return Err(invalid("password_…", &error.to_string()));
        }
        if let Err(error) = crate::mail::sender(&config.mail.from) {
            return Err(invalid("mail_from", &error.to_string()));
        }
        if config.cors_origins.len() > 1 && config.cors_origins.iter().any(|origin| origin == "*") {
            return Err(invalid("cors_origins", "* stands alone or not at all"));
        }
        Ok(config)
    }
}

/// Where other replicas connect, and what they are told of it.
fn replica(
    address: Option<SocketAddr>,
    announced: Option<String>,
) -> Result<(Option<SocketAddr>, Option<String>), ConfigError> {
    let problem = match (&address, &announced) {
        (None, Some(_)) => "needs replica_address, where it leads to",
        (Some(address), None) if address.ip().is_unspecified() => {
            "is needed: other replicas cannot connect to every address"
        }
        (_, Some(announced)) if !is_host_and_port(announced) => "must be host:port",
        _ => return Ok((address, announced)),
    };
    Err(ConfigError::Value { name: "replica_announced_address", problem: problem.to_owned() })
}

fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_name = !host.contains([':', '/', '@']) && !host.contains(char::is_whitespace);
    let is_address = host.starts_with('[') && host.ends_with(']');
    !host.is_empty() && (is_name || is_address) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// The mail server, if there is one.
fn smtp(
    host: Option<String>,
    port: Option<u16>,
    tls: SmtpTls,
    (username, password): (Option<String>, Option<Secret>),
    certificate: Option<PathBuf>,
) -> Result<Option<Smtp>, ConfigError> {
    let invalid = |name, problem: &str| ConfigError::Value { name, problem: problem.to_owned() };
    let Some(host) = host else { return Ok(None) };
    let is_here = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    if tls == SmtpTls::None && !is_here {
        return Err(invalid(
            "smtp_tls",
            "none would send tokens over the network in the clear: use starttls or implicit",
        ));
    }
    let credentials = match (username, password) {
        (Some(username), Some(password)) => Some((username, password)),
        (None, None) => None,
        _ => return Err(invalid("smtp_username", "and smtp_password are both needed, or neither")),
    };
    Ok(Some(Smtp { host, port: port.unwrap_or(tls.default_port()), tls, credentials, certificate }))
}

/// A provider, where the platform is registered there; `urls` take the place of its public ones.
fn provider(
    (name, public): (&'static str, fn(String, Secret) -> OAuthClient),
    (id, secret): (Option<String>, Option<Secret>),
    urls: [Option<String>; 4],
) -> Result<Option<OAuthClient>, ConfigError> {
    let mut client = match (id, secret) {
        (Some(id), Some(secret)) => public(id, secret),
        (None, None) => return Ok(None),
        _ => {
            let problem = "and the client secret are both needed, or neither".to_owned();
            return Err(ConfigError::Value { name, problem });
        }
    };
    let targets = [&mut client.authorize_url, &mut client.token_url, &mut client.user_url, &mut client.emails_url];
    for (target, url) in targets.into_iter().zip(urls) {
        if let Some(url) = url {
            *target = url;
        }
    }
    match client.problem() {
        Some(problem) => Err(ConfigError::Value { name, problem }),
        None => Ok(Some(client)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, Command, FromArgMatches};

    fn from_flags(flags: &[&str]) -> Settings {
        let command = Settings::augment_args(Command::new("test"));
        let matches = command.try_get_matches_from([&["test"], flags].concat()).unwrap();
        Settings::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        fs::write(&path, "project_max_per_user = 7\noperation_deadline = \"3s\"\ncors_origins = [\"https://a\"]\n")
            .unwrap();
        let config =
            from_flags(&["--config", path.to_str().unwrap(), "--project-max-per-user", "8"]).resolve().unwrap();
        assert_eq!(config.project_max_per_user, 8);
        assert_eq!(config.operation_deadline.as_secs(), 3);
        assert_eq!(config.cors_origins, ["https://a"]);
        assert_eq!(config.container_max_per_project, 100);
        assert_eq!(config.database_url.reveal(), format!("sqlite://{DEFAULT_DATA_DIR}/hoody.db"));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        fs::write(&path, "htp_address = \"1.2.3.4:5\"").unwrap();
        let path = path.to_str().unwrap();
        assert!(matches!(from_flags(&["--config", path]).resolve(), Err(ConfigError::Parse { .. })));
        assert!(matches!(from_flags(&["--config", "/none"]).resolve(), Err(ConfigError::Read { .. })));
        for (flags, name) in [
            (vec!["--tls-key", "k"], "tls_certificate"),
            (vec!["--rate-limit-login", "0"], "rate_limit_…"),
            (vec!["--default-memory-mib", "1"], "default_…"),
            (vec!["--smtp-host", "mail.example.org", "--smtp-tls", "none"], "smtp_tls"),
            (vec!["--smtp-host", "mail.example.org", "--smtp-username", "u"], "smtp_username"),
            (vec!["--mail-from", "nobody"], "mail_from"),
            (vec!["--password-memory-kib", "1"], "password_…"),
            (vec!["--cors-origins", "*,https://a"], "cors_origins"),
            (vec!["--replica-address", "0.0.0.0:7444"], "replica_announced_address"),
            (vec!["--replica-announced-address", "10.0.0.1:7444"], "replica_announced_address"),
            (
                vec!["--replica-address", "0.0.0.0:7444", "--replica-announced-address", "10.0.0.1"],
                "replica_announced_address",
            ),
            (vec!["--github-client-id", "id"], "github_client_id"),
            (
                vec![
                    "--google-client-id",
                    "id",
                    "--google-client-secret",
                    "s",
                    "--google-token-url",
                    "http://g.example",
                ],
                "google_client_id",
            ),
            (vec!["--oauth-redirect-uris", "http://app.example/"], "oauth_redirect_uris"),
        ] {
            match from_flags(&flags).resolve() {
                Err(ConfigError::Value { name: found, .. }) => assert_eq!(found, name),
                other => panic!("{flags:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_master_key_is_not_shown() {
        let config = from_flags(&["--master-key", "5ecret"]).resolve().unwrap();
        assert!(!format!("{config:?}").contains("5ecret"));
    }
}
