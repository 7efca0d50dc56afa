//! The table's base: what stands whether or not there are containers.
//!
//! Traffic of a container goes `hook → from_container / to_container → the container's chain`. The
//! verdict maps *go to* the container's chain, so that its `return` leads back behind the jump in the
//! hook's chain, and an interface that is missing in the map falls through to a drop: an interface of
//! which the table knows nothing passes nothing.
//!
//! | hook | traffic | decided by |
//! | --- | --- | --- |
//! | prerouting | from containers that have a proxy | taken for it, or dropped |
//! | forward | from and to containers | origin's egress chain, then destination's ingress chain |
//! | input | container → host | egress chain, then nothing but replies and errors pass |
//! | output | host → container | ingress chain |
//!
//! A connection that begins in the middle (a TCP segment without SYN) is dropped. Without that, a
//! connection cut by a changed policy would come back as a new one from its other side.

use super::{
    instructions::*,
    names::{BINDINGS, CAPTURE_MAP, CONNECTIONS, EGRESS_MAP, INGRESS_MAP, INTERFACE_KEY_BYTES},
    netlink::{
        batch::{Batch, Hook, Rule, SetShape},
        expression::{Expression, Verdict},
        wire::*,
    },
    nft::NftConfig,
};
use ipnet::Ipv4Net;
use std::net::{Ipv4Addr, SocketAddrV4};

const FROM_CONTAINER: &str = "from_container";
const TO_CONTAINER: &str = "to_container";
const TO_HOST: &str = "to_host";
const PREROUTING: &str = "prerouting";
const INPUT: &str = "input";
const FORWARD: &str = "forward";
const OUTPUT: &str = "output";
const POSTROUTING: &str = "postrouting";

/// Addresses of links and of clouds' metadata services (RFC 3927): not for containers.
const LINK_LOCAL: (Ipv4Addr, u8) = (Ipv4Addr::new(169, 254, 0, 0), 16);
/// Most addresses of which the kernel counts connections at a time: a /16 of containers.
const COUNTED_ADDRESSES: u32 = 65_536;
/// Where the destination port stands in the UDP header (RFC 768).
const DESTINATION_PORT_OFFSET: u32 = 2;
/// Where the flags stand in the TCP header (RFC 9293), and those that begin a connection.
const TCP_FLAGS_OFFSET: u32 = 13;
const TCP_FIN_SYN_RST_ACK: u8 = 0x17;
const TCP_SYN: u8 = 0x02;

/// The sets and maps of the base.
pub(super) const BASE_SETS: [(&str, SetShape); 5] = [
    (
        BINDINGS,
        SetShape {
            flags: 0,
            key_type: TYPE_IFNAME << TYPE_BITS | TYPE_IPADDR,
            key_order: BYTEORDER_INVALID,
            key_bytes: INTERFACE_KEY_BYTES as u32 + 4,
            size: None,
        },
    ),
    (EGRESS_MAP, INTERFACE_MAP),
    (INGRESS_MAP, INTERFACE_MAP),
    (CAPTURE_MAP, INTERFACE_MAP),
    (
        CONNECTIONS,
        SetShape {
            flags: NFT_SET_EVAL,
            key_type: TYPE_IPADDR,
            key_order: BYTEORDER_BIG_ENDIAN,
            key_bytes: 4,
            size: Some(COUNTED_ADDRESSES),
        },
    ),
];
const INTERFACE_MAP: SetShape = SetShape {
    flags: NFT_SET_MAP,
    key_type: TYPE_IFNAME,
    key_order: BYTEORDER_HOST_ENDIAN,
    key_bytes: INTERFACE_KEY_BYTES as u32,
    size: None,
};
/// The set of one owner's addresses.
pub(super) const OWNER_SET: SetShape =
    SetShape { flags: 0, key_type: TYPE_IPADDR, key_order: BYTEORDER_BIG_ENDIAN, key_bytes: 4, size: None };

/// A chain of the base.
#[derive(Debug)]
struct Chain {
    name: &'static str,
    hook: Option<Hook>,
    rules: Vec<Rule>,
}

