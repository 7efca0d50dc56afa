//! Ports for programs that have to be told theirs before they listen. A port that was only seen to be free may be
//! anybody's by the time it is used; these are held by a file lock until their owner ends, and lie below those that
//! the kernel gives to sockets without one.

use anyhow::{Context, Result, bail};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt::ReuseAddr},
};
use std::{fs::File, net::Ipv4Addr, ops::Range};

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
            if is_free(number)? {
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

/// True where nobody listens there. The socket that finds out never listens itself: a program that another thread is just
/// starting has a copy of it for a moment, which would be in the way of whoever the port is for.
fn is_free(number: u16) -> Result<bool> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, ReuseAddr, &true)?;
    let any = SockaddrIn::from(std::net::SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, number));
    Ok(bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &any).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_port_is_given_once_and_only_where_nobody_listens() {
        let first = Port::take().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, first.number())).unwrap();
        assert!(!is_free(first.number()).unwrap());
        assert_ne!(Port::take().unwrap().number(), first.number());
        drop(listener);
        assert!(is_free(first.number()).unwrap());
    }
}
