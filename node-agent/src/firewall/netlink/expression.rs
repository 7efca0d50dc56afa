//! What rules are made of: the instructions of the kernel's small filter machine.
//!
//! An instruction loads something into a register, compares, or decides; a comparison that fails ends
//! the rule. All of ours work on register 1; a concatenation continues into register 2.

use super::{attribute::PutAttribute, wire::*};
use crate::firewall::names::port_set;
use std::net::SocketAddrV4;

/// Ranges of ports, ascending, neither overlapping nor adjacent; both ends included.
pub(crate) type PortRanges = Vec<(u16, u16)>;

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Expression {
    /// Loads these bytes.
    Load(Vec<u8>),
    /// Loads a property of the packet (`NFT_META_…`).
    Meta(u32),
    /// Loads a property of the connection (`NFT_CT_…`).
    Conntrack(u32),
    /// Loads bytes of the network header.
    Network { offset: u32, bytes: u32 },
    /// The same, behind what register 1 holds.
    NetworkAppended { offset: u32, bytes: u32 },
    /// Loads bytes of the transport header.
    Transport { offset: u32, bytes: u32 },
    /// Keeps the bits of the mask.
    Mask(Vec<u8>),
    /// Goes on where the register compares so (`NFT_CMP_…`).
    Compare(u32, Vec<u8>),
    /// Goes on where the register is an element of the named set; with `inverted`, where it is not.
    Lookup { set: String, inverted: bool },
    /// Goes on where the register is a port within the ranges, looked up in the set of their name.
    PortIn(PortRanges),
    /// Takes the verdict that the named map has for the register; goes on where it has none.
    VerdictMap(String),
    /// Counts in the named counter.
    Count(String),
    /// Goes on where the address in the register has more than `most` connections.
    ConnectionsAbove { set: String, most: u32 },
    /// Writes a property of the packet (`NFT_META_…`).
    SetMeta(u32, Vec<u8>),
    /// Writes a property of the connection (`NFT_CT_…`).
    SetConntrack(u32, Vec<u8>),
    /// Hands the packet to the transparent socket that it belongs to, or that listens on this address; goes on
    /// where there is one.
    Capture(SocketAddrV4),
    /// Masquerades.
    Masquerade,
    /// Refuses with a TCP reset.
    RejectWithReset,
    /// Refuses with ICMP port unreachable.
    RejectUnreachable,
    /// Ends the rule with a verdict.
    Verdict(Verdict),
}

/// How a rule, or an element of a verdict map, ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    /// The packet is gone.
    Drop,
    /// Back to where the chain was jumped from.
    Return,
    /// On with the named chain, then back behind this rule.
    Jump(String),
    /// On with the named chain, then back to where this chain was jumped from.
    Goto(String),
}

impl Verdict {
    /// Writes it as the data of an instruction or element.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let (code, chain) = match self {
            Self::Drop => (NF_DROP, None),
            Self::Return => (NFT_RETURN as u32, None),
            Self::Jump(chain) => (NFT_JUMP as u32, Some(chain)),
            Self::Goto(chain) => (NFT_GOTO as u32, Some(chain)),
        };
        out.nest(NFTA_DATA_VERDICT, |out| {
            out.put_u32(NFTA_VERDICT_CODE, code);
            if let Some(chain) = chain {
                out.put_text(NFTA_VERDICT_CHAIN, chain);
            }
        });
    }
}

