//! Attaching again after a crash at any point, or after somebody took a part away, converges.

use crate::fixture::{Container, address, assert_reachable, everything, ip, ip_json, network, on_node};
use hoody_agent::network::{Network, container_mac, host_interface};
use std::{future::poll_fn, task::Poll};

/// Brings a container's link into a partial state, attaches, and asserts that all is well and that
/// detach removes all of it.
fn converges_from(partial: impl AsyncFnOnce(&Container, &str) + Send + 'static) {
    on_node(|| async {
        let (network, container) = (network(), Container::start());
        network.prepare().await.unwrap();
        let before = everything();
        partial(&container, &host_interface(container.id)).await;
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        assert!(network.is_attached(container.id, container.pid(), address(2)).await.unwrap());
        assert_reachable(&container, address(2));
        network.detach(container.id).await.unwrap();
        assert_eq!(everything(), before);
    });
}

/// The same from a link that stood; `is_attached` must notice the damage.
fn converges_after(damage: impl FnOnce(&Container, &str) + Send + 'static) {
    converges_from(async move |container, interface| {
        let network = network();
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        damage(container, interface);
        assert!(!network.is_attached(container.id, container.pid(), address(2)).await.unwrap());
    });
}

#[test]
fn both_ends_still_here() {
    converges_from(async |_, interface| {
        ip(&format!("link add {interface} type veth peer name eth0"));
    });
}

#[test]
fn other_end_moved_and_nothing_configured() {
    converges_from(async |container, interface| {
        ip(&format!("link add {interface} type veth peer name eth0 netns {}", container.pid()));
    });
}

#[test]
fn inside_configured_and_host_end_down() {
    converges_from(async |container, interface| {
        ip(&format!("link add {interface} type veth peer name eth0 netns {}", container.pid()));
        container.ip("link set eth0 up");
        container.ip("address add 10.88.0.2/32 dev eth0");
        container.ip("route add default via 169.254.1.1 dev eth0 onlink");
    });
}

#[test]
fn marked_but_never_up() {
    converges_from(async |container, interface| {
        let network = network();
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        let index = ip_json(&format!("link show {interface}"))[0]["ifindex"].clone();
        ip(&format!("link set {interface} down"));
        container.ip("link set eth0 down");
        container.ip("address flush dev eth0");
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        // A pair that is the container's own is repaired, not made anew: its counters go on.
        assert_eq!(ip_json(&format!("link show {interface}"))[0]["ifindex"], index);
    });
}

#[test]
fn attached_already() {
    converges_from(async |container, interface| {
        let network = network();
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        let (host, inside) = (everything(), container.inside(everything));
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        assert_eq!((everything(), container.inside(everything)), (host, inside), "{interface}");
    });
}

#[test]
fn host_route_gone() {
    converges_after(|_, interface| drop(ip(&format!("route del 10.88.0.2/32 dev {interface}"))));
}

#[test]
fn host_route_elsewhere() {
    converges_after(|_, _| drop(ip("route replace 10.88.0.2/32 dev lo scope link")));
}

#[test]
fn host_neighbour_gone() {
    converges_after(|_, interface| drop(ip(&format!("neigh del 10.88.0.2 dev {interface}"))));
}

#[test]
fn host_neighbour_not_permanent() {
    let change = |container: &Container, interface: &str| {
        let mac = container_mac(container.id).map(|byte| format!("{byte:02x}")).join(":");
        ip(&format!("neigh replace 10.88.0.2 lladdr {mac} nud stale dev {interface}"));
    };
    converges_after(change);
}

#[test]
fn host_end_down() {
    converges_after(|_, interface| drop(ip(&format!("link set {interface} down"))));
}

#[test]
fn host_mark_gone() {
    let change = |_: &Container, interface: &str| {
        let output = std::process::Command::new("ip").args(["link", "set", interface, "alias", ""]).output().unwrap();
        assert!(output.status.success());
    };
    converges_after(change);
}

#[test]
fn host_mac_changed() {
    converges_after(|_, interface| drop(ip(&format!("link set {interface} address 02:00:00:00:00:01"))));
}

#[test]
fn arp_back_on() {
    converges_after(|_, interface| drop(ip(&format!("link set {interface} arp on"))));
}

