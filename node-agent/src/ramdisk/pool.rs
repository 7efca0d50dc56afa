//! The sizes of all RAM disks together, read from what is mounted: nothing to go wrong across crashes.

use super::RamdiskError;
use nix::sys::statvfs::statvfs;
use std::{collections::BTreeMap, path::Path};

/// Bytes that the RAM disks below `folder` may take, each counted once.
pub(super) fn taken_bytes(folder: &Path) -> Result<u64, RamdiskError> {
    let own = "/proc/self/mountinfo";
    let text = std::fs::read(own).map_err(RamdiskError::io("read", Path::new(own)))?;
    let text = String::from_utf8_lossy(&text);
    let mut sizes = BTreeMap::new();
    for (device, point) in disks(&text, &folder.to_string_lossy()) {
        let path = Path::new(point);
        let found = statvfs(path).map_err(|errno| RamdiskError::io("measure", path)(errno.into()))?;
        sizes.insert(device, found.blocks() as u64 * found.fragment_size() as u64);
    }
    Ok(sizes.values().sum())
}

/// Device and mount point of every tmpfs below `folder`. Our own paths hold nothing that the kernel escapes.
fn disks<'a>(mounts: &'a str, folder: &str) -> Vec<(&'a str, &'a str)> {
    let below = |point: &str| point.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    let parse = |line: &'a str| {
        let (mount, super_block) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(2);
        let (device, point) = (fields.next()?, fields.nth(1)?);
        (super_block.starts_with("tmpfs ") && below(point)).then_some((device, point))
    };
    mounts.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_the_folder_counts() {
        let text = "44 30 0:31 / /run/x/ramdisks/a/disk rw,nosuid shared:9 - tmpfs hoody rw\n\
                    45 30 0:31 / /run/x/ramdisks/b/disk rw,nosuid,idmapped - tmpfs hoody rw\n\
                    46 30 0:32 / /run/x/ramdisks-not/disk rw - tmpfs hoody rw\n\
                    47 30 0:33 / /run/x/ramdisks/c rw - btrfs hoody rw\n";
        let expected = [("0:31", "/run/x/ramdisks/a/disk"), ("0:31", "/run/x/ramdisks/b/disk")];
        assert_eq!(disks(text, "/run/x/ramdisks"), expected);
    }
}
