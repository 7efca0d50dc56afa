//! The files that the node writes into a container's `/etc`: `resolv.conf`, `hosts` and `hostname`. The
//! container's root owns them and may edit them in place; the next start writes them anew. They are
//! on a tmpfs of a few pages of their own, because a tenant who fills them must not fill the node's `/run`.

use super::{Bundle, RuntimeError, error::io, mounts::ETC_FILES};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::{
    fmt::Write,
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt, fchown},
    path::Path,
};

/// Room for three small files, each rounded up to a page, and for what a tenant adds.
const OPTIONS: &str = "size=256k,nr_inodes=16,mode=0711";
const FILE_MODE: u32 = 0o644;

/// Mounts `folder` and writes the files. What was mounted there before goes.
pub(super) fn write(bundle: &Bundle, folder: &Path) -> Result<(), RuntimeError> {
    unmount(folder)?;
    std::fs::create_dir_all(folder).map_err(io("create", folder))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("hoody-etc"), folder, Some("tmpfs"), flags, Some(OPTIONS))
        .map_err(|errno| io("mount", folder)(errno.into()))?;
    for name in ETC_FILES {
        let content = match name {
            "resolv.conf" => resolv_conf(bundle),
            "hosts" => hosts(&bundle.hostname),
            _ => format!("{}\n", bundle.hostname),
        };
        let path = folder.join(name);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path).map_err(io("create", &path))?;
        file.write_all(content.as_bytes()).map_err(io("write", &path))?;
        fchown(&file, Some(bundle.ids.first), Some(bundle.ids.first)).map_err(io("chown", path))?;
    }
    Ok(())
}

/// Unmounts `folder` as often as it is mounted; success where it is not or does not exist.
pub(super) fn unmount(folder: &Path) -> Result<(), RuntimeError> {
    use nix::errno::Errno;
    loop {
        match umount2(folder, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // EINVAL: not a mount point, also where another mount namespace mounted it.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(io("unmount", folder)(errno.into())),
        }
    }
}

fn resolv_conf(bundle: &Bundle) -> String {
    let mut text = String::new();
    for server in &bundle.dns {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "nameserver {server}");
    }
    text
}

fn hosts(hostname: &str) -> String {
    // 127.0.1.1 for the own name is Debian's custom: it works before there is an address.
    format!("127.0.0.1\tlocalhost\n127.0.1.1\t{hostname}\n")
}

/// True for one DNS label (RFC 1123), which cannot break out of a line of these files.
pub(super) fn is_hostname(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_label_is_a_hostname() {
        assert!(is_hostname("web-1"));
        for bad in ["", "a b", "a\n1.2.3.4 evil", "a.b", "-a", "a-", &"a".repeat(64)] {
            assert!(!is_hostname(bad), "{bad:?}");
        }
    }

    #[test]
    fn hosts_name_the_container() {
        assert!(hosts("web").contains("127.0.1.1\tweb\n"));
    }
}
