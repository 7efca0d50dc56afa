//! Settings: a TOML file, every key with a default that suits a server of its own.

use serde::Deserialize;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// The proxy's settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The control socket.
    pub socket: PathBuf,
    /// The user, beside root, who may use it: the agent's.
    pub agent_uid: u32,
    /// Connections of all containers together.
    pub connections: usize,
    /// Connections of one container.
    pub connections_per_container: usize,
    /// UDP associations of one container, that is source ports in use, DNS aside.
    pub associations_per_container: usize,
    /// Milliseconds until an upstream has let itself be connected to, with TLS and authentication.
    pub connect_timeout_ms: u64,
    /// Milliseconds until an upstream has connected to the destination.
    pub answer_timeout_ms: u64,
    /// Seconds that a connection may be silent in both directions.
    pub idle_timeout_s: u64,
    /// Seconds that a UDP association may be silent.
    pub udp_idle_timeout_s: u64,
    /// Milliseconds until an upstream that failed is tried again the first time; doubled after each failure.
    pub retry_ms: u64,
    /// Milliseconds between tries at most.
    pub retry_max_ms: u64,
    /// `text` or `json`.
    pub log_format: LogFormat,
}

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not TOML, or has keys that are unknown or of another type.
    #[error("{}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value is impossible.
    #[error("{}: {key} {problem}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: "/run/hoody-proxy/control.sock".into(),
            agent_uid: 0,
            connections: 32_768,
            connections_per_container: 4096,
            associations_per_container: 256,
            connect_timeout_ms: 10_000,
            answer_timeout_ms: 30_000,
            // The least that a NAT keeps an established connection (RFC 5382).
            idle_timeout_s: 7440,
            // RFC 4787.
            udp_idle_timeout_s: 120,
            retry_ms: 500,
            retry_max_ms: 60_000,
            log_format: LogFormat::Text,
        }
    }
}

impl Config {
    /// Reads the settings.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.into(), source };
        Self::parse(&std::fs::read_to_string(path).map_err(read)?, path)
    }

    /// Parses and checks settings; `path` is for errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })?;
        let refuse = |key, problem| Err(ConfigError::Value { path: path.into(), key, problem });
        if !config.socket.is_absolute() {
            return refuse("socket", "must be an absolute path");
        }
        for (key, value) in [
            ("connections", config.connections as u64),
            ("connections_per_container", config.connections_per_container as u64),
            ("associations_per_container", config.associations_per_container as u64),
            ("connect_timeout_ms", config.connect_timeout_ms),
            ("answer_timeout_ms", config.answer_timeout_ms),
            ("idle_timeout_s", config.idle_timeout_s),
            ("udp_idle_timeout_s", config.udp_idle_timeout_s),
            ("retry_ms", config.retry_ms),
        ] {
            if value == 0 {
                return refuse(key, "must be at least 1");
            }
            if value > u64::from(u32::MAX >> 3) {
                return refuse(key, "is too large");
            }
        }
        if config.retry_max_ms < config.retry_ms || config.retry_max_ms > 3_600_000 {
            return refuse("retry_max_ms", "must be from retry_ms to an hour");
        }
        Ok(config)
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn answer_timeout(&self) -> Duration {
        Duration::from_millis(self.answer_timeout_ms)
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_s)
    }

    pub(crate) fn udp_idle_timeout(&self) -> Duration {
        Duration::from_secs(self.udp_idle_timeout_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_defaults_and_impossible_values_name_their_key() {
        let parse = |text| Config::parse(text, Path::new("proxy.toml"));
        assert_eq!(parse("").unwrap(), Config::default());
        for (text, key) in [
            ("socket = 'relative'", "socket"),
            ("connections = 0", "connections"),
            ("retry_max_ms = 1", "retry_max_ms"),
            ("idle_timeout_s = 99999999999", "idle_timeout_s"),
            ("no_such_key = 1", "no_such_key"),
        ] {
            let error = parse(text).unwrap_err();
            let text = std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string);
            assert!(text.contains(key), "{text}");
        }
    }
}
