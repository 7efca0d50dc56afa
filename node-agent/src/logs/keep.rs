//! Keeps the previous part of every log. inotify(7) says when conmon has replaced a file; what took place while no
//! agent ran is put in order at its start.

use super::{LogError, Logs, failed};
use hoody_protocol::id::ContainerId;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::{
    collections::BTreeSet,
    os::fd::{AsFd, AsRawFd, RawFd},
};
use tokio::io::unix::AsyncFd;

/// What tells of changes in the folder.
struct Watch(Inotify);

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Keeps the logs of the node; returns only where it cannot go on.
pub async fn keep(logs: Logs) -> LogError {
    match run(&logs).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn run(logs: &Logs) -> Result<std::convert::Infallible, LogError> {
    let watch = || failed("watch", logs.folder());
    let inotify =
        Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).map_err(|errno| watch()(errno.into()))?;
    let what = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CREATE;
    inotify.add_watch(logs.folder(), what).map_err(|errno| watch()(errno.into()))?;
    // SAFETY: it is open and names the same descriptor until it is dropped, which only the `AsyncFd` does.
    let registered = unsafe { AsyncFd::register(Watch(inotify)) };
    let inotify = registered.map_err(|error| watch()(error.into_parts().1))?;
    // Watched first: what is replaced from now on is told.
    for container in all(logs)? {
        keep_one(logs, container);
    }
    loop {
        let mut ready = inotify.readable().await.map_err(watch())?;
        let events = match ready.try_io(|inotify| inotify.get_ref().0.read_events().map_err(std::io::Error::from)) {
            Ok(events) => events.map_err(watch())?,
            Err(_would_block) => continue,
        };
        let overflowed = events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW));
        let named = events.iter().filter_map(|event| owner(event.name.as_ref()?.to_str()?));
        let touched = if overflowed { all(logs)? } else { named.collect() };
        for container in touched {
            keep_one(logs, container);
        }
    }
}

fn keep_one(logs: &Logs, container: ContainerId) {
    // A log of which only one part is kept is better than none: the others go on.
    if let Err(error) = logs.files(container).keep() {
        tracing::warn!(%container, error = &error as &dyn std::error::Error, "keep the previous part of a log");
    }
}

/// The containers that have a current log.
fn all(logs: &Logs) -> Result<BTreeSet<ContainerId>, LogError> {
    let entries = std::fs::read_dir(logs.folder()).map_err(failed("list", logs.folder()))?;
    Ok(entries.flatten().filter_map(|entry| owner(entry.file_name().to_str()?)).collect())
}

fn owner(name: &str) -> Option<ContainerId> {
    name.strip_suffix(".log")?.parse().ok()
}
