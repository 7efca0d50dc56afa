//! Addresses, neighbour entries and routes. Setting one that stands already is success.

use super::{NetworkError, netlink::Session};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAttribute, RouteFlags, RouteMessage, RouteScope},
};
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};
use std::net::{IpAddr, Ipv4Addr};

/// Prefix length of a single host.
const HOST: u8 = 32;
const REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;

/// Gives a link the address, alone on its network.
pub(super) async fn set_address(session: &Session, link: u32, address: Ipv4Addr) -> Result<(), NetworkError> {
    let message = AddressMessageBuilder::<Ipv4Addr>::new().index(link).address(address, HOST).build();
    session.request("set address", RouteNetlinkMessage::NewAddress(message), REPLACE).await?;
    Ok(())
}

/// True where the link has the address.
pub(super) async fn has_address(session: &Session, link: u32, address: Ipv4Addr) -> Result<bool, NetworkError> {
    let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let replies = session.dump("list addresses", message).await?;
    let wanted = AddressAttribute::Local(IpAddr::V4(address));
    Ok(replies.into_iter().any(|reply| match reply {
        RouteNetlinkMessage::NewAddress(found) => found.header.index == link && found.attributes.contains(&wanted),
        _ => false,
    }))
}

/// Sets a permanent neighbour entry: `address` is at `mac`, without asking.
pub(super) async fn set_neighbour(
    session: &Session,
    link: u32,
    address: Ipv4Addr,
    mac: [u8; 6],
) -> Result<(), NetworkError> {
    let mut message = neighbour(link, address);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    session.request("set neighbour", RouteNetlinkMessage::NewNeighbour(message), REPLACE).await?;
    Ok(())
}

/// True where the permanent neighbour entry stands.
pub(super) async fn has_neighbour(
    session: &Session,
    link: u32,
    address: Ipv4Addr,
    mac: [u8; 6],
) -> Result<bool, NetworkError> {
    let message = RouteNetlinkMessage::GetNeighbour(neighbour(link, address));
    let replies = match session.request("find neighbour", message, 0).await {
        Ok(replies) => replies,
        Err(error) if error.is_errno(libc::ENOENT) || error.is_errno(libc::ENODEV) => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(replies.into_iter().any(|reply| match reply {
        RouteNetlinkMessage::NewNeighbour(found) => {
            found.header.state == NeighbourState::Permanent
                && found.attributes.contains(&NeighbourAttribute::LinkLayerAddress(mac.to_vec()))
        }
        _ => false,
    }))
}

/// Routes everything over `gateway`, which need not be on a network of the link's.
pub(super) async fn set_default_route(session: &Session, link: u32, gateway: Ipv4Addr) -> Result<(), NetworkError> {
    let mut message = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(link).build();
    message.header.flags = RouteFlags::Onlink;
    session.request("set default route", RouteNetlinkMessage::NewRoute(message), REPLACE).await?;
    Ok(())
}

/// True where everything is routed over `gateway` and the link.
pub(super) async fn has_default_route(session: &Session, link: u32, gateway: Ipv4Addr) -> Result<bool, NetworkError> {
    let message = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let replies = session.dump("list routes", RouteNetlinkMessage::GetRoute(message)).await?;
    let over = RouteAttribute::Gateway(IpAddr::V4(gateway).into());
    Ok(replies.into_iter().any(|reply| match reply {
        RouteNetlinkMessage::NewRoute(found) => {
            found.header.destination_prefix_length == 0
                && found.attributes.contains(&over)
                && found.attributes.contains(&RouteAttribute::Oif(link))
        }
        _ => false,
    }))
}

/// Routes one address to a link, in place of any route of that address.
pub(super) async fn set_host_route(session: &Session, link: u32, address: Ipv4Addr) -> Result<(), NetworkError> {
    let builder = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, HOST).output_interface(link);
    let mut message = builder.build();
    message.header.scope = RouteScope::Link;
    session.request("set host route", RouteNetlinkMessage::NewRoute(message), REPLACE).await?;
    Ok(())
}

/// True where the address is routed to the link by a route of its own.
pub(super) async fn has_host_route(session: &Session, link: u32, address: Ipv4Addr) -> Result<bool, NetworkError> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = HOST;
    // Ask for the table's entry instead of the route made from it.
    message.header.flags = RouteFlags::FibMatch;
    message.attributes.push(RouteAttribute::Destination(IpAddr::V4(address).into()));
    let replies = match session.request("find host route", RouteNetlinkMessage::GetRoute(message), 0).await {
        Ok(replies) => replies,
        Err(error)
            if [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::ESRCH].iter().any(|errno| error.is_errno(*errno)) =>
        {
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    Ok(replies.into_iter().any(|reply| match reply {
        RouteNetlinkMessage::NewRoute(found) => {
            found.header.destination_prefix_length == HOST && found.attributes.contains(&RouteAttribute::Oif(link))
        }
        _ => false,
    }))
}

fn neighbour(link: u32, address: Ipv4Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = link;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(address)));
    message
}
