//! Network namespaces of containers, and work inside them.
//!
//! Work inside a namespace is done by a thread that enters it and then ends: a thread of the async
//! runtime would carry the namespace on to the next task. A netlink socket stays in the namespace in
//! which it was opened, so only opening it and writing sysctls need such a thread.

use super::NetworkError;
use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::PathBuf,
    sync::Arc,
};
use tokio::{sync::oneshot, time::Instant};

/// A container's network namespace, kept open: it cannot be replaced by another one behind our back
/// when the process ends and its pid is given again.
#[derive(Debug, Clone)]
pub(super) struct Namespace {
    file: Arc<File>,
    pid: i32,
}

impl Namespace {
    /// The namespace of process `pid`. Refuses the caller's own.
    pub(super) fn of(pid: i32) -> Result<Self, NetworkError> {
        if pid <= 0 {
            return Err(NetworkError::OpenNamespace { pid, source: io::ErrorKind::InvalidInput.into() });
        }
        let failed = |source| NetworkError::OpenNamespace { pid, source };
        let file = File::open(format!("/proc/{pid}/ns/net")).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let own_path = PathBuf::from("/proc/thread-self/ns/net");
        let own = own_path.metadata().map_err(|source| NetworkError::Io { action: "read", path: own_path, source })?;
        if (metadata.dev(), metadata.ino()) == (own.dev(), own.ino()) {
            return Err(NetworkError::NodeNamespace { pid });
        }
        Ok(Self { file: Arc::new(file), pid })
    }

    /// The descriptor, for netlink requests; valid as long as `self`.
    pub(super) fn raw_fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// The process it was opened through.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    fn enter(&self) -> Result<(), NetworkError> {
        setns(&*self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NetworkError::EnterNamespace { pid: self.pid, source: errno.into() })
    }
}

/// Runs blocking `work` on a thread of its own, inside `namespace` where one is given, otherwise where
/// the caller is. A thread that is not done at the deadline is left to end by itself: a thread inside
/// the kernel cannot be stopped, and all it does is idempotent.
pub(super) async fn run<T: Send + 'static>(
    namespace: Option<&Namespace>,
    interface: &str,
    action: &'static str,
    deadline: Instant,
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    let namespace = namespace.cloned();
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name("hoody-netns".to_owned()).spawn(move || {
        let outcome = namespace.map_or(Ok(()), |namespace| namespace.enter()).and_then(|()| work());
        // The caller may have given up waiting.
        let _ = done.send(outcome);
    });
    thread.map_err(|source| NetworkError::Thread { interface: interface.to_owned(), source })?;
    match tokio::time::timeout_at(deadline, result).await {
        Ok(Ok(outcome)) => outcome,
        // The sender is only dropped unsent when `work` panics.
        Ok(Err(_)) => Err(NetworkError::Thread {
            interface: interface.to_owned(),
            source: io::Error::other(format!("the thread for {action} panicked")),
        }),
        Err(_) => Err(NetworkError::Deadline { action, interface: interface.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_own_namespace_and_impossible_pids_are_refused() {
        let own = std::process::id() as i32;
        assert!(matches!(Namespace::of(own), Err(NetworkError::NodeNamespace { pid }) if pid == own));
        for pid in [0, -1, i32::MIN, i32::MAX] {
            assert!(matches!(Namespace::of(pid), Err(NetworkError::OpenNamespace { .. })), "{pid}");
        }
    }

    #[tokio::test]
    async fn stuck_work_ends_at_the_deadline_and_a_panic_is_an_error() {
        let deadline = Instant::now() + Duration::from_millis(50);
        let (_hold, held) = std::sync::mpsc::channel::<()>();
        let stuck = run(None, "eth0", "test", deadline, move || {
            let _ = held.recv();
            Ok(())
        });
        assert!(matches!(stuck.await, Err(NetworkError::Deadline { action: "test", .. })));
        let panicking = run(None, "eth0", "test", Instant::now() + Duration::from_secs(5), || -> Result<(), _> {
            panic!("on purpose")
        });
        assert!(matches!(panicking.await, Err(NetworkError::Thread { .. })));
    }
}
