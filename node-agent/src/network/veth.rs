//! The routed veth pair: [`Network`] on the real kernel.
//!
//! `attach` compares and repairs: every step sets what should be and succeeds where it already is. A
//! pair that is not exactly the container's (other end elsewhere, other owner's mark or address) is
//! made anew. The container's end is configured whole before the host's end comes up, and the host
//! route, without which strict reverse path filtering drops everything, comes last.

use super::{
    CONTAINER_INTERFACE, Network, NetworkError, container_mac, host_interface, host_mac, identity, is_host_interface,
    link::{self, End, Link},
    namespace::{self, Namespace},
    netlink::Session,
    rate, route, sysctl,
};
use async_trait::async_trait;
use hoody_protocol::{bounded::Text, id::ContainerId, stats::NetworkStats};
use std::{net::Ipv4Addr, time::Duration};
use tokio::time::Instant;

/// Limit of one operation with all its requests. The kernel's network lock is held for long only where
/// very many interfaces go at once.
const OPERATION_DEADLINE: Duration = Duration::from_secs(5);

/// The least that every IPv4 host must take whole (RFC 791).
const MIN_MTU_BYTES: u32 = 576;
/// The largest IPv4 packet.
const MAX_MTU_BYTES: u32 = 65_535;

/// Settings of the links.
#[derive(Debug, Clone, Copy)]
pub struct RoutedVethConfig {
    /// The gateway's address inside containers. No interface needs to hold it.
    pub gateway: Ipv4Addr,
    /// Bytes of the largest packet.
    pub mtu: u32,
}

impl Default for RoutedVethConfig {
    fn default() -> Self {
        Self { gateway: Ipv4Addr::new(169, 254, 1, 1), mtu: 1500 }
    }
}

/// One routed veth pair per container, in the network namespace of the threads that call.
#[derive(Debug)]
pub struct RoutedVeth {
    config: RoutedVethConfig,
}

impl RoutedVeth {
    /// Checks the settings; touches nothing.
    pub fn new(config: RoutedVethConfig) -> Result<Self, NetworkError> {
        if !is_unicast(config.gateway) {
            return Err(NetworkError::InvalidGateway(config.gateway));
        }
        if !(MIN_MTU_BYTES..=MAX_MTU_BYTES).contains(&config.mtu) {
            return Err(NetworkError::InvalidMtu(config.mtu));
        }
        Ok(Self { config })
    }

    /// The addresses that links on this node are marked with, and of whom.
    pub async fn held_addresses(&self) -> Result<Vec<(ContainerId, Ipv4Addr)>, NetworkError> {
        let host = Session::open("all interfaces", Instant::now() + OPERATION_DEADLINE)?;
        let links = link::list(&host).await?.into_iter();
        Ok(links
            .filter(|link| link.is_veth && is_host_interface(&link.name))
            .filter_map(|link| link.alias.as_deref().and_then(identity::parse_alias))
            .collect())
    }

    /// The pair's two ends, made where they are not as they should be; marks the host's end with its
    /// owner. Both may still be down.
    async fn ensure_pair(
        &self,
        host: &Session,
        inside: &Session,
        namespace: &Namespace,
        owner: Owner,
    ) -> Result<Pair, NetworkError> {
        if let Some(pair) = self.matching_pair(host, inside, namespace, owner).await? {
            return Ok(pair);
        }
        let name = host_interface(owner.id);
        link::create_pair(host, self.host_end(&name, owner.id), self.inside_end(owner.id), namespace).await?;
        let (Some(made), Some(peer)) = (link::find(host, &name).await?, link::find(inside, CONTAINER_INTERFACE).await?)
        else {
            return Err(NetworkError::Vanished { interface: name });
        };
        Ok(Pair { host: made, inside: peer })
    }

    /// The pair where it stands; removes what stands in its place otherwise.
    async fn matching_pair(
        &self,
        host: &Session,
        inside: &Session,
        namespace: &Namespace,
        owner: Owner,
    ) -> Result<Option<Pair>, NetworkError> {
        let ours = find_host_end(host, owner.id).await?;
        let peer = link::find(inside, CONTAINER_INTERFACE).await?;
        if let (Some(ours), Some(peer)) = (&ours, peer) {
            let number = link::namespace_id(host, namespace).await?;
            let joined = ours.peer == Some(peer.index)
                && peer.peer == Some(ours.index)
                && ours.peer_namespace.is_some()
                && ours.peer_namespace == number;
            // The mark comes first of all that depends on the address.
            if joined && peer.is_veth && ours.alias.as_deref() == Some(&identity::alias(owner.id, owner.address)) {
                return Ok(Some(Pair { host: ours.clone(), inside: peer }));
            }
        }
        if let Some(stale) = ours {
            tracing::info!(interface = stale.name, container = %owner.id, "making the link anew");
            link::delete(host, &stale).await?;
        }
        // Usually gone with its other end; one that is left would keep ours from its name.
        if let Some(stale) = link::find(inside, CONTAINER_INTERFACE).await? {
            if !stale.is_veth {
                return Err(NetworkError::NotVeth { interface: inside.interface().to_owned() });
            }
            link::delete(inside, &stale).await?;
        }
        Ok(None)
    }

