//! A slot is what keeps clusters on one machine apart: its number is in every name and address. A file
//! lock holds it, so that it is free again however its owner ends.

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use std::{fs::File, net::Ipv4Addr};

const FOLDER: &str = "/run/hoody-clusters";
/// Clusters at once.
const SLOTS: u8 = 8;
/// Servers of one cluster.
pub(super) const SERVERS: usize = 8;

/// A held slot.
#[derive(Debug)]
pub(super) struct Slot {
    number: u8,
    _lock: Flock<File>,
}

impl Slot {
    /// Takes a free slot.
    pub(super) fn take() -> Result<Self> {
        std::fs::create_dir_all(FOLDER)?;
        for number in 0..SLOTS {
            let file = File::create(format!("{FOLDER}/{number}")).context("open a slot")?;
            if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                return Ok(Self { number, _lock: lock });
            }
        }
        bail!("{SLOTS} clusters run already: end one with `make down`")
    }

    /// The name of everything of a server.
    pub(super) fn name(&self, server: usize) -> String {
        format!("hoody-{}-{server}", self.number)
    }

    /// Our end of a server's uplink; the nodes' port of the control plane is reached there.
    pub(super) fn uplink_host(&self, server: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 240, self.number, (server * 4 + 1) as u8)
    }

    /// The server's end of its uplink.
    pub(super) fn uplink_server(&self, server: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 240, self.number, (server * 4 + 2) as u8)
    }

    /// The network of a server's containers.
    pub(super) fn containers(&self, server: usize) -> String {
        format!("10.{}.0.0/16", 64 + usize::from(self.number) * SERVERS + server - 1)
    }

    /// The first user id of a server's containers.
    pub(super) fn first_id(&self, server: usize) -> u32 {
        // 256 ranges of 65,536 ids a server.
        (1 << 24) + (u32::from(self.number) * SERVERS as u32 + server as u32 - 1) * (256 << 16)
    }
}
