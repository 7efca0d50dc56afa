//! Keeps the kernel ready for processes that join a cgroup.
//!
//! Whoever joins by writing a process's number into `cgroup.procs` waits until every processor has passed a quiet
//! point (RCU, in `percpu_down_write` of `cgroup_threadgroup_rwsem`): 12 to 18 ms, unless another join has ended a few
//! milliseconds ago. The OCI runtime joins so in the middle of what a start waits for. So the agent joins first,
//! while the runtime is still being loaded, and again every [`PAUSE`] until the runtime is done: its own group,
//! so that nothing moves. The hierarchies share the lock; one is enough.

use super::Hierarchy;
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Which groups this process is in (cgroups(7)).
const OWN_GROUPS: &str = "/proc/self/cgroup";
/// Pause between two joins: less than the kernel takes to go back to waiting.
const PAUSE: Duration = Duration::from_millis(2);

/// Joins ahead of others, for as long as somebody wants it. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::runtime) struct Joins(Arc<Mutex<Keeping>>);

#[derive(Debug)]
struct Keeping {
    hierarchy: Hierarchy,
    /// How many want it.
    wanted: usize,
    /// A thread does it.
    kept: bool,
}

/// While this is held, joins do not wait. Only a matter of time: nothing depends on it.
#[derive(Debug)]
pub(in crate::runtime) struct Ready(Joins);

impl Joins {
    pub(super) fn new(hierarchy: Hierarchy) -> Self {
        Self(Arc::new(Mutex::new(Keeping { hierarchy, wanted: 0, kept: false })))
    }

    /// Makes it ready, beside the caller. Within a Tokio runtime.
    pub(in crate::runtime) fn ready(&self) -> Ready {
        let mut keeping = self.lock();
        keeping.wanted += 1;
        if !keeping.kept {
            keeping.kept = true;
            let joins = self.clone();
            tokio::task::spawn_blocking(move || joins.keep());
        }
        Ready(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Keeping> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins again and again until nobody wants it.
    fn keep(&self) {
        let own = std::process::id().to_string();
        let procs = own_procs(&self.lock().hierarchy).and_then(|path| File::options().write(true).open(path));
        loop {
            let joined = procs
                .as_ref()
                .map_err(io::Error::kind)
                .and_then(|procs| procs.write_all_at(own.as_bytes(), 0).map_err(|error| error.kind()));
            let mut keeping = self.lock();
            if joined.is_err() || keeping.wanted == 0 {
                keeping.kept = false;
                if let Err(error) = joined {
                    tracing::debug!(%error, "the kernel is not made ready for joins; starts take longer");
                }
                return;
            }
            drop(keeping);
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.0.lock().wanted -= 1;
    }
}

/// `cgroup.procs` of the group that this process is in. Asked anew each time: somebody may have moved it.
fn own_procs(hierarchy: &Hierarchy) -> io::Result<PathBuf> {
    let text = std::fs::read_to_string(OWN_GROUPS)?;
    let group = own_group(&text, hierarchy).ok_or(io::ErrorKind::NotFound)?;
    Ok(hierarchy.folder(group.as_ref()).join("cgroup.procs"))
}

/// Lines are `<number>:<controllers>:<group>`, without controllers for cgroup v2.
fn own_group<'a>(text: &'a str, hierarchy: &Hierarchy) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (controllers, group) = line.split_once(':')?.1.split_once(':')?;
        let its_own = match controllers {
            "" => hierarchy.unified,
            controllers => controllers.split(',').any(|controller| hierarchy.has(controller)),
        };
        its_own.then_some(group)
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{MOUNTINFO, mountinfo},
        *,
    };
    use std::time::Instant;

    fn until(what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[tokio::test]
    async fn it_is_kept_while_somebody_wants_it_and_moves_nothing() {
        let before = std::fs::read_to_string(OWN_GROUPS).unwrap();
        for hierarchy in mountinfo::parse(&std::fs::read_to_string(MOUNTINFO).unwrap()) {
            let name = format!("{hierarchy:?}");
            let joins = Joins::new(hierarchy);
            let (first, second) = (joins.ready(), joins.ready());
            // The thread has a clone of its own: one thread for both.
            assert_eq!(Arc::strong_count(&joins.0), 4, "{name}");
            drop(first);
            std::thread::sleep(PAUSE * 10);
            assert!(joins.lock().kept, "{name}: given up although it is wanted");
            drop(second);
            until(&name, || !joins.lock().kept && Arc::strong_count(&joins.0) == 1);
            drop(joins.ready());
            until(&name, || Arc::strong_count(&joins.0) == 1);
        }
        assert_eq!(std::fs::read_to_string(OWN_GROUPS).unwrap(), before);
    }

    #[test]
    fn the_own_group_is_found_in_both_versions() {
        let text = "5:cpu,cpuacct:/a\n1:name=systemd:/b\n0::/c/d\n";
        let found = |mountinfo: &str| {
            mountinfo::parse(mountinfo).iter().map(|hierarchy| own_group(text, hierarchy)).collect::<Vec<_>>()
        };
        let hybrid = found(include_str!("testdata/mountinfo-hybrid"));
        assert_eq!(hybrid, [Some("/a"), None, Some("/b"), Some("/c/d")]);
        assert_eq!(found(include_str!("testdata/mountinfo-unified")), [Some("/c/d")]);
    }
}