    async fn configure_inside(&self, inside: &Session, link: &Link, owner: Owner) -> Result<(), NetworkError> {
        link::up(inside, "lo").await?;
        link::set(inside, link, self.inside_end(owner.id), None).await?;
        link::up(inside, CONTAINER_INTERFACE).await?;
        route::set_address(inside, link.index, owner.address).await?;
        route::set_neighbour(inside, link.index, self.config.gateway, host_mac(owner.id)).await?;
        route::set_default_route(inside, link.index, self.config.gateway).await
    }

    /// True where the container's end is as [`Self::configure_inside`] leaves it.
    async fn stands_inside(&self, inside: &Session, id: ContainerId, address: Ipv4Addr) -> Result<bool, NetworkError> {
        let Some(link) = link::find(inside, CONTAINER_INTERFACE).await? else { return Ok(false) };
        let gateway = self.config.gateway;
        Ok(link.is_connected()
            && link.mac == container_mac(id)
            && route::has_address(inside, link.index, address).await?
            && route::has_neighbour(inside, link.index, gateway, host_mac(id)).await?
            && route::has_default_route(inside, link.index, gateway).await?)
    }

    /// Everything of the host's end that can be done while it is down.
    async fn prepare_host(&self, host: &Session, link: &Link, owner: Owner) -> Result<(), NetworkError> {
        let name = host_interface(owner.id);
        let settings = name.clone();
        let write = move || sysctl::prepare_host_interface(&settings);
        namespace::run(None, &name, "set kernel settings", host.deadline(), write).await?;
        let alias = identity::alias(owner.id, owner.address);
        // Switching ARP off forgets the neighbours, so they come after it.
        link::set(host, link, self.host_end(&name, owner.id), Some(&alias)).await?;
        route::set_neighbour(host, link.index, owner.address, container_mac(owner.id)).await
    }

    fn host_end<'a>(&self, name: &'a str, id: ContainerId) -> End<'a> {
        End { name, mac: host_mac(id), mtu: self.config.mtu }
    }

    fn inside_end(&self, id: ContainerId) -> End<'static> {
        End { name: CONTAINER_INTERFACE, mac: container_mac(id), mtu: self.config.mtu }
    }
}

#[async_trait]
impl Network for RoutedVeth {
    async fn prepare(&self) -> Result<(), NetworkError> {
        let deadline = Instant::now() + OPERATION_DEADLINE;
        namespace::run(None, "all interfaces", "set kernel settings", deadline, sysctl::prepare_node).await
    }

    async fn attach(&self, id: ContainerId, pid: i32, address: Ipv4Addr) -> Result<(), NetworkError> {
        if !is_unicast(address) || address == self.config.gateway {
            return Err(NetworkError::InvalidAddress(address));
        }
        let owner = Owner { id, address };
        let deadline = Instant::now() + OPERATION_DEADLINE;
        let namespace = Namespace::of(pid)?;
        let host = Session::open(&host_interface(id), deadline)?;
        // IPv6 is closed before there is an interface to speak it on.
        let inside = Session::open_inside(&namespace, CONTAINER_INTERFACE, deadline, sysctl::disable_ipv6).await?;
        let pair = self.ensure_pair(&host, &inside, &namespace, owner).await?;
        hoody_fault::point!("link.paired");
        tokio::try_join!(
            self.configure_inside(&inside, &pair.inside, owner),
            self.prepare_host(&host, &pair.host, owner)
        )?;
        hoody_fault::point!("link.configured");
        link::up(&host, host.interface()).await?;
        hoody_fault::point!("link.up");
        route::set_host_route(&host, pair.host.index, address).await?;
        hoody_fault::point!("link.routed");
        link::wait_running(&inside, CONTAINER_INTERFACE).await?;
        link::wait_running(&host, host.interface()).await
    }

    async fn limit_rate(&self, id: ContainerId, pid: i32, mbit: Option<u32>) -> Result<(), NetworkError> {
        let deadline = Instant::now() + OPERATION_DEADLINE;
        let namespace = Namespace::of(pid)?;
        let interface = host_interface(id);
        let host = Session::open(&interface, deadline)?;
        let inside = Session::open_inside(&namespace, CONTAINER_INTERFACE, deadline, || Ok(())).await?;
        let (Some(ours), Some(peer)) =
            (find_host_end(&host, id).await?, link::find(&inside, CONTAINER_INTERFACE).await?)
        else {
            return Err(NetworkError::Vanished { interface });
        };
        rate::set(&inside, peer.index, mbit).await?;
        rate::set(&host, ours.index, mbit).await
    }