#[test]
fn kernel_settings_changed() {
    for (setting, value) in [
        ("ipv4/conf/IF/rp_filter", "2"),
        ("ipv4/conf/IF/accept_redirects", "1"),
        ("ipv4/conf/IF/send_redirects", "1"),
        ("ipv4/conf/IF/accept_source_route", "1"),
        ("ipv4/conf/IF/proxy_arp", "1"),
        ("ipv4/conf/IF/forwarding", "0"),
        ("ipv6/conf/IF/disable_ipv6", "0"),
    ] {
        let change = move |_: &Container, interface: &str| {
            std::fs::write(format!("/proc/sys/net/{}", setting.replace("IF", interface)), value).unwrap();
        };
        converges_after(change);
    }
}

#[test]
fn inside_end_down() {
    converges_after(|container, _| drop(container.ip("link set eth0 down")));
}

#[test]
fn inside_mac_changed() {
    converges_after(|container, _| drop(container.ip("link set eth0 address 02:00:00:00:00:01")));
}

#[test]
fn inside_address_gone() {
    converges_after(|container, _| drop(container.ip("addr del 10.88.0.2/32 dev eth0")));
}

#[test]
fn inside_default_route_gone() {
    converges_after(|container, _| drop(container.ip("route del default")));
}

#[test]
fn inside_neighbour_and_route_gone() {
    let change = |container: &Container, _: &str| {
        container.ip("neigh flush dev eth0 nud permanent");
        container.ip("route flush dev eth0");
    };
    converges_after(change);
}

#[test]
fn inside_renamed() {
    let change = |container: &Container, _: &str| {
        container.ip("link set eth0 down");
        container.ip("link set eth0 name other0");
    };
    converges_after(change);
}

#[test]
fn inside_end_deleted() {
    converges_after(|container, _| drop(container.ip("link del eth0")));
}

#[test]
fn a_foreign_pair_holds_the_name_inside() {
    converges_from(async |container, _| {
        container.ip("link add eth0 type veth peer name other0");
    });
}

#[test]
fn another_address_before() {
    converges_from(async |container, _| {
        network().attach(container.id, container.pid(), address(9)).await.unwrap();
    });
}

#[test]
fn attached_to_the_process_before_a_restart() {
    converges_from(async |container, _| {
        let before = Container::start_as(container.id);
        network().attach(container.id, before.pid(), address(2)).await.unwrap();
        network().attach(container.id, container.pid(), address(2)).await.unwrap();
        assert!(!before.ip("link").contains("eth0"), "the old process still holds an end");
    });
}

#[test]
fn a_pair_of_the_old_process_and_one_that_looks_alike() {
    converges_from(async |container, interface| {
        let before = Container::start_as(container.id);
        network().attach(container.id, before.pid(), address(2)).await.unwrap();
        // In fresh namespaces the indices of both pairs are equal, on both ends.
        let elsewhere = Container::start();
        container.ip(&format!("link add eth0 type veth peer name eth0 netns {}", elsewhere.pid()));
        let alike = container.inside(|| ip_json("link show eth0"));
        let ours = ip_json(&format!("link show {interface}"));
        assert_eq!((&alike[0]["ifindex"], &alike[0]["link_index"]), (&ours[0]["link_index"], &ours[0]["ifindex"]));
        network().attach(container.id, container.pid(), address(2)).await.unwrap();
        assert!(!elsewhere.ip("link").contains("eth0"));
    });
}

/// Attaches, but stops for good after so many steps of the future, each of which is one answer of the
/// kernel; true where it was done before.
async fn attach_and_stop_after(steps: usize, container: &Container) -> bool {
    let network = network();
    let mut attach = network.attach(container.id, container.pid(), address(2));
    let mut left = steps;
    poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        attach.as_mut().poll(context).map(|outcome| outcome.map(|()| true).unwrap())
    })
    .await
}

#[test]
fn stopped_after_any_step() {
    on_node(|| async {
        let network = network();
        network.prepare().await.unwrap();
        let before = everything();
        for steps in 1.. {
            let container = Container::start();
            let done = attach_and_stop_after(steps, &container).await;
            network.detach(container.id).await.unwrap();
            assert_eq!(everything(), before, "detached after {steps} steps");

            attach_and_stop_after(steps, &container).await;
            network.attach(container.id, container.pid(), address(2)).await.unwrap();
            assert!(
                network.is_attached(container.id, container.pid(), address(2)).await.unwrap(),
                "after {steps} steps"
            );
            assert_reachable(&container, address(2));
            network.detach(container.id).await.unwrap();
            assert_eq!(everything(), before, "attached again after {steps} steps");
            if done {
                assert!(steps > 10, "only {steps} steps were tried");
                break;
            }
        }
    });
}
