//! Reads a container's measurements and whether memory ran out, from v1 and v2 files
//! (`Documentation/admin-guide/cgroup-v1/` and `cgroup-v2.rst` of the kernel).

use super::{
    super::{CgroupStats, RuntimeError, error::io},
    Cgroups, Group,
};
use hoody_protocol::id::ContainerId;
use std::path::PathBuf;

impl Cgroups {
    /// What the kernel counts for the container; all `None` where it has no group.
    pub(in super::super) fn stats(&self, id: ContainerId) -> Result<CgroupStats, RuntimeError> {
        let memory = self.number(id, "memory", "memory.usage_in_bytes", "memory.current")?;
        Ok(CgroupStats {
            cpu_usage_ns: self.cpu_usage_ns(id)?,
            memory_bytes: memory,
            memory_peak_bytes: self.number(id, "memory", "memory.max_usage_in_bytes", "memory.peak")?,
            swap_bytes: self.swap_bytes(id, memory)?,
            processes: self
                .number(id, "pids", "pids.current", "pids.current")?
                .map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
        })
    }

    /// How many processes of the container the kernel ended for lack of memory.
    pub(in super::super) fn oom_kills(&self, id: ContainerId) -> Result<u64, RuntimeError> {
        let text = self.text(id, "memory", "memory.oom_control", "memory.events")?;
        Ok(text.and_then(|text| keyed(&text, "oom_kill")).unwrap_or(0))
    }

    /// Memory in use that the kernel cannot take back by dropping file pages and caches; `None` where there
    /// is no group.
    pub(in super::super) fn unreclaimable_memory_bytes(&self, id: ContainerId) -> Result<Option<u64>, RuntimeError> {
        let used = self.number(id, "memory", "memory.usage_in_bytes", "memory.current")?;
        let Some(used) = used else { return Ok(None) };
        let Some(text) = self.text(id, "memory", "memory.stat", "memory.stat")? else { return Ok(None) };
        // v1 says what the group and all below it have under other names.
        let reclaimable: u64 = ["inactive_file", "active_file", "slab_reclaimable"]
            .iter()
            .filter_map(|key| keyed(&text, &format!("total_{key}")).or_else(|| keyed(&text, key)))
            .sum();
        Ok(Some(used.saturating_sub(reclaimable)))
    }

    fn cpu_usage_ns(&self, id: ContainerId) -> Result<Option<u64>, RuntimeError> {
        let Some(text) = self.text(id, "cpuacct", "cpuacct.usage", "cpu.stat")? else { return Ok(None) };
        let microseconds = || keyed(&text, "usage_usec").map(|usage| usage.saturating_mul(1000));
        Ok(plain(&text).or_else(microseconds))
    }

    /// v1 counts memory and swap together, v2 swap alone.
    fn swap_bytes(&self, id: ContainerId, memory: Option<u64>) -> Result<Option<u64>, RuntimeError> {
        let both = "memory.memsw.usage_in_bytes";
        let Some(hierarchy) = self.controlling("memory") else { return Ok(None) };
        let value = self.number(id, "memory", both, "memory.swap.current")?;
        Ok(match hierarchy.unified {
            true => value,
            // Read at two moments: the sum may be the smaller one.
            false => value.zip(memory).map(|(both, memory)| both.saturating_sub(memory)),
        })
    }

    fn number(&self, id: ContainerId, controller: &str, v1: &str, v2: &str) -> Result<Option<u64>, RuntimeError> {
        Ok(self.text(id, controller, v1, v2)?.and_then(|text| plain(&text)))
    }

    fn text(&self, id: ContainerId, controller: &str, v1: &str, v2: &str) -> Result<Option<String>, RuntimeError> {
        let Some(hierarchy) = self.controlling(controller) else { return Ok(None) };
        let path: PathBuf = self.folder(hierarchy, Group::Container(id)).join(if hierarchy.unified { v2 } else { v1 });
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            // ENODEV: the group was removed while the file was open.
            Err(source) if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(None),
            Err(source) => Err(io("read", path)(source)),
        }
    }
}

/// A file that is one number.
fn plain(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A line `key number` of a flat keyed file.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.split_once(' ').filter(|(name, _)| *name == key)?.1.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_of_out_of_memory_are_read() {
        assert_eq!(keyed("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), Some(3));
        let v2 = "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 0\n";
        assert_eq!(keyed(v2, "oom_kill"), Some(1));
        assert_eq!(keyed("oom_killer 4\n", "oom_kill"), None);
        assert_eq!(keyed("oom_kill x\n", "oom_kill"), None);
    }

    #[test]
    fn processor_time_is_one_number_or_a_key() {
        assert_eq!(plain("123456\n"), Some(123_456));
        assert_eq!(plain("max\n"), None);
        let v2 = "usage_usec 250\nuser_usec 200\nsystem_usec 50\n";
        assert_eq!(plain(v2), None);
        assert_eq!(keyed(v2, "usage_usec"), Some(250));
    }
}
