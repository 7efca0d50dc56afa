//! Freezes and thaws a container: v1's freezer controller, v2's `cgroup.freeze`. The kernel freezes
//! asynchronously; both directions are reached within a deadline or undone.

use super::{
    super::{RuntimeError, error::io},
    Cgroups, Group,
};
use hoody_protocol::id::ContainerId;
use std::{path::PathBuf, time::Duration};
use tokio::time::Instant;

/// How long all processes have to freeze or thaw.
const LIMIT: Duration = Duration::from_secs(5);
/// Between two looks; the kernel has no event for v1.
const PAUSE: Duration = Duration::from_millis(2);
/// Looks after which v1 is let go and tried again: a process that waits in vfork(2) for a child that is frozen
/// already cannot freeze itself.
const LOOKS: u32 = 25;

impl Cgroups {
    /// True where the container's processes are frozen.
    pub(in super::super) fn is_frozen(&self, id: ContainerId) -> Result<bool, RuntimeError> {
        let Some((_, state, unified)) = self.freezer(id) else { return Ok(false) };
        match std::fs::read_to_string(&state) {
            Ok(text) => Ok(frozen(&text, unified) == Some(true)),
            Err(source) if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(false),
            Err(source) => Err(io("read", state)(source)),
        }
    }

    /// Freezes (or thaws) and waits until it is so. A container without a group counts as thawed.
    pub(in super::super) async fn freeze(&self, id: ContainerId, freeze: bool) -> Result<(), RuntimeError> {
        let Some((control, state, unified)) = self.freezer(id) else {
            let reason = "the node has no freezer".to_owned();
            return if freeze { Err(RuntimeError::Config { reason }) } else { Ok(()) };
        };
        if !control.exists() && !freeze {
            return Ok(());
        }
        let started = Instant::now();
        let mut look: u32 = 0;
        loop {
            look += 1;
            // v1 may stay half-frozen where a process forked meanwhile; writing again helps it along.
            std::fs::write(&control, word(freeze, unified)).map_err(io("write", &control))?;
            let text = std::fs::read_to_string(&state).map_err(io("read", &state))?;
            if frozen(&text, unified) == Some(freeze) {
                return Ok(());
            }
            if started.elapsed() > LIMIT {
                if freeze {
                    std::fs::write(&control, word(false, unified)).map_err(io("write", &control))?;
                }
                let what = if freeze { "freezing" } else { "thawing" };
                return Err(RuntimeError::Deadline { id, what, limit: LIMIT });
            }
            tokio::time::sleep(PAUSE).await;
            if freeze && !unified && look.is_multiple_of(LOOKS) {
                std::fs::write(&control, word(false, unified)).map_err(io("write", &control))?;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// The file that is written, the one that tells, and whether it is v2's.
    fn freezer(&self, id: ContainerId) -> Option<(PathBuf, PathBuf, bool)> {
        let hierarchy = self.controlling("freezer")?;
        let folder = self.folder(hierarchy, Group::Container(id));
        Some(match hierarchy.unified {
            true => (folder.join("cgroup.freeze"), folder.join("cgroup.events"), true),
            false => (folder.join("freezer.state"), folder.join("freezer.state"), false),
        })
    }
}

fn word(freeze: bool, unified: bool) -> &'static str {
    match (unified, freeze) {
        (true, true) => "1",
        (true, false) => "0",
        (false, true) => "FROZEN",
        (false, false) => "THAWED",
    }
}

/// `None` while it is on the way.
fn frozen(text: &str, unified: bool) -> Option<bool> {
    if unified {
        return text.lines().find_map(|line| line.strip_prefix("frozen ")).map(|value| value.trim() == "1");
    }
    match text.trim() {
        "FROZEN" => Some(true),
        "THAWED" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read() {
        assert_eq!(frozen("FROZEN\n", false), Some(true));
        assert_eq!(frozen("FREEZING\n", false), None);
        assert_eq!(frozen("THAWED\n", false), Some(false));
        assert_eq!(frozen("populated 1\nfrozen 1\n", true), Some(true));
        assert_eq!(frozen("populated 1\nfrozen 0\n", true), Some(false));
    }
}
