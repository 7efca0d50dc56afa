//! What a container must not be able to do, and what the node must not be made to do.

use crate::fixture::{Container, NODE, address, assert_reachable, deliver, everything, ip, network, on_node};
use hoody_agent::network::{Network, NetworkError, host_interface};
use hoody_protocol::id::ContainerId;
use std::{fs, io::ErrorKind, net::TcpListener};

#[test]
fn ipv6_is_closed() {
    on_node(|| async {
        let (network, container) = (network(), Container::start());
        container.ip("link add early0 type veth peer name early1");
        container.ip("link set early0 up");
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        container.inside(|| {
            for interface in ["all", "default", "lo", "eth0", "early0"] {
                let setting = fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6")).unwrap();
                assert_eq!(setting.trim(), "1", "{interface}");
            }
            assert_eq!(ip("-6 address"), "");
            assert_eq!(TcpListener::bind("[::1]:0").unwrap_err().kind(), ErrorKind::AddrNotAvailable);
        });
        let host = host_interface(container.id);
        let setting = fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{host}/disable_ipv6")).unwrap();
        assert_eq!(setting.trim(), "1");
        // The node's own IPv6 is not our business.
        assert_eq!(fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6").unwrap().trim(), "0");
    });
}

#[test]
fn a_forged_source_address_is_dropped_even_where_the_node_is_loose() {
    on_node(|| async {
        // What some distributions set for every interface; it would win over strict.
        fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "2").unwrap();
        let (network, container) = (network(), Container::start());
        network.prepare().await.unwrap();
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        container.ip("address add 10.88.0.77/32 dev lo");
        assert!(deliver(Some(&container), address(77), None, NODE, false).is_none());
        assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/conf/lo/rp_filter").unwrap().trim(), "2");
        assert_reachable(&container, address(2));
    });
}

#[test]
fn the_nodes_end_is_strict_whatever_the_nodes_defaults_are() {
    on_node(|| async {
        let path = |place: &str, setting: &str| format!("/proc/sys/net/ipv4/conf/{place}/{setting}");
        let strict = [
            ("forwarding", "1"),
            ("rp_filter", "1"),
            ("accept_redirects", "0"),
            ("send_redirects", "0"),
            ("accept_source_route", "0"),
            ("proxy_arp", "0"),
        ];
        let other = |value: &str| if value == "1" { "0" } else { "1" };
        fs::write(path("all", "send_redirects"), "1").unwrap();
        let (network, container) = (network(), Container::start());
        network.prepare().await.unwrap();
        for (setting, value) in strict {
            fs::write(path("default", setting), other(value)).unwrap();
        }
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        let interface = host_interface(container.id);
        for (setting, value) in strict {
            assert_eq!(fs::read_to_string(path(&interface, setting)).unwrap().trim(), value, "{setting}");
            fs::write(path(&interface, setting), other(value)).unwrap();
            let stands = network.is_attached(container.id, container.pid(), address(2)).await.unwrap();
            assert!(!stands, "{setting} may be changed unnoticed");
            fs::write(path(&interface, setting), value).unwrap();
        }
        assert!(network.is_attached(container.id, container.pid(), address(2)).await.unwrap());
        // In force for an interface where "all" says so.
        assert_eq!(fs::read_to_string(path("all", "send_redirects")).unwrap().trim(), "0");
    });
}

#[test]
fn two_containers_have_links_of_their_own() {
    on_node(|| async {
        let (network, one, two) = (network(), Container::start(), Container::start());
        network.prepare().await.unwrap();
        network.attach(one.id, one.pid(), address(2)).await.unwrap();
        network.attach(two.id, two.pid(), address(3)).await.unwrap();
        assert!(deliver(Some(&one), address(2), Some(&two), address(3), true).is_some());
        assert!(deliver(Some(&two), address(3), Some(&one), address(2), true).is_some());
        network.detach(one.id).await.unwrap();
        assert!(network.is_attached(two.id, two.pid(), address(3)).await.unwrap());
        assert_reachable(&two, address(3));
    });
}

#[test]
fn the_nodes_own_namespace_is_never_configured() {
    on_node(|| async {
        let network = network();
        let before = everything();
        // A thread of the node's: its pid stands for any process without a namespace of its own.
        let thread = nix::unistd::gettid().as_raw();
        let refused = network.attach(ContainerId::generate(), thread, address(2)).await;
        assert!(matches!(refused, Err(NetworkError::NodeNamespace { pid }) if pid == thread));
        let gone = network.attach(ContainerId::generate(), i32::MAX, address(2)).await;
        assert!(matches!(gone, Err(NetworkError::OpenNamespace { pid: i32::MAX, .. })));
        assert_eq!(everything(), before);
    });
}

#[test]
fn an_interface_of_somebody_else_is_left_alone() {
    on_node(|| async {
        let (network, container) = (network(), Container::start());
        let name = host_interface(container.id);
        ip(&format!("link add {name} type bridge"));
        let before = everything();
        let refused = network.attach(container.id, container.pid(), address(2)).await;
        assert!(matches!(refused, Err(NetworkError::NotVeth { .. })), "{refused:?}");
        assert!(matches!(network.detach(container.id).await, Err(NetworkError::NotVeth { .. })));
        assert!(network.inventory().await.unwrap().is_empty());
        assert_eq!(everything(), before);
    });
}

#[test]
fn a_link_of_a_container_whose_id_ends_alike_is_left_alone() {
    on_node(|| async {
        let mut bytes = *ContainerId::generate().as_bytes();
        let (network, holder) = (network(), Container::start_as(ContainerId::from_bytes(bytes)));
        bytes[0] ^= 1;
        let other = Container::start_as(ContainerId::from_bytes(bytes));
        network.attach(holder.id, holder.pid(), address(2)).await.unwrap();
        let refused = network.attach(other.id, other.pid(), address(3)).await;
        assert!(matches!(refused, Err(NetworkError::NameTaken { holder: id, .. }) if id == holder.id), "{refused:?}");
        network.detach(other.id).await.unwrap();
        assert!(network.is_attached(holder.id, holder.pid(), address(2)).await.unwrap());
        assert_reachable(&holder, address(2));
    });
}

#[test]
fn many_are_attached_at_one_time() {
    on_node(|| async {
        let network = network();
        network.prepare().await.unwrap();
        let before = everything();
        let containers: Vec<_> = (2..22).map(|n| (Container::start(), address(n))).collect();
        let attached = containers.iter().map(|(container, at)| network.attach(container.id, container.pid(), *at));
        for outcome in futures::future::join_all(attached).await {
            outcome.unwrap();
        }
        for (container, at) in &containers {
            assert_reachable(container, *at);
        }
        assert_eq!(network.inventory().await.unwrap().len(), containers.len());
        let detached = containers.iter().map(|(container, _)| network.detach(container.id));
        assert!(futures::future::join_all(detached).await.iter().all(Result::is_ok));
        assert_eq!(everything(), before);
    });
}
