//! Rows of instructions that several rules share.

use super::netlink::{
    batch::Rule,
    expression::{Expression, Verdict},
    wire::*,
};
use ipnet::Ipv4Net;

/// `IP_CT_DIR_REPLY`: from the side that did not begin the connection.
const DIRECTION_REPLY: u8 = 1;
/// Connection states as the bits that the kernel loads.
pub(super) const STATE_INVALID: u32 = 1;
pub(super) const STATE_ESTABLISHED: u32 = 2;
pub(super) const STATE_RELATED: u32 = 4;
pub(super) const STATE_NEW: u32 = 8;

/// IP protocol numbers.
pub(super) const PROTOCOL_ICMP: u8 = 1;
pub(super) const PROTOCOL_TCP: u8 = 6;
pub(super) const PROTOCOL_UDP: u8 = 17;

/// On a packet: taken for the container's proxy. On a connection: begun so. "hy" and a zero, so that other
/// programs' small marks are not taken for it.
pub(crate) const CAPTURED: u32 = 0x0068_7900;

/// Where the addresses stand in the IPv4 header (RFC 791).
pub(super) const SOURCE_OFFSET: u32 = 12;
pub(super) const DESTINATION_OFFSET: u32 = 16;

/// A rule of these rows of instructions.
pub(super) fn rule<const N: usize>(comment: &str, parts: [Vec<Expression>; N]) -> Rule {
    Rule { comment: comment.to_owned(), expressions: parts.into_iter().flatten().collect() }
}

pub(super) fn verdict(verdict: Verdict) -> Vec<Expression> {
    vec![Expression::Verdict(verdict)]
}

pub(super) fn ipv4() -> Vec<Expression> {
    vec![Expression::Meta(NFT_META_NFPROTO), equal(&[NFPROTO_IPV4])]
}

pub(super) fn not_ipv4() -> Vec<Expression> {
    vec![Expression::Meta(NFT_META_NFPROTO), Expression::Compare(NFT_CMP_NEQ, vec![NFPROTO_IPV4])]
}

/// The interface's name (`NFT_META_IIFNAME` or `NFT_META_OIFNAME`) is that of a container.
pub(super) fn container_interface(side: u32) -> Vec<Expression> {
    vec![Expression::Meta(side), equal(super::names::INTERFACE_PREFIX.as_bytes())]
}

pub(super) fn no_container_interface(side: u32) -> Vec<Expression> {
    let prefix = super::names::INTERFACE_PREFIX.as_bytes().to_vec();
    vec![Expression::Meta(side), Expression::Compare(NFT_CMP_NEQ, prefix)]
}

/// The connection is in one of these states.
pub(super) fn state(states: u32) -> Vec<Expression> {
    vec![
        Expression::Conntrack(NFT_CT_STATE),
        Expression::Mask(states.to_ne_bytes().to_vec()),
        Expression::Compare(NFT_CMP_NEQ, vec![0; 4]),
    ]
}

/// The packet answers the side that began the connection.
pub(super) fn reply() -> Vec<Expression> {
    vec![Expression::Conntrack(NFT_CT_DIRECTION), equal(&[DIRECTION_REPLY])]
}

pub(super) fn protocol(number: u8) -> Vec<Expression> {
    vec![Expression::Meta(NFT_META_L4PROTO), equal(&[number])]
}

/// The address at `offset` of the IPv4 header is within the network; nothing to compare for all of them.
pub(super) fn address_in(offset: u32, network: Ipv4Net) -> Vec<Expression> {
    address(offset, network, NFT_CMP_EQ)
}

/// The address is outside the network.
pub(super) fn address_outside(offset: u32, network: Ipv4Net) -> Vec<Expression> {
    address(offset, network, NFT_CMP_NEQ)
}

fn address(offset: u32, network: Ipv4Net, operator: u32) -> Vec<Expression> {
    if network.prefix_len() == 0 && operator == NFT_CMP_EQ {
        return Vec::new();
    }
    let mut row = vec![Expression::Network { offset, bytes: 4 }];
    if network.prefix_len() < network.max_prefix_len() {
        row.push(Expression::Mask(network.netmask().octets().to_vec()));
    }
    row.push(Expression::Compare(operator, network.network().octets().to_vec()));
    row
}

pub(super) fn equal(value: &[u8]) -> Expression {
    Expression::Compare(NFT_CMP_EQ, value.to_vec())
}

/// The packet was taken for the container's proxy.
pub(super) fn captured() -> Vec<Expression> {
    vec![Expression::Meta(NFT_META_MARK), equal(&CAPTURED.to_ne_bytes())]
}

/// It was not.
pub(super) fn not_captured() -> Vec<Expression> {
    vec![Expression::Meta(NFT_META_MARK), Expression::Compare(NFT_CMP_NEQ, CAPTURED.to_ne_bytes().to_vec())]
}

/// The rule by which answers to the side that began the connection go on, and errors that come from the side
/// that answers.
pub(super) fn replies() -> Rule {
    rule("replies", [reply(), state(STATE_ESTABLISHED | STATE_RELATED), verdict(Verdict::Return)])
}

/// The two rules by which connections that stand go on: answers, and the ICMP errors about them, which
/// may come from either side and from any router between (RFC 1191 needs them).
pub(super) fn established() -> [Rule; 2] {
    [
        replies(),
        rule("errors about connections", [protocol(PROTOCOL_ICMP), state(STATE_RELATED), verdict(Verdict::Return)]),
    ]
}