impl Expression {
    /// Writes the instruction.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Load(value) => load(out, NFT_REG_1, value),
            Self::Meta(key) => instruction(out, "meta", |out| {
                out.put_u32(NFTA_META_DREG, NFT_REG_1);
                out.put_u32(NFTA_META_KEY, *key);
            }),
            Self::Conntrack(key) => instruction(out, "ct", |out| {
                out.put_u32(NFTA_CT_DREG, NFT_REG_1);
                out.put_u32(NFTA_CT_KEY, *key);
            }),
            Self::Network { offset, bytes } => payload(out, NFT_REG_1, NFT_PAYLOAD_NETWORK_HEADER, *offset, *bytes),
            Self::NetworkAppended { offset, bytes } => {
                payload(out, NFT_REG_2, NFT_PAYLOAD_NETWORK_HEADER, *offset, *bytes);
            }
            Self::Transport { offset, bytes } => payload(out, NFT_REG_1, NFT_PAYLOAD_TRANSPORT_HEADER, *offset, *bytes),
            Self::Mask(mask) => instruction(out, "bitwise", |out| {
                out.put_u32(NFTA_BITWISE_SREG, NFT_REG_1);
                out.put_u32(NFTA_BITWISE_DREG, NFT_REG_1);
                out.put_u32(NFTA_BITWISE_LEN, mask.len() as u32);
                out.nest(NFTA_BITWISE_MASK, |out| out.put(NFTA_DATA_VALUE, mask));
                out.nest(NFTA_BITWISE_XOR, |out| out.put(NFTA_DATA_VALUE, &vec![0; mask.len()]));
            }),
            Self::Compare(operator, value) => instruction(out, "cmp", |out| {
                out.put_u32(NFTA_CMP_SREG, NFT_REG_1);
                out.put_u32(NFTA_CMP_OP, *operator);
                out.nest(NFTA_CMP_DATA, |out| out.put(NFTA_DATA_VALUE, value));
            }),
            Self::Lookup { set, inverted } => instruction(out, "lookup", |out| {
                out.put_text(NFTA_LOOKUP_SET, set);
                out.put_u32(NFTA_LOOKUP_SREG, NFT_REG_1);
                if *inverted {
                    out.put_u32(NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
                }
            }),
            Self::PortIn(ranges) => instruction(out, "lookup", |out| {
                out.put_text(NFTA_LOOKUP_SET, &port_set(ranges));
                out.put_u32(NFTA_LOOKUP_SREG, NFT_REG_1);
            }),
            Self::VerdictMap(map) => instruction(out, "lookup", |out| {
                out.put_text(NFTA_LOOKUP_SET, map);
                out.put_u32(NFTA_LOOKUP_SREG, NFT_REG_1);
                out.put_u32(NFTA_LOOKUP_DREG, NFT_REG_VERDICT);
            }),
            Self::Count(name) => instruction(out, "objref", |out| {
                out.put_u32(NFTA_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER);
                out.put_text(NFTA_OBJREF_IMM_NAME, name);
            }),
            Self::ConnectionsAbove { set, most } => instruction(out, "dynset", |out| {
                out.put_text(NFTA_DYNSET_SET_NAME, set);
                out.put_u32(NFTA_DYNSET_OP, NFT_DYNSET_OP_ADD);
                out.put_u32(NFTA_DYNSET_SREG_KEY, NFT_REG_1);
                out.nest(NFTA_DYNSET_EXPR, |out| {
                    named(out, "connlimit", |out| {
                        out.put_u32(NFTA_CONNLIMIT_COUNT, *most);
                        out.put_u32(NFTA_CONNLIMIT_FLAGS, NFT_CONNLIMIT_F_INV);
                    });
                });
            }),
            Self::SetMeta(key, value) => {
                load(out, NFT_REG_1, value);
                instruction(out, "meta", |out| {
                    out.put_u32(NFTA_META_KEY, *key);
                    out.put_u32(NFTA_META_SREG, NFT_REG_1);
                });
            }
            Self::SetConntrack(key, value) => {
                load(out, NFT_REG_1, value);
                instruction(out, "ct", |out| {
                    out.put_u32(NFTA_CT_KEY, *key);
                    out.put_u32(NFTA_CT_SREG, NFT_REG_1);
                });
            }
            Self::Capture(listener) => {
                load(out, NFT_REG_1, &listener.ip().octets());
                load(out, NFT_REG_2, &listener.port().to_be_bytes());
                instruction(out, "tproxy", |out| {
                    out.put_u32(NFTA_TPROXY_FAMILY, u32::from(NFPROTO_IPV4));
                    out.put_u32(NFTA_TPROXY_REG_ADDR, NFT_REG_1);
                    out.put_u32(NFTA_TPROXY_REG_PORT, NFT_REG_2);
                });
            }
            Self::Masquerade => instruction(out, "masq", |_| ()),
            Self::RejectWithReset => {
                instruction(out, "reject", |out| out.put_u32(NFTA_REJECT_TYPE, NFT_REJECT_TCP_RST))
            }
            Self::RejectUnreachable => instruction(out, "reject", |out| {
                out.put_u32(NFTA_REJECT_TYPE, NFT_REJECT_ICMPX_UNREACH);
                out.put(NFTA_REJECT_ICMP_CODE, &[NFT_REJECT_ICMPX_PORT_UNREACH]);
            }),
            Self::Verdict(verdict) => instruction(out, "immediate", |out| {
                out.put_u32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
                out.nest(NFTA_IMMEDIATE_DATA, |out| verdict.put(out));
            }),
        }
    }
}

fn instruction(out: &mut Vec<u8>, name: &str, data: impl FnOnce(&mut Vec<u8>)) {
    out.nest(NFTA_LIST_ELEM, |out| named(out, name, data));
}

fn named(out: &mut Vec<u8>, name: &str, data: impl FnOnce(&mut Vec<u8>)) {
    out.put_text(NFTA_EXPR_NAME, name);
    out.nest(NFTA_EXPR_DATA, data);
}

/// Puts a value into a register.
fn load(out: &mut Vec<u8>, register: u32, value: &[u8]) {
    instruction(out, "immediate", |out| {
        out.put_u32(NFTA_IMMEDIATE_DREG, register);
        out.nest(NFTA_IMMEDIATE_DATA, |out| out.put(NFTA_DATA_VALUE, value));
    });
}

fn payload(out: &mut Vec<u8>, register: u32, base: u32, offset: u32, bytes: u32) {
    instruction(out, "payload", |out| {
        out.put_u32(NFTA_PAYLOAD_DREG, register);
        out.put_u32(NFTA_PAYLOAD_BASE, base);
        out.put_u32(NFTA_PAYLOAD_OFFSET, offset);
        out.put_u32(NFTA_PAYLOAD_LEN, bytes);
    });
}
