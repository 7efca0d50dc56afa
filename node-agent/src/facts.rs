//! What this server is: gathered at start and told to the control plane with every hello.

use crate::stats::procfs;
use hoody_protocol::{bounded::Text, link::NodeFacts};
use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

const HOSTNAME: &str = "/proc/sys/kernel/hostname";
const KERNEL_RELEASE: &str = "/proc/sys/kernel/osrelease";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const CPU_INFO: &str = "/proc/cpuinfo";
const MEMORY_INFO: &str = "/proc/meminfo";
/// In the order of os-release(5).
const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];
/// What stands for a name that the server does not tell.
const UNKNOWN: &str = "unknown";

/// Why the facts are not known.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file does not say what it should.
    #[error("{} is not in the form the kernel documents", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
    /// The number of cores is not known.
    #[error("count the processor cores")]
    Cores(#[source] io::Error),
}

/// Gathers the facts. `disk_bytes` is the size of the storage pool.
pub fn gather(disk_bytes: u64) -> Result<NodeFacts, FactsError> {
    let memory = procfs::memory(&read(MEMORY_INFO)?).ok_or(FactsError::Malformed { path: MEMORY_INFO.into() })?;
    let os = OS_RELEASE.iter().find_map(|path| pretty_name(&read(path).ok()?));
    let cpu_model = read(CPU_INFO).ok().and_then(|text| cpu_model(&text));
    Ok(NodeFacts {
        hostname: text(&read(HOSTNAME)?),
        architecture: Text::truncated(oci_architecture(std::env::consts::ARCH)),
        kernel: text(&read(KERNEL_RELEASE)?),
        os: text(os.as_deref().unwrap_or(UNKNOWN)),
        cpu_model: text(cpu_model.as_deref().unwrap_or(UNKNOWN)),
        cpu_cores: cores()?,
        memory_bytes: memory.total,
        disk_bytes,
        kvm: crate::runtime::kvm_usable(),
    })
}

/// The kernel's boot id: another one after every boot.
pub fn boot_id() -> Result<Text<64>, FactsError> {
    if let Some(id) = hoody_fault::boot_id() {
        return Ok(Text::truncated(id));
    }
    let id = read(BOOT_ID)?;
    let id = id.trim();
    let is_uuid = id.len() == 36 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if is_uuid { Ok(Text::truncated(id)) } else { Err(FactsError::Malformed { path: BOOT_ID.into() }) }
}

/// The architecture as the OCI image specification spells it (Go's GOARCH).
fn oci_architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "loongarch64" => "loong64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        // arm, riscv64 and s390x are spelt alike.
        other => other,
    }
}

/// Cores that this process, and so its containers, may run on.
fn cores() -> Result<u32, FactsError> {
    let counted = match sched_getaffinity(Pid::from_raw(0)) {
        Ok(set) => (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).count(),
        // A machine with more cores than the set holds.
        Err(_) => std::thread::available_parallelism().map_err(FactsError::Cores)?.get(),
    };
    Ok(u32::try_from(counted).unwrap_or(u32::MAX))
}

/// `PRETTY_NAME` of os-release(5), where a value is a word or quoted as in a shell.
fn pretty_name(text: &str) -> Option<String> {
    let value = text.lines().filter_map(|line| line.trim().strip_prefix("PRETTY_NAME=")).next_back()?;
    let name = match value.as_bytes() {
        [quote @ (b'"' | b'\''), .., last] if quote == last => unescape(&value[1..value.len() - 1], *quote == b'"'),
        _ => value.to_owned(),
    };
    (!name.trim().is_empty()).then_some(name)
}

/// Inside double quotes a backslash takes the special meaning of what follows.
fn unescape(text: &str, escapes: bool) -> String {
    let mut characters = text.chars();
    let mut plain = String::with_capacity(text.len());
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' && escapes { characters.next() } else { Some(character) });
    }
    plain
}

/// The processor's name: x86 says "model name", others "Model", "Hardware" or "cpu".
fn cpu_model(text: &str) -> Option<String> {
    ["model name", "Model", "Hardware", "cpu"].iter().find_map(|key| {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == *key && !value.trim().is_empty()).then(|| value.trim().to_owned())
        })
    })
}

/// One line for people, without control characters, cut to its limit.
fn text<const MAX: usize>(value: &str) -> Text<MAX> {
    Text::truncated(value.trim().replace(|c: char| c.is_control(), " "))
}

fn read(path: impl AsRef<Path>) -> Result<String, FactsError> {
    let path = path.as_ref();
    fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .map_err(|source| FactsError::Read { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathers_this_machine() {
        let facts = gather(77).unwrap();
        assert_eq!(facts.disk_bytes, 77);
        assert!(!facts.hostname.is_empty() && !facts.kernel.is_empty() && !facts.os.is_empty());
        assert!(facts.cpu_cores >= 1 && facts.memory_bytes > 1 << 20);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(facts.architecture.as_str(), "amd64");
    }

    #[test]
    fn the_boot_id_stays_while_the_machine_runs() {
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
    }

    #[test]
    fn pretty_names_in_every_quoting() {
        for (file, name) in [
            ("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n", Some("Debian GNU/Linux 12 (bookworm)")),
            ("PRETTY_NAME='single'", Some("single")),
            ("PRETTY_NAME=Arch", Some("Arch")),
            (r#"PRETTY_NAME="a \"b\" \\ \$c""#, Some(r#"a "b" \ $c"#)),
            (r"PRETTY_NAME='a \ b'", Some(r"a \ b")),
            ("PRETTY_NAME=first\nPRETTY_NAME=last", Some("last")),
            ("PRETTY_NAME=\"", Some("\"")),
            ("PRETTY_NAME=\"\"", None),
            ("PRETTY_NAME=", None),
            ("#PRETTY_NAME=x", None),
            ("", None),
        ] {
            assert_eq!(pretty_name(file).as_deref(), name, "{file:?}");
        }
    }

    #[test]
    fn processor_names() {
        assert_eq!(cpu_model("processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n").as_deref(), Some("AMD EPYC"));
        assert_eq!(cpu_model("processor : 0\nModel : Raspberry Pi 5\n").as_deref(), Some("Raspberry Pi 5"));
        assert_eq!(cpu_model("model name:\nnonsense"), None);
    }

    #[test]
    fn names_are_cut_and_cleaned() {
        assert_eq!(text::<6>(" a\u{1b}[1mbcd\n").as_str(), "a [1mb");
        assert_eq!(oci_architecture("aarch64"), "arm64");
    }
}
