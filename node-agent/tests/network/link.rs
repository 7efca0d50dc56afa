//! What a container's link can do, and that nothing of it stays.

use crate::fixture::{
    ArpWatch, Container, NODE, address, assert_reachable, deliver, everything, ip, ip_json, network, on_node,
};
use futures::StreamExt;
use hoody_agent::network::{Network, container_mac, host_interface, host_mac};
use hoody_protocol::id::ContainerId;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags},
};
use rtnetlink::MulticastGroup;
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

#[test]
fn an_attached_container_and_its_node_reach_each_other() {
    on_node(|| async {
        let (network, container) = (network(), Container::start());
        network.prepare().await.unwrap();
        assert!(!network.is_attached(container.id, container.pid(), address(2)).await.unwrap());
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        assert!(network.is_attached(container.id, container.pid(), address(2)).await.unwrap());
        assert!(!network.is_attached(container.id, container.pid(), address(3)).await.unwrap());
        assert!(!network.is_attached(ContainerId::generate(), container.pid(), address(2)).await.unwrap());
        assert_reachable(&container, address(2));

        let listener = container.inside(|| TcpListener::bind((address(2), 0)).unwrap());
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), NODE);
        client.write_all(b"ping").unwrap();
        let mut buffer = [0; 4];
        server.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"ping");
    });
}

#[test]
fn neighbours_are_permanent_and_nobody_asks() {
    on_node(|| async {
        let (network, container) = (network(), Container::start());
        network.prepare().await.unwrap();
        let (outside, inside) = (ArpWatch::start(), container.inside(ArpWatch::start));
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        assert_reachable(&container, address(2));
        // An address nobody has: without a neighbour entry of ours there is still no question.
        container.ip("route add 10.88.7.7/32 dev eth0");
        deliver(Some(&container), address(2), None, NODE, true).unwrap();
        container.inside(|| {
            let socket = std::net::UdpSocket::bind((address(2), 0)).unwrap();
            let _ = socket.send_to(b"?", (Ipv4Addr::new(10, 88, 7, 7), 9));
        });
        assert!(!outside.saw_any() && !inside.saw_any(), "ARP was spoken");

        let host = ip_json(&format!("neigh show dev {}", host_interface(container.id)));
        assert_eq!(host[0]["dst"], "10.88.0.2");
        assert_eq!(host[0]["lladdr"], mac(container_mac(container.id)));
        assert_eq!(host[0]["state"], serde_json::json!(["PERMANENT"]));
        let there = container.inside(|| ip_json("neigh show 169.254.1.1 dev eth0"));
        assert_eq!(there[0]["lladdr"], mac(host_mac(container.id)));
        assert_eq!(there[0]["state"], serde_json::json!(["PERMANENT"]));
    });
}

#[test]
fn the_default_route_leads_outside_through_the_node() {
    on_node(|| async {
        let (network, container, world) = (network(), Container::start(), Container::start());
        network.prepare().await.unwrap();
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        let there = Ipv4Addr::new(192, 0, 2, 2);
        ip(&format!("link add up0 type veth peer name up1 netns {}", world.pid()));
        ip("address add 192.0.2.1/24 dev up0");
        ip("link set up0 up");
        world.ip("link set lo up");
        world.ip("address add 192.0.2.2/24 dev up1");
        world.ip("link set up1 up");
        world.ip("route add default via 192.0.2.1");
        assert!(deliver(Some(&container), address(2), Some(&world), there, true).is_some(), "to the outside");
        assert!(deliver(Some(&world), there, Some(&container), address(2), true).is_some(), "from the outside");
    });
}

