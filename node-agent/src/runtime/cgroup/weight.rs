//! The share of the disk that a container gets while others want it too: proportional to its processors, as
//! their weight is. The kernel has a file for it only where a scheduler or controller honours it (BFQ, or
//! v2's cost model); where there is none, nothing is set.

use super::{
    super::{RuntimeError, error::io},
    Cgroups, Group,
};
use hoody_protocol::{container::Limits, id::ContainerId};
use std::{fs::File, io::Write};

/// Weight of a container with one core, the kernel's default.
const WEIGHT_PER_CORE: u64 = 100;
/// What every file takes.
const RANGE: (u64, u64) = (1, 1000);
/// By hierarchy: v1's BFQ; v2's BFQ and v2's cost model.
const V1_FILES: [&str; 1] = ["blkio.bfq.weight"];
const V2_FILES: [&str; 2] = ["io.bfq.weight", "io.weight"];

impl Cgroups {
    /// Sets the container's weight wherever the kernel takes one.
    pub(in super::super) fn weigh_io(&self, id: ContainerId, limits: &Limits) -> Result<(), RuntimeError> {
        let Some(hierarchy) = self.controlling("blkio") else { return Ok(()) };
        let folder = self.folder(hierarchy, Group::Container(id));
        let files = if hierarchy.unified { &V2_FILES[..] } else { &V1_FILES[..] };
        for name in files {
            let path = folder.join(name);
            // Opened as it is: v2 answers the making of a file with EACCES, not with ENOENT.
            let mut file = match File::options().write(true).open(&path) {
                Ok(file) => file,
                Err(source) if source.kind() == std::io::ErrorKind::NotFound => continue,
                Err(source) => return Err(io("open", path)(source)),
            };
            file.write_all(weight(limits.cpu_millis).to_string().as_bytes()).map_err(io("write", path))?;
        }
        Ok(())
    }
}

fn weight(cpu_millis: u32) -> u64 {
    let (least, most) = RANGE;
    (u64::from(cpu_millis) * WEIGHT_PER_CORE / 1000).clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_follow_the_processors_within_what_the_kernel_takes() {
        assert_eq!([10, 250, 1000, 4000, 100_000].map(weight), [1, 25, 100, 400, 1000]);
    }
}
