//! Folders of one container that appear in another on the same server, and RAM disks.

use crate::{
    bounded::Text,
    id::{ContainerId, ShareId},
    time::UnixMs,
};
use serde::{Deserialize, Serialize};

/// Shares that one container mounts.
pub const MAX_SHARES: usize = 32;
/// Bytes of the longest path.
pub const MAX_PATH_BYTES: usize = 4096;
/// Bytes of the longest place of a share's own.
pub const MAX_PLACE_BYTES: usize = 1024;
/// Characters of the longest name that a share is mounted under.
pub const MAX_NAME: usize = 63;
/// Where shares appear in a container: below it, each by its name.
pub const MOUNT_POINT: &str = "/mnt/shares";
/// Where a RAM disk appears in a container.
pub const RAMDISK: &str = "/ramdisk";

/// What is never shared, nor anything below it: it is the kernel's or the platform's, and what lies beneath in the
/// container's own file system means nothing.
const CLOSED: [&str; 5] = ["/proc", "/sys", "/dev", MOUNT_POINT, RAMDISK];
/// Not shared as a whole: something of the platform's is mounted in it.
const CLOSED_ITSELF: [&str; 2] = ["/", "/mnt"];
/// What the node or a container's init mounts something over: a share below would not be seen.
const COVERED: &str = "/run";
/// A share over one of these would leave nothing that runs; those below them are the target's own affair.
const NEEDED: [&str; 14] = [
    "/bin",
    "/boot",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/sbin",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib64",
    "/usr/sbin",
    "/var",
];
/// The node's own files are mounted here.
const FILES: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// One folder of another container that a container mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareMount {
    /// The share.
    pub id: ShareId,
    /// Whose folder it is: a container of the same server.
    pub source: ContainerId,
    /// The folder, absolute in that container.
    pub path: Text<MAX_PATH_BYTES>,
    /// It appears as `/mnt/shares/<name>`.
    pub name: Text<MAX_NAME>,
    /// It appears here, too: a folder in the container that mounts it, made where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Text<MAX_PLACE_BYTES>>,
    /// Nothing can be written through it.
    pub readonly: bool,
    /// Not mounted from then on, also where the control plane cannot be reached; absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixMs>,
}

impl ShareMount {
    /// What is wrong with it, for people.
    pub fn check(&self) -> Result<(), &'static str> {
        if !is_name(&self.name) {
            return Err("the name of a share is not a plain word");
        }
        if self.place.as_ref().is_some_and(|place| normal_place(place).as_deref() != Ok(place.as_str())) {
            return Err("the place of a share cannot be one");
        }
        match normal_path(&self.path) {
            Ok(path) if path == self.path.as_str() => Ok(()),
            Ok(_) => Err("the path of a share is not in its plain form"),
            Err(_) => Err("the path of a share cannot be shared"),
        }
    }
}

/// Why a share is not mounted in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareFailure {
    /// The share.
    pub id: ShareId,
    /// Why.
    pub problem: ShareProblem,
}

/// Why a share is not mounted. One word: a full batch of reports with every share failing is still one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShareProblem {
    /// The source, or the folder in it, is not there.
    SourceMissing,
    /// The path leads to something that is no folder.
    NotAFolder,
    /// The path leads to a system path.
    SystemPath,
    /// The container was started before it could take shares, or with something else at `/mnt/shares`.
    RestartRequired,
    /// The share's own place in the container that mounts it leads to something that is no folder, to a system path, or
    /// into another share.
    PlaceTaken,
    /// The server failed; or a reason that this build does not know.
    #[serde(other)]
    Failed,
}

impl ShareProblem {
    /// A sentence for people.
    pub fn message(self) -> &'static str {
        match self {
            Self::SourceMissing => "the folder is not there: make it in the source container; it is mounted then",
            Self::NotAFolder => "the path leads to something that is no folder: share a folder",
            Self::SystemPath => "the path leads to a system path: share a folder of its own",
            Self::RestartRequired => "the container was not started for this: restart it, and the share is mounted",
            Self::PlaceTaken => {
                "mount_path leads to something that is no folder, to a system path or into another share: choose \
                 another, or make room there"
            }
            Self::Failed => "the server could not mount it and tries again",
        }
    }
}

/// Who uses a RAM disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RamdiskScope {
    /// The container alone.
    Container,
    /// The containers of its project on the same server that say the same.
    Project,
}

/// True for a word of 3 to 63 lowercase letters, digits, hyphens and underscores that begins and ends with a letter or
/// digit.
pub fn is_name(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    (3..=MAX_NAME).contains(&bytes.len())
        && bytes.iter().all(|byte| alphanumeric(*byte) || matches!(byte, b'-' | b'_'))
        && bytes.first().is_some_and(|byte| alphanumeric(*byte))
        && bytes.last().is_some_and(|byte| alphanumeric(*byte))
}

