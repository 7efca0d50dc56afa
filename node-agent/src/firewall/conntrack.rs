//! Connections that the kernel tracks: listing those of an address, and cutting some of them.
//!
//! A connection is cut by deleting its entry. Its packets then belong to no connection: TCP segments
//! are dropped by the base, anything else is asked of the rules like a first packet. Entries that the
//! policy still allows are left alone, because an entry also holds who began the connection and how its
//! addresses are translated; neither comes back when the next packet makes a new one.

use super::{
    error::{FirewallError, Object},
    netlink::{
        attribute::{Attributes, PutAttribute},
        connection::{Connection, Question},
        wire::*,
    },
    verdict::Flow,
};
use std::net::Ipv4Addr;

/// An entry of the kernel's table.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its first packet as the forward hook saw it.
    pub(super) flow: Flow,
    /// It was begun through the container's proxy.
    pub(super) captured: bool,
    /// The attributes by which the kernel finds it again.
    tuple: Vec<u8>,
    id: Vec<u8>,
    zone: Option<Vec<u8>>,
}

/// Which end of its connections the address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It began them.
    Source,
    /// They were begun towards it.
    Destination,
}

/// Entries in the kernel's table up to which all are listed to find those of one address. A listing
/// walks the kernel's whole hash table, however few entries it returns (measured: 12 ms for 262,144
/// buckets), so that one listing without a filter is cheaper than one with a filter for each end.
const LIST_ALL_ENTRIES: u32 = 4096;

/// The entries of which the address is an end.
pub(super) fn list(connection: &mut Connection, address: Ipv4Addr) -> Result<Vec<(End, Entry)>, FirewallError> {
    let entries = match count(connection)? {
        0 => return Ok(Vec::new()),
        1..=LIST_ALL_ENTRIES => connection.list(get(address, |_| ()))?,
        _ => {
            let mut entries = connection.list(get(address, |out| put_filter(out, address, End::Source)))?;
            entries.extend(connection.list(get(address, |out| put_filter(out, address, End::Destination)))?);
            entries
        }
    };
    let parsed = entries.iter().filter_map(|bytes| parse(Attributes(bytes)));
    // A kernel without the filter lists everything, so it is asked of every entry here.
    Ok(parsed
        .filter_map(|entry| match entry.flow {
            Flow { source, .. } if source == address => Some((End::Source, entry)),
            Flow { destination, .. } if destination == address => Some((End::Destination, entry)),
            _ => None,
        })
        .collect())
}

/// How many connections the kernel tracks in this network namespace.
fn count(connection: &mut Connection) -> Result<u32, FirewallError> {
    let object = Object::Connection("count".to_owned());
    let question =
        Question::new(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET_STATS, NFPROTO_UNSPEC, object.clone(), |_| ());
    let answers = connection.ask(vec![question])?;
    let entries = answers.first().and_then(|answer| Attributes(answer.as_ref()?).u32(CTA_STATS_GLOBAL_ENTRIES));
    entries.ok_or(FirewallError::Malformed { object })
}

fn get(address: Ipv4Addr, filter: impl FnOnce(&mut Vec<u8>)) -> Question {
    let about = Object::Connection(format!("of {address}"));
    Question::new(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET, NFPROTO_IPV4, about, filter)
}

fn put_filter(out: &mut Vec<u8>, address: Ipv4Addr, end: End) {
    // Answers come from the true destination, whether or not the first packet's was translated.
    let (tuple, flags) = match end {
        End::Source => (CTA_TUPLE_ORIG, CTA_FILTER_ORIG_FLAGS),
        End::Destination => (CTA_TUPLE_REPLY, CTA_FILTER_REPLY_FLAGS),
    };
    out.nest(tuple, |out| out.nest(CTA_TUPLE_IP, |out| out.put(CTA_IP_V4_SRC, &address.octets())));
    out.nest(CTA_FILTER, |out| {
        for kind in [CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS] {
            // These two are in the machine's byte order.
            let wanted = if kind == flags { CTA_FILTER_F_IP_SRC } else { 0 };
            out.put(kind, &wanted.to_ne_bytes());
        }
    });
}

/// Cuts connections; those that ended meanwhile do not matter.
pub(super) fn delete(connection: &mut Connection, entries: &[Entry]) -> Result<usize, FirewallError> {
    let orders = entries.iter().map(|entry| {
        let about = Object::Connection(format!("{} to {}", entry.flow.source, entry.flow.destination));
        Question::new(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE, NFPROTO_IPV4, about, |out| {
            out.put(CTA_TUPLE_ORIG | NLA_F_NESTED, &entry.tuple);
            out.put(CTA_ID, &entry.id);
            if let Some(zone) = &entry.zone {
                out.put(CTA_ZONE, zone);
            }
        })
    });
    Ok(connection.order(orders.collect())?.into_iter().filter(|deleted| *deleted).count())
}

fn parse(entry: Attributes<'_>) -> Option<Entry> {
    let tuple = entry.find(CTA_TUPLE_ORIG)?;
    let origin = Attributes(tuple);
    let reply = entry.nested(CTA_TUPLE_REPLY)?;
    let protocol = origin.nested(CTA_TUPLE_PROTO)?;
    let byte = |kind| protocol.find(kind).and_then(|value| value.first().copied());
    Some(Entry {
        captured: entry.u32(CTA_MARK) == Some(super::instructions::CAPTURED),
        flow: Flow {
            protocol: byte(CTA_PROTO_NUM)?,
            source: address(origin, CTA_IP_V4_SRC)?,
            destination: address(reply, CTA_IP_V4_SRC)?,
            source_port: port(protocol, CTA_PROTO_SRC_PORT),
            destination_port: port(reply.nested(CTA_TUPLE_PROTO)?, CTA_PROTO_SRC_PORT),
            icmp_type: byte(CTA_PROTO_ICMP_TYPE).unwrap_or_default(),
            icmp_code: byte(CTA_PROTO_ICMP_CODE).unwrap_or_default(),
        },
        tuple: tuple.to_vec(),
        id: entry.find(CTA_ID)?.to_vec(),
        zone: entry.find(CTA_ZONE).map(<[u8]>::to_vec),
    })
}

fn address(tuple: Attributes<'_>, kind: u16) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = tuple.nested(CTA_TUPLE_IP)?.find(kind)?.try_into().ok()?;
    Some(octets.into())
}

fn port(protocol: Attributes<'_>, kind: u16) -> u16 {
    protocol.find(kind).and_then(|value| value.try_into().ok()).map(u16::from_be_bytes).unwrap_or_default()
}
