//! Requests to a container without a pause, for as long as something else happens: none may be lost.

use crate::probe::Web;
use anyhow::{Context, Result, bail};
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// A request that takes longer is lost. Long, because the machine of a test is busy; a packet that was dropped
/// is sent again within it, so [`Seen::longest`] is what tells.
const LOST: Duration = Duration::from_secs(20);
/// Between two requests.
const PAUSE: Duration = Duration::from_millis(5);

/// Requests that go on in a thread of their own.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Seen>>>,
}

/// What was seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Requests that were answered: all of them.
    pub requests: u64,
    /// The longest that one took.
    pub longest: Duration,
}

impl Traffic {
    /// Begins.
    pub fn start(web: &Web) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, web) = (stop.clone(), web.clone());
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                request(&web).with_context(|| format!("a request was lost after {seen:?}"))?;
                seen.longest = seen.longest.max(begun.elapsed());
                seen.requests += 1;
                std::thread::sleep(PAUSE);
            }
            Ok(seen)
        });
        Self { stop, thread: Some(thread) }
    }

    /// Ends; fails where a request was lost.
    pub fn finish(mut self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { bail!("the traffic has ended before") };
        let seen = thread.join().map_err(|_| anyhow::anyhow!("the traffic's thread panicked"))??;
        anyhow::ensure!(seen.requests > 0, "there was no traffic");
        Ok(seen)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn request(web: &Web) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&web.address, LOST)?;
    stream.set_read_timeout(Some(LOST))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    anyhow::ensure!(page.contains(web.page()), "another answer: {page:?}");
    Ok(())
}