/// The path without empty and `.` parts, where it can be shared; else what is wrong with it, worded to follow the
/// field's name.
pub fn normal_path(path: &str) -> Result<String, &'static str> {
    let normal = plain(path)?;
    if is_closed(&normal) {
        return Err("is a system path: share a folder of its own, such as /srv/data");
    }
    Ok(normal)
}

/// The path without empty and `.` parts, where a share can appear; else what is wrong with it, worded likewise.
pub fn normal_place(path: &str) -> Result<String, &'static str> {
    let normal = plain(path)?;
    if normal.len() > MAX_PLACE_BYTES {
        return Err("takes at most 1024 bytes");
    }
    let is_file = || FILES.iter().any(|file| is_at_or_below(&normal, file));
    if is_closed(&normal) || is_at_or_below(&normal, COVERED) || NEEDED.contains(&normal.as_str()) || is_file() {
        return Err("is a system path: choose a folder of its own, such as /srv/data, or one below /mnt");
    }
    Ok(normal)
}

/// True where one of two plain paths is the other or leads into it.
pub fn overlap(one: &str, other: &str) -> bool {
    is_at_or_below(one, other) || is_at_or_below(other, one)
}

fn plain(path: &str) -> Result<String, &'static str> {
    if !path.starts_with('/') {
        return Err("must be an absolute path");
    }
    if path.len() > MAX_PATH_BYTES || path.contains('\0') {
        return Err("takes at most 4096 bytes, none of them NUL");
    }
    let mut normal = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." {
            return Err("must not contain \"..\"");
        }
        normal.push('/');
        normal.push_str(part);
    }
    if normal.is_empty() {
        normal.push('/');
    }
    Ok(normal)
}

fn is_closed(normal: &str) -> bool {
    CLOSED_ITSELF.contains(&normal) || CLOSED.iter().any(|closed| is_at_or_below(normal, closed))
}

fn is_at_or_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_form_and_system_paths_none() {
        for (path, normal) in
            [("/srv", "/srv"), ("//srv/./data/", "/srv/data"), ("/mnt/data", "/mnt/data"), ("/procs", "/procs")]
        {
            assert_eq!(normal_path(path).as_deref(), Ok(normal), "{path}");
        }
        let closed = ["/", "//", "/.", "/proc", "/proc/1", "/sys/fs", "/dev", "/mnt", "/mnt/shares/x", "/ramdisk/"];
        for path in closed.into_iter().chain(["", "srv", "/srv/../etc", "/a\0b", &format!("/{}", "x".repeat(4096))]) {
            assert!(normal_path(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn names_are_plain_words() {
        for good in ["abc", "a-b", "db_backups", "0123456789abcdef01234567"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "ab", "-ab", "ab-", "a/b", "a.b", "..", "Abc", "a b", &"x".repeat(64)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_mount_that_is_not_plain_is_refused() {
        let share = |path: &str, name: &str| ShareMount {
            id: ShareId::generate(),
            source: ContainerId::generate(),
            path: Text::truncated(path),
            name: Text::truncated(name),
            place: None,
            readonly: true,
            until: None,
        };
        assert_eq!(share("/srv/data", "data").check(), Ok(()));
        for (path, name) in [("/srv/data/", "data"), ("/srv/../x", "data"), ("/proc/1", "data"), ("/srv", "../x")] {
            assert!(share(path, name).check().is_err(), "{path} {name}");
        }
        let placed = |place: &str| ShareMount { place: Some(Text::truncated(place)), ..share("/srv/data", "data") };
        assert_eq!(placed("/mnt/shared").check(), Ok(()));
        for place in ["/mnt/shared/", "/run/x", "/mnt/shares/x", "/", "x", "/a/../b"] {
            assert!(placed(place).check().is_err(), "{place}");
        }
    }

    #[test]
    fn places_are_closed_where_a_share_would_not_be_seen() {
        assert_eq!(normal_place("//mnt//shared/").as_deref(), Ok("/mnt/shared"));
        assert_eq!(normal_place("/runs/x").as_deref(), Ok("/runs/x"));
        let long = format!("/{}", "x".repeat(1024));
        assert_eq!(normal_place("/etc/nginx/conf.d").as_deref(), Ok("/etc/nginx/conf.d"));
        let closed =
            "/ /mnt /mnt/shares /mnt/shares/x /proc /run /run/x /ramdisk /etc /usr//bin/ /etc/hosts /etc/hosts/x x";
        for place in closed.split(' ').chain([long.as_str()]) {
            assert!(normal_place(place).is_err(), "{place}");
        }
        assert!(overlap("/a", "/a/b") && overlap("/a/b", "/a") && overlap("/a", "/a"));
        assert!(!overlap("/a", "/ab") && !overlap("/a/b", "/a/c"));
    }
}
