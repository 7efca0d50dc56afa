//! What this server allows to be run on it, whoever asks: a file of root's, read again for every command. Without
//! it, or where it cannot be believed, nothing is allowed.

use crate::runtime::cgroup::OwnLimits;
use hoody_protocol::command::{Account, Order, built_in, template};
use serde::Deserialize;
use std::{
    ffi::OsStr,
    fs::File,
    io::Read,
    ops::RangeInclusive,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Bytes of the largest file.
const MAX_BYTES: u64 = 64 << 10;
/// MiB of memory that a command can be given.
const MEMORY_MIB: RangeInclusive<u64> = 16..=1 << 20;
/// Processes that a command can be given.
const PROCESSES: RangeInclusive<u32> = 4..=32_768;
/// Who may write beside the owner.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// What may be run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Names of the built-in commands that may be run.
    pub built_in: Vec<String>,
    /// Programs, by absolute path, that commands made by operators of the control plane may run.
    pub programs: Vec<PathBuf>,
    /// Whether those may run as root.
    pub programs_as_root: bool,
    /// MiB of memory of one command with all that it starts.
    pub memory_mib: u64,
    /// Processes and threads of one command.
    pub processes: u32,
}

impl Default for Policy {
    fn default() -> Self {
        let (built_in, programs) = (Vec::new(), Vec::new());
        Self { built_in, programs, programs_as_root: false, memory_mib: 512, processes: 256 }
    }
}

/// Why the policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others than root could have written it.
    #[error("{} must be a file of root's that nobody else may write", .0.display())]
    Untrusted(PathBuf),
    /// It is no policy.
    #[error("{} is not valid: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What and where.
        reason: String,
    },
}

impl Policy {
    /// Reads the file.
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let failed = |source| PolicyError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        // Of the open file, so that what is checked is what is read.
        let metadata = file.metadata().map_err(failed)?;
        let own = metadata.is_file() && metadata.uid() == 0 && metadata.mode() & WRITABLE_BY_OTHERS == 0;
        if !own || metadata.len() > MAX_BYTES {
            return Err(PolicyError::Untrusted(path.to_owned()));
        }
        let mut text = String::new();
        file.by_ref().take(MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
        Self::parse(&text).map_err(|reason| PolicyError::Invalid { path: path.to_owned(), reason })
    }

    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let policy: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if let Some(unknown) = policy.built_in.iter().find(|slug| built_in::find(slug).is_none()) {
            return Err(format!("built_in: this agent has no command {unknown}"));
        }
        let is_program = |path: &&PathBuf| path.to_str().is_some_and(template::is_program);
        if let Some(wrong) = policy.programs.iter().find(|path| !is_program(path)) {
            return Err(format!("programs: {} is no plain absolute path", wrong.display()));
        }
        if !MEMORY_MIB.contains(&policy.memory_mib) {
            return Err(format!("memory_mib: must be from {} to {}", MEMORY_MIB.start(), MEMORY_MIB.end()));
        }
        if !PROCESSES.contains(&policy.processes) {
            return Err(format!("processes: must be from {} to {}", PROCESSES.start(), PROCESSES.end()));
        }
        Ok(policy)
    }

    /// What one command may take.
    pub(super) fn limits(&self) -> OwnLimits {
        OwnLimits { memory_bytes: self.memory_mib << 20, processes: self.processes }
    }

    /// Whether this may be run; a sentence where not.
    pub fn check(&self, order: &Order) -> Result<(), &'static str> {
        match order {
            Order::BuiltIn { slug, .. } if self.built_in.iter().any(|allowed| **allowed == **slug) => Ok(()),
            Order::BuiltIn { .. } => Err("the policy of the server does not allow this command"),
            Order::Custom { argv, account, .. } => {
                // As text: paths are equal to others that are written in another way.
                let program = argv.first().map(|program| OsStr::new(program.as_str()));
                if !program.is_some_and(|program| self.programs.iter().any(|allowed| allowed.as_os_str() == program)) {
                    return Err("the policy of the server does not allow this program");
                }
                if *account == Account::Root && !self.programs_as_root {
                    return Err("the policy of the server does not allow this program as root");
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoody_protocol::bounded::Text;
    use std::{fs, os::unix::fs::PermissionsExt};

    fn built_in(slug: &str) -> Order {
        Order::BuiltIn { slug: Text::truncated(slug), parameters: Default::default() }
    }

    fn custom(program: &str, account: Account) -> Order {
        let argv = vec![Text::truncated(program)].try_into().unwrap();
        Order::Custom { slug: Text::truncated("reboot"), argv, account, working_directory: Text::default() }
    }

    #[test]
    fn what_is_not_named_is_not_allowed() {
        let nothing = Policy::parse("").unwrap();
        assert!(nothing.check(&built_in("disk-usage")).is_err());
        assert!(nothing.check(&custom("/usr/bin/uptime", Account::Nobody)).is_err());

        let some = Policy::parse("built_in = ['disk-usage']\nprograms = ['/usr/bin/uptime']").unwrap();
        assert!(some.check(&built_in("disk-usage")).is_ok());
        assert!(some.check(&built_in("reboot")).is_err());
        assert!(some.check(&custom("/usr/bin/uptime", Account::Nobody)).is_ok());
        for program in ["/usr/bin/uptime2", "uptime", "/usr/bin/../bin/uptime", "/usr/bin//uptime", "/bin/sh", ""] {
            assert!(some.check(&custom(program, Account::Nobody)).is_err(), "{program}");
        }
        assert!(some.check(&custom("/usr/bin/uptime", Account::Root)).is_err());
        let root = Policy { programs_as_root: true, ..some };
        assert!(root.check(&custom("/usr/bin/uptime", Account::Root)).is_ok());
    }

    #[test]
    fn a_policy_with_mistakes_is_none() {
        for text in [
            "built_in = ['no-such']",
            "builtin = []",
            "programs = ['uptime']",
            "programs = ['/bin/../x']",
            "x",
            "memory_mib = 0",
            "memory_mib = 18446744073709551615",
            "processes = 0",
            "processes = -1",
        ] {
            assert!(Policy::parse(text).is_err(), "{text}");
        }
        let limits = Policy::parse("memory_mib = 64\nprocesses = 20").unwrap().limits();
        assert_eq!((limits.memory_bytes, limits.processes), (64 << 20, 20));
        let usual = Policy::parse("").unwrap().limits();
        assert_eq!((usual.memory_mib(), usual.processes), (512, 256), "none is without limits");
    }

    #[test]
    fn the_shipped_policy_is_valid_and_leaves_the_server_up() {
        let shipped = Policy::parse(include_str!("../../../systemd/commands.toml.example")).unwrap();
        assert!(shipped.check(&built_in("disk-usage")).is_ok());
        assert!(shipped.check(&built_in("reboot")).is_err());
        assert!(shipped.programs.is_empty() && !shipped.programs_as_root);
    }

    #[test]
    fn a_file_that_others_can_write_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("commands.toml");
        assert!(matches!(Policy::load(&path), Err(PolicyError::Read { .. })));
        fs::write(&path, "built_in = ['disk-usage']").unwrap();
        for (mode, believed) in [(0o600, true), (0o644, true), (0o664, false), (0o646, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Policy::load(&path).is_ok(), believed, "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        assert!(matches!(Policy::load(&path), Err(PolicyError::Untrusted(_))));
    }
}
