//! Work that lets everything else of the server go first: whole file systems and images on their way.

use std::{io, thread};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
    task::JoinSet,
};

/// Niceness of such work, at least.
const NICE: i32 = 10;

/// Lets everything else of the server go first, as far as this thread is concerned. Whoever does already stays as it is:
/// what such a thread starts begins with its niceness.
pub(crate) fn yield_to_others() {
    let nice = niceness().max(NICE);
    // SAFETY: plain system call without pointers; 0 is the calling thread. Where it fails, nothing is lost.
    unsafe { nix::libc::setpriority(nix::libc::PRIO_PROCESS, 0, nice) };
}

fn niceness() -> i32 {
    // SAFETY: plain system call without pointers; 0 is the calling thread.
    unsafe { nix::libc::getpriority(nix::libc::PRIO_PROCESS, 0) }
}

/// A thread that yields to others, with a runtime of its own: connections that are made there are encrypted and
/// decrypted there, whoever uses them. What is at work there ends with it.
#[derive(Debug)]
pub(crate) struct Background {
    runtime: Handle,
    /// The thread ends when this goes.
    _end: oneshot::Sender<()>,
}

impl Background {
    /// Starts the thread; `name` is of at most 15 bytes.
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            yield_to_others();
            // Nothing is ever sent: it ends when the other end goes.
            let _: Result<(), _> = runtime.block_on(ended);
        })?;
        Ok(Self { runtime: handle, _end: end })
    }

    /// Does the work there. It is given up when this is.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let mut task = JoinSet::new();
        task.spawn_on(work, &self.runtime);
        match task.join_next().await {
            Some(Ok(done)) => done,
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // Only who gives it up or ends the thread cancels it, and both are gone then.
            _ => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{Arc, Weak},
        time::Duration,
    };

    const DEADLINE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn it_yields_and_this_thread_does_not() {
        let before = niceness();
        let background = Background::start("test").unwrap();
        assert_eq!(background.run(async { niceness() }).await, before.max(NICE));
        assert_eq!(niceness(), before);
        // What works there may start what yields by itself: it yields as much, not more.
        let started = background.run(async {
            let yielding = || {
                yield_to_others();
                niceness()
            };
            thread::spawn(yielding).join().unwrap()
        });
        assert_eq!(started.await, before.max(NICE));
    }

    /// Work that never ends, and what is gone when it was given up.
    fn endless() -> (impl Future<Output = ()> + Send + 'static, Weak<()>) {
        let held = Arc::new(());
        let seen = Arc::downgrade(&held);
        let work = async move {
            let _held = held;
            std::future::pending::<()>().await;
        };
        (work, seen)
    }

    async fn gone(seen: Weak<()>) {
        let looking = async {
            while seen.strong_count() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, looking).await.expect("the work ends");
    }

    #[tokio::test]
    async fn work_ends_with_who_waits_for_it() {
        let background = Background::start("test").unwrap();
        let (work, seen) = endless();
        let mut waiting = Box::pin(background.run(work));
        assert!(futures::poll!(&mut waiting).is_pending());
        assert_eq!(seen.strong_count(), 1);
        drop(waiting);
        gone(seen).await;
    }

    #[tokio::test]
    async fn work_ends_with_the_thread() {
        let background = Background::start("test").unwrap();
        let (work, seen) = endless();
        background.runtime.spawn(work);
        drop(background);
        gone(seen).await;
    }
}