/// Adds to the batch whatever of the base is missing, and sets its rules anew.
pub(super) fn put_base(batch: &mut Batch, config: &NftConfig, table_flags: u32) {
    batch.add_table(table_flags);
    for (name, shape) in BASE_SETS {
        batch.add_set(name, shape);
    }
    let chains = chains(config);
    for chain in &chains {
        batch.add_chain(chain.name, chain.hook);
    }
    for chain in &chains {
        batch.flush_chain(chain.name);
        for rule in &chain.rules {
            batch.add_rule(chain.name, rule);
        }
    }
}

/// A chain of the base as it stands where nobody has touched it.
#[derive(Debug)]
pub(super) struct Outline {
    pub(super) name: &'static str,
    /// A hook calls it.
    pub(super) hooked: bool,
    /// Its rules' comments in order.
    pub(super) comments: Vec<String>,
}

/// What the base looks like.
pub(super) fn outline(config: &NftConfig) -> impl Iterator<Item = Outline> {
    chains(config).into_iter().map(|chain| Outline {
        name: chain.name,
        hooked: chain.hook.is_some(),
        comments: chain.rules.into_iter().map(|rule| rule.comment).collect(),
    })
}

fn chains(config: &NftConfig) -> [Chain; 8] {
    let (network, connections) = (config.network, config.connections_per_container);
    let filter = |number| Some(Hook { kind: "filter", number, priority: NF_IP_PRI_FILTER });
    let masquerade = Some(Hook { kind: "nat", number: NF_INET_POST_ROUTING, priority: NF_IP_PRI_NAT_SRC });
    // Behind the tracking of connections, before routing.
    let before_routing = Some(Hook { kind: "filter", number: NF_INET_PRE_ROUTING, priority: NF_IP_PRI_MANGLE });
    [
        Chain { name: PREROUTING, hook: before_routing, rules: prerouting() },
        Chain { name: FROM_CONTAINER, hook: None, rules: one_side(NFT_META_IIFNAME, SOURCE_OFFSET, EGRESS_MAP) },
        Chain { name: TO_CONTAINER, hook: None, rules: one_side(NFT_META_OIFNAME, DESTINATION_OFFSET, INGRESS_MAP) },
        Chain { name: TO_HOST, hook: None, rules: to_host() },
        Chain { name: INPUT, hook: filter(NF_INET_LOCAL_IN), rules: input(connections) },
        Chain { name: FORWARD, hook: filter(NF_INET_FORWARD), rules: forward(config) },
        Chain { name: OUTPUT, hook: filter(NF_INET_LOCAL_OUT), rules: output(connections) },
        Chain { name: POSTROUTING, hook: masquerade, rules: postrouting(network) },
    ]
}

/// What every packet from, or to, a container goes through.
fn one_side(side: u32, address_offset: u32, map: &str) -> Vec<Rule> {
    let bound = vec![
        Expression::Meta(side),
        Expression::NetworkAppended { offset: address_offset, bytes: 4 },
        Expression::Lookup { set: BINDINGS.to_owned(), inverted: true },
    ];
    let begins_connection = vec![
        Expression::Transport { offset: TCP_FLAGS_OFFSET, bytes: 1 },
        Expression::Mask(vec![TCP_FIN_SYN_RST_ACK]),
        Expression::Compare(NFT_CMP_NEQ, vec![TCP_SYN]),
    ];
    vec![
        rule("not ipv4", [not_ipv4(), verdict(Verdict::Drop)]),
        rule("not its address", [ipv4(), bound, verdict(Verdict::Drop)]),
        rule("invalid", [state(STATE_INVALID), verdict(Verdict::Drop)]),
        rule(
            "begins in the middle",
            [protocol(PROTOCOL_TCP), state(STATE_NEW), begins_connection, verdict(Verdict::Drop)],
        ),
        rule("containers", [vec![Expression::Meta(side), Expression::VerdictMap(map.to_owned())]]),
        rule("unknown interface", [verdict(Verdict::Drop)]),
    ]
}

fn prerouting() -> Vec<Rule> {
    let by_interface = vec![Expression::Meta(NFT_META_IIFNAME), Expression::VerdictMap(CAPTURE_MAP.to_owned())];
    vec![rule("from containers with a proxy", [by_interface])]
}

