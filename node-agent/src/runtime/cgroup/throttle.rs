//! The most that a container may read from and write to the disks of the pool per second, whoever else wants
//! them: v1's throttling, v2's `io.max`. On v1 it holds for reads, direct and synchronous writes; what the kernel
//! writes back later by itself is nobody's there. v2 knows whose it is (Documentation/admin-guide/cgroup-v2.rst,
//! "Writeback").

use super::{
    super::{DiskRates, RuntimeError, error::io},
    Cgroups, Group,
};
use hoody_protocol::id::ContainerId;
use std::{io::ErrorKind, path::Path};

const V1_READ: &str = "blkio.throttle.read_bps_device";
const V1_WRITE: &str = "blkio.throttle.write_bps_device";
const V2: &str = "io.max";

impl Cgroups {
    /// Puts the rates in force for every disk where they are not; true where something was changed. Nothing is
    /// done where the kernel cannot limit and no rate is asked for.
    pub(in super::super) fn throttle_io(&self, id: ContainerId, rates: &DiskRates) -> Result<bool, RuntimeError> {
        let Some(hierarchy) = self.controlling("blkio") else { return Ok(false) };
        let folder = self.folder(hierarchy, Group::Container(id));
        let (read, write) = (rates.read_bytes, rates.write_bytes);
        let mut changed = false;
        for device in &rates.devices {
            if hierarchy.unified {
                changed |= ensure(&folder.join(V2), device, &v2(read, write), &v2(0, 0))?;
            } else {
                changed |= ensure(&folder.join(V1_READ), device, &read.to_string(), "0")?;
                changed |= ensure(&folder.join(V1_WRITE), device, &write.to_string(), "0")?;
            }
        }
        Ok(changed)
    }
}

/// Makes the device's line of the file say `wanted`; no line stands for `unlimited`.
fn ensure(path: &Path, device: &str, wanted: &str, unlimited: &str) -> Result<bool, RuntimeError> {
    let text = match std::fs::read_to_string(path) {
        // The kernel, or this hierarchy, has no such controller.
        Err(source) if source.kind() == ErrorKind::NotFound && wanted == unlimited => return Ok(false),
        text => text.map_err(io("read", path))?,
    };
    if line_of(&text, device).unwrap_or(unlimited) == wanted {
        return Ok(false);
    }
    std::fs::write(path, format!("{device} {wanted}")).map_err(io("write", path))?;
    Ok(true)
}

fn line_of<'a>(text: &'a str, device: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(device)?.strip_prefix(' ')).map(str::trim)
}

/// All four limits, as the kernel prints them.
fn v2(read: u64, write: u64) -> String {
    let limit = |bytes: u64| if bytes == 0 { "max".to_owned() } else { bytes.to_string() };
    format!("rbps={} wbps={} riops=max wiops=max", limit(read), limit(write))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_only_where_it_differs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("io.max");
        assert!(!ensure(&path, "8:0", "0", "0").unwrap(), "nothing is asked of a kernel that cannot");
        assert!(ensure(&path, "8:0", "5", "0").is_err());
        std::fs::write(&path, "18:0 7\n8:0 5\n").unwrap();
        assert!(!ensure(&path, "8:0", "5", "0").unwrap());
        assert!(ensure(&path, "8:0", "6", "0").unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "8:0 6");
        assert!(ensure(&path, "8:0", "0", "0").unwrap(), "taken away again");
        std::fs::write(&path, "18:0 7\n").unwrap();
        assert!(!ensure(&path, "8:0", "0", "0").unwrap());
        assert_eq!(v2(0, 9), "rbps=max wbps=9 riops=max wiops=max");
    }
}
