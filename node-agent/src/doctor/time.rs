//! The clock: certificates and join tokens depend on it.

use super::Check;
use hoody_protocol::time::now_ms;

const GROUP: &str = "time";
/// 2025-01-01 in milliseconds: a clock before it was never set.
const PLAUSIBLE_SINCE_MS: u64 = 1_735_689_600_000;
/// 2100-01-01 in milliseconds.
const PLAUSIBLE_UNTIL_MS: u64 = 4_102_444_800_000;
const FIX: &str = "run a time service, for example with `apt-get install chrony`";

pub(super) fn check() -> Vec<Check> {
    vec![clock(now_ms()), synchronised(kernel_status())]
}

fn clock(now: u64) -> Check {
    let seconds = now / 1000;
    if (PLAUSIBLE_SINCE_MS..PLAUSIBLE_UNTIL_MS).contains(&now) {
        Check::ok(GROUP, "clock", format!("{seconds} s since 1970"))
    } else {
        Check::failed(GROUP, "clock", format!("{seconds} s since 1970 cannot be"), FIX)
    }
}

/// The kernel's NTP status word, see adjtimex(2).
fn kernel_status() -> Option<i32> {
    // SAFETY: all zeroes is a valid timex; modes 0 only reads, and the kernel writes within the struct.
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&mut timex), timex)
    };
    (state >= 0).then_some(timex.status)
}

fn synchronised(status: Option<i32>) -> Check {
    match status {
        Some(status) if status & libc::STA_UNSYNC == 0 => Check::ok(GROUP, "synchronised", "yes"),
        Some(_) => Check::warning(GROUP, "synchronised", "no, says the kernel", FIX),
        None => Check::warning(GROUP, "synchronised", "not readable", FIX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn a_clock_that_was_never_set_is_found() {
        assert_eq!(clock(0).status, Status::Failed);
        assert_eq!(clock(PLAUSIBLE_SINCE_MS).status, Status::Ok);
        assert_eq!(clock(u64::MAX).status, Status::Failed);
    }

    #[test]
    fn the_kernels_word_decides() {
        assert_eq!(synchronised(Some(libc::STA_PLL)).status, Status::Ok);
        assert_eq!(synchronised(Some(libc::STA_PLL | libc::STA_UNSYNC)).status, Status::Warning);
        assert_eq!(synchronised(None).status, Status::Warning);
    }
}
