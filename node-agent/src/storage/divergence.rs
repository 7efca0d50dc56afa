//! Whether somebody changed a container since it was made from what another had: the difference, as the kernel would send
//! it, without what the platform writes into every container itself.

use super::{made, receive::stream::Command, send};
use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// Written by the platform: identity, key, and the places where something of its own is mounted.
const OWN: [&str; 16] = [
    "etc",
    "etc/hostname",
    "etc/hosts",
    "etc/machine-id",
    "etc/resolv.conf",
    "root",
    "root/.ssh",
    "root/.ssh/authorized_keys",
    "mnt",
    "mnt/shares",
    "ramdisk",
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
];

/// True where the subvolume of `top` has something that somebody else than the platform changed since `base`.
pub(super) fn diverged(top: OwnedFd, base: u64) -> io::Result<bool> {
    // And folders for shares at places of their own.
    let made = made::paths(top.as_fd())?;
    send::differs(top, base, |command| is_change(command, &made))
}

fn is_change(command: &Command<'_>, made: &[PathBuf]) -> bool {
    let is_foreign =
        |path: &[u8]| is_foreign(path) && !made.iter().any(|made| made == Path::new(OsStr::from_bytes(path)));
    match *command {
        // What a look at a file changes is no change of it.
        Command::Subvolume { .. } | Command::Snapshot { .. } | Command::Times { .. } | Command::End => false,
        // Written down by the pool itself.
        Command::SetAttribute { name, .. } | Command::RemoveAttribute { name, .. } if name.starts_with(b"trusted.") => {
            false
        }
        Command::Rename { from, to } => is_foreign(from) || is_foreign(to),
        Command::Link { path, .. }
        | Command::Symlink { path, .. }
        | Command::MakeFile { path }
        | Command::MakeFolder { path }
        | Command::MakeNode { path, .. }
        | Command::MakeFifo { path }
        | Command::MakeSocket { path }
        | Command::Unlink { path }
        | Command::RemoveFolder { path }
        | Command::SetAttribute { path, .. }
        | Command::RemoveAttribute { path, .. }
        | Command::Write { path, .. }
        | Command::Clone { path, .. }
        | Command::Truncate { path, .. }
        | Command::Mode { path, .. }
        | Command::Owner { path, .. }
        | Command::Extent { path, .. } => is_foreign(path),
    }
}

/// True where the path is neither the platform's nor the name that the kernel gives an inode between two of its own.
fn is_foreign(path: &[u8]) -> bool {
    !OWN.iter().any(|own| own.as_bytes() == path) && !is_between(path)
}

/// `o<inode>-<generation>-<number>`, at the top: whatever it is of comes from, or gets, a name of its own.
fn is_between(path: &[u8]) -> bool {
    let Some(numbers) = path.strip_prefix(b"o") else { return false };
    let numbers: Vec<&[u8]> = numbers.split(|byte| *byte == b'-').collect();
    numbers.len() == 3 && numbers.iter().all(|n| !n.is_empty() && n.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_platform_writes_is_no_change() {
        let rename =
            |from: &'static str, to: &'static str| Command::Rename { from: from.as_bytes(), to: to.as_bytes() };
        let made = [PathBuf::from("srv/placed")];
        for own in [
            rename("o259-12-0", "srv/placed"),
            Command::Extent { path: b"etc/machine-id", size: 33 },
            Command::MakeFolder { path: b"o259-12-0" },
            rename("o259-12-0", "mnt/shares"),
            Command::Mode { path: b"proc", mode: 0o755 },
        ] {
            assert!(!is_change(&own, &made), "{own:?}");
        }
        for changed in [
            Command::MakeFolder { path: b"srv/placed/more" },
            Command::Extent { path: b"etc/passwd", size: 1 },
            rename("o259-12-0", "srv/data"),
            rename("srv/data", "o259-12-0"),
            Command::Unlink { path: b"o1-2" },
            Command::Mode { path: b"", mode: 0o700 },
        ] {
            assert!(is_change(&changed, &made), "{changed:?}");
        }
    }
}
