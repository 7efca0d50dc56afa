//! The disks below a file system, as the kernel numbers them.

use super::StorageError;
use std::{
    fs, io,
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
