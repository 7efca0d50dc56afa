//! Times and what a process uses, and how benchmarks print them.

use anyhow::{Context, Result};
use std::time::{Duration, Instant};

const MIB_KIB: f64 = 1024.0;

/// Times of one thing, measured many times.
#[derive(Debug, Default, Clone)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// Adds one.
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Adds all of another.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Milliseconds that this share of them did not exceed; NaN where nothing was measured.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        let mut times = self.0.clone();
        times.sort_unstable();
        let index = (times.len() as f64 * percent / 100.0) as usize;
        times.get(index.min(times.len().saturating_sub(1))).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    }
}

/// A process and its use of processors up to a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    cpu: Duration,
    at: Instant,
}

impl Usage {
    /// Of this process, now.
    pub(crate) fn of(pid: i32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // proc(5): utime and stime are fields 14 and 15; the second field, in brackets, may hold anything.
        let rest = stat.rsplit_once(')').context("the form of stat")?.1;
        let ticks: u64 = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        let hertz = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("clock ticks a second")?;
        Ok(Self { cpu: Duration::from_secs_f64(ticks as f64 / hertz as f64), at: Instant::now() })
    }

    /// Cores in use between `earlier` and this.
    pub(crate) fn cores_since(&self, earlier: &Self) -> f64 {
        (self.cpu.saturating_sub(earlier.cpu)).as_secs_f64() / (self.at - earlier.at).as_secs_f64()
    }
}

/// Memory of a process, MiB: resident now, and at most so far.
pub(crate) fn memory(pid: i32) -> Result<(f64, f64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<f64> {
        let line = status.lines().find(|line| line.starts_with(name)).with_context(|| name.to_owned())?;
        let kib: f64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
        Ok(kib / MIB_KIB)
    };
    Ok((field("VmRSS")?, field("VmHWM")?))
}

/// "release" or "debug": what this program, and all beside it, was built as.
pub(crate) fn profile() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}
