//! Sockets that wait for others: the tables of the container's network namespace (proc_net(5)), as its first process
//! sees them, and the processes that have those sockets open.

use super::{
    Names,
    processes::{self, Held, Processes},
    read,
};
use crate::storage::IdRange;
use hoody_protocol::{
    bounded::Text,
    inspection::{MAX_SOCKETS, SocketInfo},
};
use nix::{
    dir::Dir,
    fcntl::{OFlag, readlinkat},
    sys::stat::Mode,
};
use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
};

/// Of one table. Listening sockets of TCP come first in it.
const MAX_TABLE_BYTES: u64 = 1 << 20;
/// Descriptors that are looked at in all processes together.
const MAX_DESCRIPTORS: usize = 16_384;
/// States of linux/tcp.h that wait for others: TCP listens, UDP is not connected.
const TCP_LISTEN: &str = "0A";
const UDP_UNCONNECTED: &str = "07";

/// The tables, and the state that waits in each.
const TABLES: [(&str, &str); 4] =
    [("tcp", TCP_LISTEN), ("tcp6", TCP_LISTEN), ("udp", UDP_UNCONNECTED), ("udp6", UDP_UNCONNECTED)];

/// A line of a table.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    protocol: &'static str,
    ip: IpAddr,
    port: u16,
    uid: u32,
    inode: u64,
}

/// The sockets; true where there are more than are told.
pub(super) fn listening(processes: &Processes, first: i32, ids: IdRange, names: &Names) -> (Vec<SocketInfo>, bool) {
    let Some(first) = processes.first(first) else { return (Vec::new(), false) };
    let (mut lines, mut more) = (Vec::new(), false);
    for (table, state) in TABLES {
        let bytes = read(&first.folder, &format!("net/{table}"), MAX_TABLE_BYTES).unwrap_or_default();
        more |= bytes.len() as u64 == MAX_TABLE_BYTES;
        lines.extend(String::from_utf8_lossy(&bytes).lines().filter_map(|line| parse(line, table, state)));
    }
    // A socket that is made while a table is read can move another one to where it is read again.
    let mut seen = HashSet::new();
    lines.retain(|line: &Line| seen.insert(line.inode));
    more |= lines.len() > MAX_SOCKETS;
    lines.truncate(MAX_SOCKETS);
    let owners = owners(processes.held(), lines.iter().map(|line| line.inode).collect());
    let sockets = lines.into_iter().map(|line| SocketInfo {
        protocol: Text::truncated(line.protocol),
        ip: line.ip,
        port: line.port,
        user: names.of(processes::inside_id(ids, line.uid)),
        owner: owners.get(&line.inode).and_then(|held| processes::owner(held)),
    });
    (sockets.collect(), more)
}

/// A line in the wanted state; `None` for others, and for the heading.
fn parse(line: &str, protocol: &'static str, wanted: &str) -> Option<Line> {
    let mut fields = line.split_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    if fields.nth(1)? != wanted {
        return None;
    }
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some(Line { protocol, ip: address_of(address)?, port: u16::from_str_radix(port, 16).ok()?, uid, inode })
}

/// Words of 32 bits in the byte order of the machine.
fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |text: &str| Some(u32::from_str_radix(text, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(hex)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (index, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(hex.get(index * 8..index * 8 + 8)?)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// A process for each of the sockets, where one of those held has it open.
fn owners(held: &[Held], mut wanted: HashSet<u64>) -> HashMap<u64, &Held> {
    let (mut owners, mut looked_at) = (HashMap::new(), 0);
    for process in held {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let Ok(mut descriptors) = Dir::openat(&process.folder, "fd", flags, Mode::empty()) else { continue };
        let entries: Vec<_> =
            descriptors.iter().take(MAX_DESCRIPTORS.saturating_sub(looked_at)).filter_map(Result::ok).collect();
        looked_at += entries.len();
        for entry in entries {
            if wanted.is_empty() || looked_at >= MAX_DESCRIPTORS {
                return owners;
            }
            let Ok(target) = readlinkat(descriptors.as_fd(), entry.file_name()) else { continue };
            let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode.filter(|inode| wanted.remove(inode)) {
                owners.insert(inode, process);
            }
        }
    }
    owners
}

/// Any text as tables of sockets, for fuzzing.
pub(super) fn fuzzing(text: &str) {
    for (table, state) in TABLES {
        assert!(text.lines().filter_map(|line| parse(line, table, state)).all(|line| line.protocol == table));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADING: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";

    #[test]
    fn only_what_waits_is_told() {
        let listens = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 100033        0 4711 1 0 100 0 0 10 0";
        let found = parse(listens, "tcp", TCP_LISTEN).unwrap();
        assert_eq!((found.ip, found.port), (IpAddr::from([127, 0, 0, 1]), 8080));
        assert_eq!((found.uid, found.inode), (100_033, 4711));
        let connected = listens.replace(" 0A ", " 01 ");
        for line in [HEADING, &connected, "", "0: 0100007F:1F90 x 0A"] {
            assert_eq!(parse(line, "tcp", TCP_LISTEN), None, "{line}");
        }
        let udp = listens.replace(" 0A ", " 07 ");
        assert_eq!(parse(&udp, "udp", UDP_UNCONNECTED).unwrap().port, 8080);
        let six = "1: 00000000000000000000000001000000:0050 0:0 0A 0:0 00:0 0 0 0 5";
        assert_eq!(parse(six, "tcp6", TCP_LISTEN).unwrap().ip, IpAddr::from(Ipv6Addr::LOCALHOST));
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in "[0-9A-Fx: ]{0,120}") {
            let _ = parse(&line, "tcp", TCP_LISTEN);
        }
    }
}
