//! The routing of captured packets: a rule on their mark, and a table that calls every address this host's own.

use super::EgressError;
use crate::firewall::CAPTURED;
use netlink_packet_route::{
    route::{RouteScope, RouteType},
    rule::RuleAction,
};
use rtnetlink::{Handle, RouteMessageBuilder};
use std::{net::Ipv4Addr, time::Duration};

/// Our routing table, and the rule's place: behind the table of local addresses, before everything else.
const TABLE: u32 = 26_745;
const PRIORITY: u32 = 100;
/// Index of the loopback interface in every network namespace.
const LOOPBACK: u32 = 1;
const DEADLINE: Duration = Duration::from_secs(10);

/// Makes rule and route where they are missing.
pub(super) async fn ensure() -> Result<(), EgressError> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(EgressError::Socket)?;
    let connection = tokio::spawn(connection);
    let made = tokio::time::timeout(DEADLINE, make(&handle)).await;
    connection.abort();
    made.map_err(|_| EgressError::Deadline)?
}

async fn make(handle: &Handle) -> Result<(), EgressError> {
    // The route first: without it the rule would lead nowhere, and the packets on to the next one.
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
        .output_interface(LOOPBACK)
        .table_id(TABLE)
        .kind(RouteType::Local)
        .scope(RouteScope::Host)
        .build();
    there(handle.route().add(route).replace().execute().await, "set the route of captured packets")?;
    let rule = handle.rule().add().v4().fw_mark(CAPTURED).table_id(TABLE).priority(PRIORITY);
    there(rule.action(RuleAction::ToTable).execute().await, "set the rule for captured packets")
}

/// What stands already is as good.
fn there(done: Result<(), rtnetlink::Error>, action: &'static str) -> Result<(), EgressError> {
    match done {
        Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -libc::EEXIST => Ok(()),
        Err(source) => Err(EgressError::Kernel { action, source: Box::new(source) }),
        Ok(()) => Ok(()),
    }
}
