//! Links: reading them, making the veth pair, setting and deleting.

use super::{NetworkError, namespace::Namespace, netlink::Session};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, Stats64},
    nsid::{NsidAttribute, NsidMessage},
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};
use std::time::Duration;
use tokio::time::Instant;

/// Pause between two looks at a link that is about to run. From Linux 6.8 on the look itself makes it run.
const RUNNING_POLL: Duration = Duration::from_millis(1);

/// What the kernel says of a link.
#[derive(Debug, Clone, Default)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) alias: Option<String>,
    pub(super) mac: Vec<u8>,
    pub(super) is_veth: bool,
    pub(super) flags: LinkFlags,
    /// Index of a veth's other end, in that end's namespace.
    pub(super) peer: Option<u32>,
    /// The namespace of the other end as this one numbers it; `None`: this one.
    pub(super) peer_namespace: Option<i32>,
    pub(super) stats: Option<Stats64>,
}

impl Link {
    /// Up on both ends.
    pub(super) fn is_connected(&self) -> bool {
        self.flags.contains(LinkFlags::Up | LinkFlags::LowerUp)
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self { index: message.header.index, flags: message.header.flags, ..Self::default() };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Address(mac) => link.mac = mac,
                LinkAttribute::Link(peer) => link.peer = Some(peer),
                LinkAttribute::LinkNetNsId(id) => link.peer_namespace = Some(id),
                LinkAttribute::Stats64(stats) => link.stats = Some(stats),
                LinkAttribute::LinkInfo(infos) => link.is_veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
                _ => {}
            }
        }
        link
    }
}

/// One end of a pair as it shall be.
#[derive(Debug, Clone, Copy)]
pub(super) struct End<'a> {
    pub(super) name: &'a str,
    pub(super) mac: [u8; 6],
    pub(super) mtu: u32,
}

impl End<'_> {
    /// Without ARP: every neighbour entry is ours and permanent.
    fn message(&self) -> LinkMessageBuilder<LinkUnspec> {
        LinkMessageBuilder::default().mtu(self.mtu).arp(false)
    }

    /// For a link to be made. Its hardware address is given at once: one that the kernel chose would be
    /// taken as free to change by udev.
    fn new_message(&self) -> LinkMessageBuilder<LinkUnspec> {
        self.message().name(self.name).address(self.mac.to_vec())
    }
}

/// The link of this name; `None` where there is none.
pub(super) async fn find(session: &Session, name: &str) -> Result<Option<Link>, NetworkError> {
    let message = LinkMessageBuilder::<LinkUnspec>::default().name(name).build();
    match session.request("find link", RouteNetlinkMessage::GetLink(message), 0).await {
        Ok(replies) => Ok(links(replies).next()),
        Err(error) if error.is_errno(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Every link, without counters.
pub(super) async fn list(session: &Session) -> Result<Vec<Link>, NetworkError> {
    let skip_counters = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
    let message = LinkMessageBuilder::<LinkUnspec>::default().append_extra_attribute(skip_counters).build();
    Ok(links(session.dump("list links", RouteNetlinkMessage::GetLink(message)).await?).collect())
}

/// Makes a pair in one step: `host` here, `peer` in `namespace`. Both are down.
pub(super) async fn create_pair(
    session: &Session,
    host: End<'_>,
    peer: End<'_>,
    namespace: &Namespace,
) -> Result<(), NetworkError> {
    let mut info = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth);
    let peer = peer.new_message().setns_by_fd(namespace.raw_fd()).build();
    info = info.set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
    let mut message = host.new_message().build();
    message.attributes.extend(info.build().attributes);
    session.request("make link", RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).await?;
    Ok(())
}

/// Brings a link to what `end` says, its name excepted, and marks it with `alias` where one is given.
pub(super) async fn set(session: &Session, link: &Link, end: End<'_>, alias: Option<&str>) -> Result<(), NetworkError> {
    let mut message = end.message().index(link.index);
    // The kernel forgets a link's neighbours even where the address set is the one it has.
    if link.mac != end.mac {
        message = message.address(end.mac.to_vec());
    }
    if let Some(alias) = alias {
        message = message.alias(alias);
    }
    session.request("set link", RouteNetlinkMessage::SetLink(message.build()), 0).await?;
    Ok(())
}

/// Brings a link up and changes nothing else.
pub(super) async fn up(session: &Session, name: &str) -> Result<(), NetworkError> {
    let message = LinkMessageBuilder::<LinkUnspec>::default().name(name).up().build();
    session.request("bring up link", RouteNetlinkMessage::SetLink(message), 0).await?;
    Ok(())
}

/// Returns when a link whose both ends are up also passes traffic. The kernel starts the end that came up
/// first a moment after the second (net/core/link_watch.c) and drops what is sent over it meanwhile.
pub(super) async fn wait_running(session: &Session, name: &str) -> Result<(), NetworkError> {
    loop {
        let link = find(session, name).await?;
        match link {
            Some(link) if link.flags.contains(LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Running) => return Ok(()),
            Some(_) if Instant::now() < session.deadline() => tokio::time::sleep(RUNNING_POLL).await,
            Some(_) => {
                return Err(NetworkError::Deadline { action: "start link", interface: session.interface().to_owned() });
            }
            None => return Err(NetworkError::Vanished { interface: session.interface().to_owned() }),
        }
    }
}

/// Deletes a link, its other end, and the routes and neighbour entries of both. Success where it is
/// gone.
pub(super) async fn delete(session: &Session, link: &Link) -> Result<(), NetworkError> {
    // By index: a link that took over the name meanwhile is not ours.
    let message = LinkMessageBuilder::<LinkUnspec>::default().index(link.index).build();
    match session.request("delete link", RouteNetlinkMessage::DelLink(message), 0).await {
        Err(error) if !error.is_errno(libc::ENODEV) => Err(error),
        _ => Ok(()),
    }
}

/// The number by which the session's namespace knows `namespace`; `None` where it does not.
pub(super) async fn namespace_id(session: &Session, namespace: &Namespace) -> Result<Option<i32>, NetworkError> {
    let mut message = NsidMessage::default();
    message.attributes = vec![NsidAttribute::Fd(namespace.raw_fd().unsigned_abs())];
    let replies = session.request("number namespace", RouteNetlinkMessage::GetNsId(message), 0).await?;
    Ok(replies.into_iter().find_map(|reply| match reply {
        RouteNetlinkMessage::NewNsId(message) => message.attributes.into_iter().find_map(|attribute| match attribute {
            NsidAttribute::Id(id) if id >= 0 => Some(id),
            _ => None,
        }),
        _ => None,
    }))
}

fn links(replies: Vec<RouteNetlinkMessage>) -> impl Iterator<Item = Link> {
    replies.into_iter().filter_map(|reply| match reply {
        RouteNetlinkMessage::NewLink(message) => Some(message.into()),
        _ => None,
    })
}
