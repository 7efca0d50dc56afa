//! Ports for programs that have to be told theirs before they listen. A port that was only seen to be free may be
//! anybody's by the time it is used; these are held by a file lock until their owner ends, and lie below those that
//! the kernel gives to sockets without one.

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    ops::Range,
};

const FOLDER: &str = "/run/hoody-ports";
const RANGE: Range<u16> = 20_000..30_000;

/// A port that nobody else of the tests is given, for TCP and UDP.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: Flock<File>,
}

impl Port {
    /// Takes a free one.
    pub fn take() -> Result<Self> {
        std::fs::create_dir_all(FOLDER)?;
        for number in RANGE {
            let file = File::create(format!("{FOLDER}/{number}")).context("open a port's lock")?;
            let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
            let any = (Ipv4Addr::UNSPECIFIED, number);
            if TcpListener::bind(any).is_ok() && UdpSocket::bind(any).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        bail!("no port of {RANGE:?} is free")
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}
