//! Kernel settings of a network namespace (`/proc/sys/net`, kernel doc networking/ip-sysctl). The
//! namespace is that of the thread which opens the file. Settings are written only where they differ:
//! many of them take the kernel's global network lock.

use super::NetworkError;
use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

const IPV4: &str = "/proc/sys/net/ipv4";
const IPV6_INTERFACES: &str = "/proc/sys/net/ipv6/conf";

/// Forwarding and what must hold for the whole namespace, so that the interfaces' own settings count.
pub(super) fn prepare_node() -> Result<(), NetworkError> {
    set(&Path::new(IPV4).join("ip_forward"), "1")?;
    release_reverse_path_filter()?;
    // In force where either "all" or the interface says so.
    set(&ipv4("all", "send_redirects"), "0")
}

/// The host side of a container's link, before it comes up.
pub(super) fn prepare_host_interface(interface: &str) -> Result<(), NetworkError> {
    host_settings(interface).try_for_each(|(path, value)| set(&path, value))
}

/// True where the settings of the host side are as [`prepare_host_interface`] leaves them. They may not
/// be: systemd's udev rules apply sysctl.d to every new interface, at any time after it appears.
pub(super) fn is_host_interface_prepared(interface: &str) -> Result<bool, NetworkError> {
    for (path, value) in host_settings(interface) {
        match read(&path) {
            Ok(found) if found.trim() == value => {}
            Err(error) if !is_missing(&error) => return Err(error),
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Settings of the host side. A kernel without IPv6 has nothing to close.
fn host_settings(interface: &str) -> impl Iterator<Item = (PathBuf, &'static str)> {
    const SETTINGS: [(&str, &str); 6] = [
        ("forwarding", "1"),
        ("rp_filter", STRICT),
        ("accept_redirects", "0"),
        ("send_redirects", "0"),
        ("accept_source_route", "0"),
        ("proxy_arp", "0"),
    ];
    let ipv6 = Path::new(IPV6_INTERFACES);
    let ipv6 = ipv6.exists().then(|| (ipv6.join(interface).join("disable_ipv6"), "1"));
    let interface = interface.to_owned();
    SETTINGS.into_iter().map(move |(setting, value)| (ipv4(&interface, setting), value)).chain(ipv6)
}

/// Closes IPv6 for every interface that is there and every one that will come. A kernel without IPv6
/// has nothing to close.
pub(super) fn disable_ipv6() -> Result<(), NetworkError> {
    for interface in entries(IPV6_INTERFACES)? {
        match set(&Path::new(IPV6_INTERFACES).join(&interface).join("disable_ipv6"), "1") {
            // An interface that went away meanwhile.
            Err(error) if is_missing(&error) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

const STRICT: &str = "1";
const LOOSE: &str = "2";

/// The greater of "all" and the interface's own value is in force, and loose is greater than strict:
/// where "all" says loose, no interface can be strict. Then every interface that is there and every one
/// that will come is told loose itself, which changes nothing for it, and "all" no longer says it.
fn release_reverse_path_filter() -> Result<(), NetworkError> {
    let all = ipv4("all", "rp_filter");
    if read(&all)?.trim() != LOOSE {
        return Ok(());
    }
    tracing::info!(
        "moving the loose reverse path filter from all interfaces to each, so that containers' can be strict"
    );
    for interface in entries(&format!("{IPV4}/conf"))? {
        // Ours stay strict where they are already.
        if interface == "all" || super::identity::is_host_interface(&interface) {
            continue;
        }
        match set(&ipv4(&interface, "rp_filter"), LOOSE) {
            Err(error) if is_missing(&error) => {}
            outcome => outcome?,
        }
    }
    set(&all, "0")
}

fn ipv4(interface: &str, setting: &str) -> PathBuf {
    Path::new(IPV4).join("conf").join(interface).join(setting)
}

fn entries(folder: &str) -> Result<Vec<String>, NetworkError> {
    let failed = |source| NetworkError::Io { action: "list", path: folder.into(), source };
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in listing {
        match entry.map_err(failed)?.file_name().into_string() {
            Ok(name) => names.push(name),
            Err(name) => return Err(failed(io::Error::other(format!("{name:?} is not UTF-8")))),
        }
    }
    Ok(names)
}

fn read(path: &Path) -> Result<String, NetworkError> {
    fs::read_to_string(path).map_err(|source| NetworkError::Io { action: "read", path: path.into(), source })
}

fn set(path: &Path, value: &str) -> Result<(), NetworkError> {
    if read(path)?.trim() == value {
        return Ok(());
    }
    fs::write(path, value).map_err(|source| NetworkError::Io { action: "write", path: path.into(), source })
}

fn is_missing(error: &NetworkError) -> bool {
    matches!(error, NetworkError::Io { source, .. } if source.kind() == ErrorKind::NotFound)
}
