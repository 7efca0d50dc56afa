//! Parsers of the kernel's text files (proc(5)). Pure: text in, numbers out; `None` where the text is
//! not what the manual says, never a panic and never a number that is not one.

/// Bytes of the unit that meminfo calls kB.
const KIB: u64 = 1024;

/// Processor time since boot, in ticks over all cores, and how many cores there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuTimes {
    /// All time.
    pub total: u64,
    /// Time that was neither idle nor waiting for a disk. Time that the hypervisor gave to others counts
    /// as busy: it was not there to be used.
    pub busy: u64,
    /// Cores online.
    pub cores: u32,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Physical memory.
    pub total: u64,
    /// What new processes could get without swapping.
    pub available: u64,
    /// Swap.
    pub swap_total: u64,
    /// Swap not in use.
    pub swap_free: u64,
}

/// Parses `/proc/stat`.
pub fn cpu_times(text: &str) -> Option<CpuTimes> {
    let fields = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = fields.split_ascii_whitespace().map(|field| field.parse().ok()).collect::<Option<_>>()?;
    // user nice system idle, and by the kernel's age iowait irq softirq steal; guest and guest_nice are
    // part of user and nice.
    let [_, _, _, idle, ..] = ticks[..] else { return None };
    let waiting = ticks.get(4).copied().unwrap_or(0);
    let total = ticks.iter().take(8).try_fold(0u64, |sum, ticks| sum.checked_add(*ticks))?;
    let cores = text.lines().filter(|line| is_core(line)).count();
    Some(CpuTimes { total, busy: total - idle - waiting, cores: u32::try_from(cores).ok()?.max(1) })
}

fn is_core(line: &str) -> bool {
    let name = line.split_ascii_whitespace().next().unwrap_or_default();
    name.strip_prefix("cpu").is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// The busy share between two readings, in percent; `None` where no time has passed or the counters went
/// back (waiting for a disk may, by the manual).
pub fn busy_percent(before: CpuTimes, after: CpuTimes) -> Option<f64> {
    let total = after.total.checked_sub(before.total).filter(|total| *total > 0)?;
    let busy = after.busy.checked_sub(before.busy)?;
    Some((busy as f64 / total as f64 * 100.0).min(100.0))
}

/// Parses `/proc/loadavg`.
pub fn load_averages(text: &str) -> Option<[f64; 3]> {
    let mut fields = text.split_ascii_whitespace();
    let mut next = || fields.next()?.parse().ok().filter(|load: &f64| load.is_finite() && *load >= 0.0);
    Some([next()?, next()?, next()?])
}

/// Parses `/proc/meminfo`. Swap may be missing.
pub fn memory(text: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
        kib.checked_mul(KIB)
    };
    let total = field("MemTotal")?;
    Some(Memory {
        total,
        available: field("MemAvailable").or_else(|| field("MemFree"))?.min(total),
        swap_total: field("SwapTotal").unwrap_or(0),
        swap_free: field("SwapFree").unwrap_or(0),
    })
}

/// Parses `/proc/uptime` to whole seconds.
pub fn uptime_s(text: &str) -> Option<u64> {
    let seconds = text.split_ascii_whitespace().next()?;
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    fraction.bytes().all(|b| b.is_ascii_digit()).then(|| whole.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STAT: &str = "cpu  100 20 30 800 50 1 2 7 40 5\ncpu0 50 10 15 400 25 0 1 3 20 2\ncpu1 50 10 15 400 25 1 1 4 20 3\nintr 5 0 0\nctxt 1\ncpuidle 3\n";

    #[test]
    fn processor_times() {
        let times = cpu_times(STAT).unwrap();
        assert_eq!(times, CpuTimes { total: 1010, busy: 160, cores: 2 });
        let old_kernel = cpu_times("cpu 1 2 3 4\n").unwrap();
        assert_eq!(old_kernel, CpuTimes { total: 10, busy: 6, cores: 1 });
        for text in [
            "",
            "cpu",
            "cpu ",
            "cpu  1 2 3",
            "cpu  1 2 x 4",
            "cpu  1 2 3 -4",
            "cpu0 1 2 3 4",
            "cpu  18446744073709551615 1 1 1",
        ] {
            assert_eq!(cpu_times(text), None, "{text:?}");
        }
    }

    #[test]
    fn busy_share() {
        let at = |total, busy| CpuTimes { total, busy, cores: 1 };
        assert_eq!(busy_percent(at(100, 10), at(300, 60)), Some(25.0));
        assert_eq!(busy_percent(at(100, 10), at(100, 10)), None);
        assert_eq!(busy_percent(at(100, 10), at(90, 10)), None);
        assert_eq!(busy_percent(at(100, 10), at(200, 9)), None);
        // Idle time that went back makes the difference of the busy time the greater one.
        assert_eq!(busy_percent(at(100, 10), at(110, 40)), Some(100.0));
    }

    #[test]
    fn load() {
        assert_eq!(load_averages("0.52 1.00 12.3 2/345 6789\n"), Some([0.52, 1.0, 12.3]));
        for text in ["", "0.5 0.5", "0.5 nan 0.5", "inf 1 1", "-1 0 0", "a b c"] {
            assert_eq!(load_averages(text), None, "{text:?}");
        }
    }

    #[test]
    fn memory_in_bytes() {
        let text = "MemTotal:       2048 kB\nMemFree:         100 kB\nMemAvailable:   1024 kB\nSwapTotal:  10 kB\nSwapFree:    4 kB\nHugePages_Total:  0\n";
        assert_eq!(
            memory(text),
            Some(Memory { total: 2048 * KIB, available: 1024 * KIB, swap_total: 10 * KIB, swap_free: 4 * KIB })
        );
        assert_eq!(memory("MemTotal: 10 kB\nMemFree: 3 kB\n").map(|memory| memory.available), Some(3 * KIB));
        assert_eq!(memory("MemTotal: 10 kB\nMemAvailable: 30 kB\n").map(|memory| memory.available), Some(10 * KIB));
        for text in [
            "",
            "MemTotal: 10 kB\n",
            "MemTotal: ten kB\nMemAvailable: 1 kB",
            "MemTotal: 10\nMemAvailable: 1",
            "MemTotal: 18446744073709551615 kB\nMemAvailable: 1 kB",
            "MemTotalX: 10 kB\nMemAvailable: 1 kB",
        ] {
            assert_eq!(memory(text), None, "{text:?}");
        }
    }

    #[test]
    fn uptime() {
        assert_eq!(uptime_s("12345.67 54321.00\n"), Some(12345));
        assert_eq!(uptime_s("7"), Some(7));
        for text in ["", "x", "-1.0", "1.x 2", ".5", "1e9 1", "nan"] {
            assert_eq!(uptime_s(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "(cpu[0-9]* |Mem(Total|Available):|[0-9]{1,21}|[ .\\-a-zA-Z:\n]){0,40}") {
            let _ = (cpu_times(&text), load_averages(&text), memory(&text), uptime_s(&text));
        }
    }
}
