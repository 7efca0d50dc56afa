//! The disks below a file system, as the kernel numbers them.

use super::{StorageError, ioctl};
use std::{
    fs, io,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

const FILE_SYSTEMS: &str = "/sys/fs/btrfs";
const DEVICES: &str = "/sys/dev/block";
const MOUNTINFO: &str = "/proc/self/mountinfo";

/// `major:minor` of every whole disk that the btrfs file system mounted at `pool` is on. Limits of throughput are
/// of disks, not of their partitions.
pub fn devices(pool: &Path) -> Result<Vec<String>, StorageError> {
    find(pool).map_err(|source| StorageError::Io { action: "find the disks of", path: pool.to_owned(), source })
}

/// Errors of every kind that the kernel has counted on the devices of a pool's file system (Linux 5.14 and later: sysfs,
/// `devinfo/<device>/error_stats`).
pub(super) fn errors(pool: BorrowedFd<'_>) -> io::Result<u64> {
    let id = ioctl::file_system_id(pool)?;
    let mut errors = 0u64;
    for device in fs::read_dir(Path::new(FILE_SYSTEMS).join(id).join("devinfo"))? {
        errors = errors.saturating_add(sum(&fs::read_to_string(device?.path().join("error_stats"))?));
    }
    Ok(errors)
}

/// The sum of lines such as `write_errs 3`; the first line, `(valid)` or not, has no number.
fn sum(text: &str) -> u64 {
    let count = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
    text.lines().filter_map(count).fold(0, u64::saturating_add)
}

fn find(pool: &Path) -> io::Result<Vec<String>> {
    let pool = pool.canonicalize()?;
    let table = fs::read_to_string(MOUNTINFO)?;
    // The last mount at a place is the one that is seen.
    let source = table.lines().rev().find_map(|line| source_at(line, &pool));
    let source = source.ok_or(io::Error::from(io::ErrorKind::NotFound))?.canonicalize()?;
    let name = source.file_name().unwrap_or_default();
    for file_system in fs::read_dir(FILE_SYSTEMS)? {
        let folder = file_system?.path().join("devices");
        // Not one of a file system: `features`, for example.
        if !folder.join(name).exists() {
            continue;
        }
        let disks: io::Result<Vec<_>> = fs::read_dir(&folder)?.map(|device| whole_disk(&device?.path())).collect();
        let mut disks = disks?;
        disks.sort();
        disks.dedup();
        return Ok(disks);
    }
    Err(io::ErrorKind::NotFound.into())
}

/// The device of a line of the mount table (proc_pid_mountinfo(5)) where it is of btrfs at `point`.
fn source_at(line: &str, point: &Path) -> Option<PathBuf> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut words = file_system.split(' ');
    let here = Path::new(mount.split(' ').nth(4)?) == point;
    (words.next()? == "btrfs" && here).then(|| words.next().map(PathBuf::from))?
}

fn whole_disk(device: &Path) -> io::Result<String> {
    let number = |folder: &Path| fs::read_to_string(folder.join("dev")).map(|text| text.trim().to_owned());
    let folder = Path::new(DEVICES).join(number(device)?).canonicalize()?;
    match folder.parent() {
        Some(disk) if folder.join("partition").exists() => number(disk),
        _ => number(&folder),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_every_kind_are_added_up() {
        assert_eq!(sum("write_errs 1\nread_errs 2\nflush_errs 0\ncorruption_errs 4\ngeneration_errs 0\n"), 7);
        assert_eq!(sum("invalid\n"), 0);
    }
}
