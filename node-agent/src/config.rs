//! Settings: a TOML file, every key with a default that suits a server of its own.

use ipnet::Ipv4Net;
use serde::Deserialize;
use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

/// Metadata services of clouds outside the link-local range, which is closed always: Alibaba's, Azure's,
/// Oracle's. They tell whoever asks from the server's address its secrets.
const METADATA_SERVICES: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];

/// The highest rate of disks that is a limit: a TiB per second.
const MAX_DISK_MIB: u64 = 1 << 20;
/// The largest pool of RAM disks: 16 TiB.
const MAX_RAMDISK_MIB: u64 = 16 << 20;

/// The agent's settings. Several agents on one kernel (tests) differ in every path, the cgroup parent,
/// the pool, the network and the id range.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Identity, specifications, journal, partial blobs. Survives reboots; mode 0700.
    pub state_dir: PathBuf,
    /// Mounts, runtime state, sockets. Gone at reboot; mode 0700.
    pub run_dir: PathBuf,
    /// A mounted btrfs file system for images and containers.
    pub pool: PathBuf,
    /// Addresses for containers, routed on this server.
    pub node_cidr: Ipv4Net,
    /// Containers' default gateway; needs no interface of its own.
    pub gateway: Ipv4Addr,
    /// Name servers of containers whose specification names none.
    pub dns: Vec<Ipv4Addr>,
    /// Bytes of the largest packet on a container's interface.
    pub mtu: u32,
    /// Control socket of the relay program, `hoody-proxy`.
    pub proxy_socket: PathBuf,
    /// Networks that no container reaches, whatever its rules: metadata services of clouds.
    pub closed_networks: Vec<Ipv4Net>,
    /// Name of the nft table of our own.
    pub nft_table: String,
    /// The table belongs to the agent alone where the kernel can do so (Linux 6.9): nobody else changes it, also not
    /// with `nft flush ruleset`.
    pub own_nft_table: bool,
    /// Cgroup below which everything of the containers lives.
    pub cgroup_parent: String,
    /// Host id of the first container's root; each container takes 65,536.
    pub first_id: u32,
    /// The OCI runtime program.
    pub runtime: PathBuf,
    /// The conmon program.
    pub conmon: PathBuf,
    /// The init program for images without one.
    pub init: PathBuf,
    /// Bytes at which a container's log starts over; the part before is kept as well.
    pub log_bytes_max: u64,
    /// Seconds after which a terminal ends at which nothing was typed or shown.
    pub terminal_idle_s: u64,
    /// Seconds after which a terminal ends, whatever takes place at it.
    pub terminal_age_s: u64,
    /// MiB per second that a container may read from the pool's disks; 0: not limited.
    pub container_disk_read_mib_s: u64,
    /// MiB per second that a container may write to the pool's disks; 0: not limited.
    pub container_disk_write_mib_s: u64,
    /// MiB that the RAM disks of all containers may take together; 0: containers get none.
    pub ramdisk_pool_mib: u64,
    /// Seconds that a first process has to end before it is killed.
    pub stop_timeout_s: u64,
    /// Seconds between looks at a container that nothing happens to; what was changed by others is repaired then.
    pub drift_interval_s: u64,
    /// Free bytes that unpacking an image must leave in the pool.
    pub pool_reserve_bytes: u64,
    /// Hours that an image is kept after the last container that names it is gone.
    pub image_keep_hours: u64,
    /// What may be run on the server itself: a file of root's.
    pub commands_policy: PathBuf,
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

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/hoody-agent".into(),
            run_dir: "/run/hoody-agent".into(),
            pool: "/var/lib/hoody-agent/pool".into(),
            node_cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 88, 0, 0), 16),
            gateway: Ipv4Addr::new(169, 254, 1, 1),
            dns: vec![Ipv4Addr::new(9, 9, 9, 9), Ipv4Addr::new(1, 1, 1, 1)],
            mtu: 1500,
            proxy_socket: "/run/hoody-proxy/control.sock".into(),
            closed_networks: METADATA_SERVICES.map(Ipv4Net::from).to_vec(),
            nft_table: "hoody".into(),
            own_nft_table: true,
            cgroup_parent: "hoody".into(),
            first_id: 1 << 20,
            runtime: "/usr/sbin/runc".into(),
            conmon: "/usr/bin/conmon".into(),
            init: "/usr/bin/catatonit".into(),
            log_bytes_max: 16 << 20,
            terminal_idle_s: 3600,
            terminal_age_s: 24 * 3600,
            container_disk_read_mib_s: 0,
            container_disk_write_mib_s: 0,
            ramdisk_pool_mib: 1024,
            stop_timeout_s: 10,
            drift_interval_s: 10,
            pool_reserve_bytes: 256 << 20,
            image_keep_hours: 7 * 24,
            commands_policy: "/etc/hoody/commands.toml".into(),
            log_format: LogFormat::Text,
        }
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not valid.
    #[error("the configuration {} is not valid: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: Box<toml::de::Error>,
    },
    /// A value cannot work.
    #[error("configuration key {key}: {problem}")]
    Value {
        /// The key.
        key: &'static str,
        /// What to change.
        problem: &'static str,
    },
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Checks the text of a file; `path` is for errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let fail = |key, problem| Err(ConfigError::Value { key, problem });
        let paths = [
            ("state_dir", &self.state_dir),
            ("run_dir", &self.run_dir),
            ("pool", &self.pool),
            ("commands_policy", &self.commands_policy),
        ];
        for (key, path) in paths {
            if !path.is_absolute() {
                return fail(key, "give an absolute path");
            }
        }
        if self.node_cidr.contains(&self.gateway) {
            return fail("gateway", "give an address outside node_cidr");
        }
        if self.first_id < 65_536 {
            return fail("first_id", "give at least 65536: lower ids belong to the server itself");
        }
        if self.ramdisk_pool_mib > MAX_RAMDISK_MIB {
            return fail("ramdisk_pool_mib", "give at most 16777216");
        }
        if self.drift_interval_s == 0 {
            return fail("drift_interval_s", "give at least 1 second");
        }
        if self.terminal_idle_s == 0 || self.terminal_age_s == 0 {
            return fail("terminal_idle_s", "give at least 1 second, for terminal_age_s too");
        }
        for (key, mib) in [
            ("container_disk_read_mib_s", self.container_disk_read_mib_s),
            ("container_disk_write_mib_s", self.container_disk_write_mib_s),
        ] {
            if mib > MAX_DISK_MIB {
                return fail(key, "give at most 1048576, or 0 for no limit");
            }
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let part = |part: &str| !part.is_empty() && part != ".." && part.chars().all(|c| plain(c) || c == '.');
        if !self.cgroup_parent.trim_matches('/').split('/').all(part) {
            return fail("cgroup_parent", "give a relative cgroup path of letters, digits, '-', '_' and '.'");
        }
        let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if self.nft_table.is_empty() || !self.nft_table.chars().all(name) {
            return fail("nft_table", "give a name of lowercase letters, digits and '_'");
        }
        Ok(())
    }

    /// The cgroup parent, absolute within each hierarchy.
    pub fn cgroup_path(&self) -> PathBuf {
        Path::new("/").join(self.cgroup_parent.trim_matches('/'))
    }

    /// Folder of the node's key and certificates.
    pub fn identity_dir(&self) -> PathBuf {
        self.state_dir.join("identity")
    }

    /// Folder of the persisted containers.
    pub fn containers_dir(&self) -> PathBuf {
        self.state_dir.join("containers")
    }

    /// The journal of reports.
    pub fn journal_path(&self) -> PathBuf {
        self.state_dir.join("journal")
    }

    /// Networks that the control plane allows beyond the internet, see [`crate::dial`].
    pub fn allowed_networks_path(&self) -> PathBuf {
        self.state_dir.join("allowed-networks")
    }

    /// Folder of what containers wrote.
    pub fn logs_dir(&self) -> PathBuf {
        self.state_dir.join("logs")
    }

    /// Folder of the commands that were run on the server itself.
    pub fn commands_dir(&self) -> PathBuf {
        self.state_dir.join("commands")
    }

    /// The cgroup of those commands, absolute within its hierarchy.
    pub fn commands_cgroup(&self) -> PathBuf {
        self.cgroup_path().join("commands")
    }

    /// Folder of blobs being fetched.
    pub fn blobs_dir(&self) -> PathBuf {
        self.state_dir.join("blobs")
    }

    /// Socket on which the running agent answers `hoody-agent status`.
    pub fn status_socket(&self) -> PathBuf {
        self.run_dir.join("status.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("agent.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(parse("").unwrap(), Config::default());
        assert_eq!(Config::default().cgroup_path(), Path::new("/hoody"), "as the runtime demands it");
    }

    #[test]
    fn impossible_values_name_their_key() {
        for (text, key) in [
            ("state_dir = 'relative'", "state_dir"),
            ("gateway = '10.88.0.1'", "gateway"),
            ("first_id = 1000", "first_id"),
            ("drift_interval_s = 0", "drift_interval_s"),
            ("terminal_idle_s = 0", "terminal_idle_s"),
            ("cgroup_parent = '../escape'", "cgroup_parent"),
            ("nft_table = 'a b'", "nft_table"),
            ("no_such_key = 1", "no_such_key"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(key), "{text}: {error}");
        }
    }
}