#[test]
fn detach_leaves_nothing() {
    on_node(|| async {
        let (network, container) = (network(), Container::start());
        network.prepare().await.unwrap();
        let (before, before_inside) = (everything(), container.inside(|| ip("route show table all")));
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        assert_ne!(everything(), before);
        assert_eq!(network.inventory().await.unwrap(), [host_interface(container.id)]);
        for _ in 0..2 {
            network.detach(container.id).await.unwrap();
            assert_eq!(everything(), before);
        }
        assert!(network.inventory().await.unwrap().is_empty());
        assert_eq!(network.stats(container.id).await.unwrap(), None);
        // Only lo came up, which needs no cleaning.
        let after = container.inside(|| ip("route show table all"));
        assert!(after.lines().all(|line| before_inside.contains(line) || line.contains("dev lo")), "{after}");
    });
}

#[test]
fn a_container_that_ended_takes_its_link_along() {
    on_node(|| async {
        let (network, container) = (network(), Container::start());
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        let id = container.id;
        drop(container);
        network.detach(id).await.unwrap();
        assert!(network.inventory().await.unwrap().is_empty());
    });
}

#[test]
fn counters_are_seen_from_inside() {
    on_node(|| async {
        let (network, container) = (network(), Container::start());
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        let before = network.stats(container.id).await.unwrap().unwrap();
        for _ in 0..3 {
            deliver(Some(&container), address(2), None, NODE, true).unwrap();
        }
        deliver(None, NODE, Some(&container), address(2), true).unwrap();
        let after = network.stats(container.id).await.unwrap().unwrap();
        assert_eq!(after.sent_packets - before.sent_packets, 3);
        assert_eq!(after.received_packets - before.received_packets, 1);
        assert!(after.sent_bytes - before.sent_bytes > after.received_bytes - before.received_bytes);
        assert_eq!((after.interface.as_str(), after.address), ("eth0", Some(address(2))));
    });
}

/// What runs on goes on: nothing of a link that stands is taken away, not for an instant.
#[test]
fn attaching_again_takes_nothing_away() {
    on_node(|| async {
        let (network, container) = (network(), Container::start());
        network.prepare().await.unwrap();
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        let groups = [MulticastGroup::Link, MulticastGroup::Neigh, MulticastGroup::Ipv4Route];
        let (watch, _handle, mut events) = rtnetlink::new_multicast_connection(&groups).unwrap();
        let watch = tokio::spawn(watch);
        let removes = |event: &RouteNetlinkMessage| {
            matches!(event, RouteNetlinkMessage::DelNeighbour(_) | RouteNetlinkMessage::DelRoute(_))
        };
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        network.detach(container.id).await.unwrap();
        let mut before_detach = Vec::new();
        // Detaching takes the interface down first: everything before that is attach's.
        let last = loop {
            let event = tokio::time::timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap();
            let NetlinkPayload::InnerMessage(event) = event.0.payload else { continue };
            match event {
                RouteNetlinkMessage::NewLink(link) if !link.header.flags.contains(LinkFlags::Up) => break link,
                event => before_detach.push(event),
            }
        };
        assert!(last.attributes.contains(&LinkAttribute::IfName(host_interface(container.id))));
        assert!(!before_detach.is_empty(), "the watch saw nothing");
        assert!(!before_detach.iter().any(removes), "{before_detach:?}");
        watch.abort();
    });
}

/// Measured, not asserted: with permanent entries there is nothing to wait for.
#[test]
fn first_packet_latency() {
    on_node(|| async {
        let network = network();
        network.prepare().await.unwrap();
        let (mut attach, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
        for n in 2..22 {
            let container = Container::start();
            let start = Instant::now();
            network.attach(container.id, container.pid(), address(n)).await.unwrap();
            attach.push(start.elapsed());
            first.push(deliver(Some(&container), address(n), None, NODE, true).unwrap());
            second.push(deliver(Some(&container), address(n), None, NODE, true).unwrap());
            network.detach(container.id).await.unwrap();
        }
        for (what, mut times) in [("attach", attach), ("first packet", first), ("second packet", second)] {
            times.sort();
            println!("{what}: median {:?}, worst {:?}", times[times.len() / 2], times[times.len() - 1]);
        }
    });
}
