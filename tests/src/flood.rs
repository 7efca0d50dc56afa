//! Datagrams sent to a container without a pause, from its server.

use crate::cluster::Server;
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    net::{Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Between two datagrams: enough to be seen, and leaves the processor to others.
const PAUSE: Duration = Duration::from_micros(200);

/// What was sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// How many.
    pub datagrams: u64,
    /// From the first to the last.
    pub time: Duration,
}

impl Sent {
    /// The mean time from one to the next.
    pub fn pause(&self) -> Duration {
        self.time / u32::try_from(self.datagrams.max(1)).unwrap_or(u32::MAX)
    }
}

/// A thread in the server's network namespace that sends until it is told to end, or dropped.
#[derive(Debug)]
pub struct Flood {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Sent>>>,
}

impl Flood {
    /// Begins to send to the port.
    pub fn start(server: &Server, address: Ipv4Addr, port: u16) -> Result<Self> {
        let path = format!("/run/netns/{}", server.name);
        let namespace = File::open(&path).context(path)?;
        let ended = Arc::new(AtomicBool::new(false));
        let end = ended.clone();
        let thread = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            let (begun, mut datagrams) = (Instant::now(), 0);
            while !end.load(Ordering::Relaxed) {
                // What a rule drops on its way out is an error here.
                let _ = socket.send_to(b"flood", (address, port));
                datagrams += 1;
                std::thread::sleep(PAUSE);
            }
            Ok(Sent { datagrams, time: begun.elapsed() })
        });
        Ok(Self { ended, thread: Some(thread) })
    }

    /// Ends it.
    pub fn finish(mut self) -> Result<Sent> {
        self.ended.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it has ended")?;
        thread.join().map_err(|_| anyhow::anyhow!("the flood panicked"))?
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