    async fn is_rate_limited(&self, id: ContainerId, pid: i32, mbit: u32) -> Result<bool, NetworkError> {
        let deadline = Instant::now() + OPERATION_DEADLINE;
        let namespace = Namespace::of(pid)?;
        let host = Session::open(&host_interface(id), deadline)?;
        let inside = Session::open_inside(&namespace, CONTAINER_INTERFACE, deadline, || Ok(())).await?;
        let (Some(ours), Some(peer)) =
            (find_host_end(&host, id).await?, link::find(&inside, CONTAINER_INTERFACE).await?)
        else {
            return Ok(false);
        };
        Ok(rate::stands(&host, ours.index, mbit).await? && rate::stands(&inside, peer.index, mbit).await?)
    }

    async fn is_attached(&self, id: ContainerId, pid: i32, address: Ipv4Addr) -> Result<bool, NetworkError> {
        let deadline = Instant::now() + OPERATION_DEADLINE;
        let namespace = Namespace::of(pid)?;
        let host = Session::open(&host_interface(id), deadline)?;
        let Some(link) = find_host_end(&host, id).await? else { return Ok(false) };
        let inside = Session::open_inside(&namespace, CONTAINER_INTERFACE, deadline, || Ok(())).await?;
        Ok(self.stands_inside(&inside, id, address).await?
            && link.is_connected()
            && link.mac == host_mac(id)
            && link.alias.as_deref() == Some(&identity::alias(id, address))
            && sysctl::is_host_interface_prepared(host.interface())?
            && route::has_neighbour(&host, link.index, address, container_mac(id)).await?
            && route::has_host_route(&host, link.index, address).await?)
    }

    async fn detach(&self, id: ContainerId) -> Result<(), NetworkError> {
        let host = Session::open(&host_interface(id), Instant::now() + OPERATION_DEADLINE)?;
        match find_host_end(&host, id).await {
            Ok(Some(link)) => link::delete(&host, &link).await,
            Ok(None) => Ok(()),
            // Another container's: then this one has none.
            Err(NetworkError::NameTaken { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn stats(&self, id: ContainerId) -> Result<Option<NetworkStats>, NetworkError> {
        let host = Session::open(&host_interface(id), Instant::now() + OPERATION_DEADLINE)?;
        Ok(find_host_end(&host, id).await?.and_then(seen_from_inside))
    }

    async fn inventory(&self) -> Result<Vec<String>, NetworkError> {
        let host = Session::open("all interfaces", Instant::now() + OPERATION_DEADLINE)?;
        let links = link::list(&host).await?;
        Ok(links
            .into_iter()
            .filter(|link| link.is_veth && is_host_interface(&link.name))
            .map(|link| link.name)
            .collect())
    }
}

/// Whose link it is, with what address.
#[derive(Debug, Clone, Copy)]
struct Owner {
    id: ContainerId,
    address: Ipv4Addr,
}

/// Both ends, each as its namespace shows it.
#[derive(Debug)]
struct Pair {
    host: Link,
    inside: Link,
}

/// The host's end of a container's link. An interface of that name which is somebody else's is an
/// error, so that nobody touches it.
async fn find_host_end(host: &Session, id: ContainerId) -> Result<Option<Link>, NetworkError> {
    let interface = host_interface(id);
    let Some(link) = link::find(host, &interface).await? else { return Ok(None) };
    if !link.is_veth {
        return Err(NetworkError::NotVeth { interface });
    }
    match link.alias.as_deref().and_then(identity::parse_alias) {
        Some((holder, _)) if holder != id => Err(NetworkError::NameTaken { interface, holder }),
        _ => Ok(Some(link)),
    }
}

/// What the host's end received is what the container sent.
fn seen_from_inside(link: Link) -> Option<NetworkStats> {
    let stats = link.stats?;
    let address = link.alias.as_deref().and_then(identity::parse_alias).map(|(_, address)| address);
    Some(NetworkStats {
        interface: Text::truncated(CONTAINER_INTERFACE),
        address,
        received_bytes: stats.tx_bytes,
        sent_bytes: stats.rx_bytes,
        received_packets: stats.tx_packets,
        sent_packets: stats.rx_packets,
        received_errors: stats.tx_errors,
        sent_errors: stats.rx_errors,
        received_dropped: stats.tx_dropped,
        sent_dropped: stats.rx_dropped,
    })
}

/// 0.0.0.0/8 and 240.0.0.0/4 are no unicast addresses (RFC 6890).
fn is_unicast(address: Ipv4Addr) -> bool {
    !(address.is_loopback() || address.is_multicast() || matches!(address.octets()[0], 0 | 240..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_settings_are_refused() {
        let config = RoutedVethConfig::default();
        for gateway in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
            let gateway = gateway.parse().unwrap();
            assert!(matches!(
                RoutedVeth::new(RoutedVethConfig { gateway, ..config }),
                Err(NetworkError::InvalidGateway(_))
            ));
        }
        for mtu in [0, MIN_MTU_BYTES - 1, MAX_MTU_BYTES + 1, u32::MAX] {
            assert!(matches!(RoutedVeth::new(RoutedVethConfig { mtu, ..config }), Err(NetworkError::InvalidMtu(_))));
        }
        assert!(RoutedVeth::new(config).is_ok());
    }
}
