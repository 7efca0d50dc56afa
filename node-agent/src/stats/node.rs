//! The node as a whole.

use super::{StatsError, procfs};
use crate::storage::Usage;
use hoody_protocol::stats::NodeStats;
use std::{fs, path::PathBuf};

/// Measures the node; remembers the processor counters of the last time.
#[derive(Debug)]
pub struct NodeSampler {
    proc: PathBuf,
    before: Option<procfs::CpuTimes>,
}

impl Default for NodeSampler {
    fn default() -> Self {
        Self::new("/proc")
    }
}

impl NodeSampler {
    /// Reads the proc file system mounted at `proc`.
    pub fn new(proc: impl Into<PathBuf>) -> Self {
        Self { proc: proc.into(), before: None }
    }

    /// Measures now. The busy share is that since the last call, and 0 at the first. `pool` is the storage
    /// pool's; where it could not be read, its numbers are 0.
    pub fn sample(&mut self, pool: Option<Usage>) -> Result<NodeStats, StatsError> {
        let cpu = self.read("stat", procfs::cpu_times)?;
        let load = self.read("loadavg", procfs::load_averages)?;
        let memory = self.read("meminfo", procfs::memory)?;
        let uptime_s = self.read("uptime", procfs::uptime_s)?;
        let busy = self.before.replace(cpu).and_then(|before| procfs::busy_percent(before, cpu));
        Ok(NodeStats {
            cores: cpu.cores,
            cpu_busy_percent: busy.unwrap_or(0.0),
            load,
            memory_total_bytes: memory.total,
            memory_used_bytes: memory.total - memory.available,
            swap_total_bytes: memory.swap_total,
            swap_used_bytes: memory.swap_total.saturating_sub(memory.swap_free),
            pool_total_bytes: pool.map_or(0, |pool| pool.total_bytes),
            pool_used_bytes: pool.map_or(0, |pool| pool.used_bytes),
            uptime_s,
            pool_device_errors: 0,
        })
    }

    fn read<T>(&self, file: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, StatsError> {
        let path = self.proc.join(file);
        match fs::read_to_string(&path) {
            Ok(text) => parse(&text).ok_or(StatsError::Malformed { path }),
            Err(source) => Err(StatsError::Read { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_this_machine() {
        let mut sampler = NodeSampler::default();
        let pool = Usage { used_bytes: 3, total_bytes: 7 };
        let first = sampler.sample(Some(pool)).unwrap();
        assert_eq!((first.pool_used_bytes, first.pool_total_bytes, first.cpu_busy_percent), (3, 7, 0.0));
        assert!(first.cores >= 1 && first.uptime_s > 0);
        assert!(first.memory_used_bytes > 0 && first.memory_used_bytes < first.memory_total_bytes);
        let second = sampler.sample(None).unwrap();
        assert!((0.0..=100.0).contains(&second.cpu_busy_percent));
        assert_eq!(second.pool_total_bytes, 0);
    }

    #[test]
    fn the_busy_share_is_that_since_the_last_sample() {
        let proc = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("stat", "cpu  10 0 0 90\n"),
            ("loadavg", "0 0 0"),
            ("meminfo", "MemTotal: 2 kB\nMemAvailable: 1 kB\n"),
            ("uptime", "1.0 1.0"),
        ] {
            fs::write(proc.path().join(file), text).unwrap();
        }
        let mut sampler = NodeSampler::new(proc.path());
        sampler.sample(None).unwrap();
        fs::write(proc.path().join("stat"), "cpu  85 0 0 115\n").unwrap();
        assert_eq!(sampler.sample(None).unwrap().cpu_busy_percent, 75.0);

        fs::write(proc.path().join("uptime"), "soon").unwrap();
        assert!(matches!(sampler.sample(None), Err(StatsError::Malformed { path }) if path.ends_with("uptime")));
        fs::remove_file(proc.path().join("uptime")).unwrap();
        assert!(matches!(sampler.sample(None), Err(StatsError::Read { path, .. }) if path.ends_with("uptime")));
    }
}
