//! Reading the kernel's table of mounts (`proc_pid_mountinfo(5)`). Tenants can make some of its lines as long as they like,
//! by moving what is mounted deep down: what is read of it is bounded.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Of one line: more than two paths can have that the kernel takes.
const MAX_LINE_BYTES: u64 = 64 << 10;
/// Of the table of a container, which cannot mount anything itself.
const MAX_CONTAINER_BYTES: u64 = 4 << 20;

/// The agent's own table, what is too long of a line left out. Paths may be no text.
pub(super) fn own() -> io::Result<Vec<u8>> {
    // Of this thread: tests have namespaces of their own.
    cut(BufReader::new(File::open("/proc/thread-self/mountinfo")?))
}

fn cut(mut table: impl BufRead) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    while table.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut kept)? > 0 {
        if !kept.ends_with(b"\n") {
            table.skip_until(b'\n')?;
            kept.push(b'\n');
        }
    }
    Ok(kept)
}

/// The table of a process in a container.
pub(super) fn of(pid: i32) -> io::Result<Vec<u8>> {
    let mut table = Vec::new();
    File::open(format!("/proc/{pid}/mountinfo"))?.take(MAX_CONTAINER_BYTES).read_to_end(&mut table)?;
    Ok(table)
}

/// Something that is mounted inside of a root.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Of the mount.
    pub(super) id: u64,
    /// Where, below the root.
    pub(super) path: PathBuf,
}

/// What is mounted inside of the mount `root`, which is at `path`. Where that cannot be read, the path found is empty.
pub(super) fn below(table: &[u8], root: u64, path: &Path) -> Vec<Found> {
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<u64>().ok();
    let lines: Vec<(u64, u64, Option<&[u8]>)> = table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let fields: Vec<&[u8]> = line.splitn(6, |byte| *byte == b' ').collect();
            let [id, parent, ..] = fields[..] else { return None };
            Some((number(id)?, number(parent)?, fields.get(4).copied()))
        })
        .collect();
    let mut all = Vec::new();
    let mut above = vec![root];
    // In any order: a mount can stand before its parent.
    while let Some(parent) = above.pop() {
        for (id, _, point) in lines.iter().filter(|(id, of, _)| *of == parent && *id != parent) {
            let point = point.map(|point| PathBuf::from(OsStr::from_bytes(&unescaped(point))));
            let inside = match point.as_deref().map(|point| point.strip_prefix(path)) {
                // Over the root itself, or at another place: none of what is inside.
                Some(Ok(inside)) if inside.as_os_str().is_empty() => continue,
                Some(Err(_)) => continue,
                Some(Ok(inside)) => inside.to_owned(),
                None => PathBuf::new(),
            };
            above.push(*id);
            all.push(Found { id: *id, path: inside });
        }
    }
    all
}

/// Spaces, tabs, newlines and backslashes are written as three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        let (byte, left) = match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => (byte, &after[3..]),
            None => (*first, after),
        };
        text.push(byte);
        rest = left;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_inside_of_a_root_are_found_by_parent_and_path() {
        let mounts = b"20 1 0:5 / / rw - ext4 x rw\n30 20 0:6 / /run/rootfs rw - tmpfs x rw\n\
            51 50 0:7 /x /run/rootfs/a/rootfs/srv/with\\040space\\134/in ro - btrfs x rw\n\
            40 30 0:7 /containers/a /run/rootfs/a/rootfs rw shared:9 - btrfs x rw\n\
            41 40 0:7 /containers/a /run/rootfs/a/rootfs rw shared:9 - btrfs x rw\n\
            50 40 0:7 /containers/b/srv /run/rootfs/a/rootfs/srv/with\\040space\\134 ro - btrfs x rw\n\
            60 30 0:7 /containers/c /run/rootfs/c/rootfs rw shared:8 - btrfs x rw\n\
            61 60 0:7 /x /run/rootfs/c/rootfs/x rw - btrfs x rw\nnonsense\n62 40 0:7 cut\n";
        let found = |id, path: &str| Found { id, path: path.into() };
        assert_eq!(
            below(mounts, 40, Path::new("/run/rootfs/a/rootfs")),
            [found(50, "srv/with space\\"), found(62, ""), found(51, "srv/with space\\/in")]
        );
    }

    #[test]
    fn no_line_is_longer_than_paths_are() {
        let long = "x".repeat(MAX_LINE_BYTES as usize);
        let table = format!("1 2 {long}{long}\n3 4 short\n5 6 {long}");
        let kept = cut(table.as_bytes()).unwrap();
        let lines: Vec<&[u8]> = kept.split(|byte| *byte == b'\n').collect();
        assert_eq!((lines.len(), lines[1], lines[3]), (4, &b"3 4 short"[..], &b""[..]));
        assert_eq!((lines[0].len() as u64, lines[2].len() as u64), (MAX_LINE_BYTES, MAX_LINE_BYTES));
        assert!(own().unwrap().ends_with(b"\n"));
    }
}