fn input(connections: u32) -> Vec<Rule> {
    let from = || container_interface(NFT_META_IIFNAME);
    vec![
        rule("from containers", [from(), verdict(Verdict::Jump(FROM_CONTAINER.to_owned()))]),
        too_many(from(), SOURCE_OFFSET, connections),
        rule("to the host", [from(), verdict(Verdict::Goto(TO_HOST.to_owned()))]),
    ]
}

fn to_host() -> Vec<Rule> {
    let mut rules = Vec::from(established());
    rules.push(rule("taken for a proxy", [captured(), verdict(Verdict::Return)]));
    rules.push(rule("the host offers nothing", [verdict(Verdict::Drop)]));
    rules
}

fn forward(config: &NftConfig) -> Vec<Rule> {
    let (network, connections) = (config.network, config.connections_per_container);
    let from = || container_interface(NFT_META_IIFNAME);
    let to = || container_interface(NFT_META_OIFNAME);
    let mut rules = closed(config);
    rules.extend([
        // Where the route to the proxy is missing.
        rule("taken and not delivered", [from(), captured(), verdict(Verdict::Drop)]),
        rule(
            "outsider with a container's address",
            [
                no_container_interface(NFT_META_IIFNAME),
                to(),
                ipv4(),
                address_in(SOURCE_OFFSET, network),
                verdict(Verdict::Drop),
            ],
        ),
        rule("from containers", [from(), verdict(Verdict::Jump(FROM_CONTAINER.to_owned()))]),
        rule("to containers", [to(), verdict(Verdict::Jump(TO_CONTAINER.to_owned()))]),
        too_many(from(), SOURCE_OFFSET, connections),
        too_many(to(), DESTINATION_OFFSET, connections),
    ]);
    rules
}

/// What is closed to every container, before its own rules are asked.
fn closed(config: &NftConfig) -> Vec<Rule> {
    let from = || container_interface(NFT_META_IIFNAME);
    let (address, prefix) = LINK_LOCAL;
    let networks = [Ipv4Net::new_assert(address, prefix)].into_iter().chain(config.closed_networks.iter().copied());
    let network = |network| {
        rule("closed network", [from(), ipv4(), address_in(DESTINATION_OFFSET, network), verdict(Verdict::Drop)])
    };
    let endpoint = |endpoint: &SocketAddrV4| {
        let port = vec![
            Expression::Transport { offset: DESTINATION_PORT_OFFSET, bytes: 2 },
            equal(&endpoint.port().to_be_bytes()),
        ];
        let host = address_in(DESTINATION_OFFSET, Ipv4Net::from(*endpoint.ip()));
        rule("closed endpoint", [from(), ipv4(), host, protocol(PROTOCOL_UDP), port, verdict(Verdict::Drop)])
    };
    networks.map(network).chain(config.closed_endpoints.iter().map(endpoint)).collect()
}

fn output(connections: u32) -> Vec<Rule> {
    let to = || container_interface(NFT_META_OIFNAME);
    vec![
        rule("to containers", [to(), verdict(Verdict::Jump(TO_CONTAINER.to_owned()))]),
        too_many(to(), DESTINATION_OFFSET, connections),
    ]
}

/// Drops what would begin a connection beyond the container's limit; asked after the container's own
/// chains, so that only what they let pass is counted.
fn too_many(side: Vec<Expression>, address_offset: u32, most: u32) -> Rule {
    let above = vec![
        Expression::Network { offset: address_offset, bytes: 4 },
        Expression::ConnectionsAbove { set: CONNECTIONS.to_owned(), most },
    ];
    rule("too many connections", [side, ipv4(), state(STATE_NEW), above, verdict(Verdict::Drop)])
}

fn postrouting(network: Ipv4Net) -> Vec<Rule> {
    vec![rule(
        "to the outside",
        [
            ipv4(),
            address_in(SOURCE_OFFSET, network),
            address_outside(DESTINATION_OFFSET, network),
            vec![Expression::Masquerade],
        ],
    )]
}
