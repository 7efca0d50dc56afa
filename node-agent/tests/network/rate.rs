//! The rate of a link holds in both directions, changes while traffic flows, and can be taken away.

use crate::fixture::{Container, NODE, address, assert_reachable, network, on_node};
use hoody_agent::network::{Network, host_interface};
use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};

const MBIT: u32 = 16;
/// Several times what the bucket and the queue of that rate hold.
const SENT_BYTES: usize = 3 << 19;
const DATAGRAM_BYTES: usize = 1400;
/// What may pass at once: the bucket, and the receiver's idea of when it began.
const AT_ONCE_BYTES: f64 = 300e3;
/// No datagram for this long: all that will come has come. Longer than the queue.
const SILENCE: Duration = Duration::from_millis(300);

/// Sends more than the rate lets through; the bytes that arrived and the seconds they took.
fn blast(sender: UdpSocket, receiver: UdpSocket) -> (f64, f64) {
    let to = receiver.local_addr().unwrap();
    receiver.set_read_timeout(Some(SILENCE)).unwrap();
    std::thread::scope(|scope| {
        let received = scope.spawn(move || {
            let (mut buffer, mut bytes) = ([0; 2048], 0);
            let start = Instant::now();
            let mut last = start;
            while let Ok((length, _)) = receiver.recv_from(&mut buffer) {
                bytes += length;
                last = Instant::now();
            }
            (bytes as f64, (last - start).as_secs_f64())
        });
        for _ in 0..SENT_BYTES / DATAGRAM_BYTES {
            // A full queue is said to some senders.
            let _ = sender.send_to(&[0; DATAGRAM_BYTES], to);
        }
        received.join().unwrap()
    })
}

fn bound(address: Ipv4Addr) -> UdpSocket {
    UdpSocket::bind(SocketAddrV4::new(address, 0)).unwrap()
}

/// Both directions: what the node sends to the container, and what the container sends.
fn blasts(container: &Container) -> [(f64, f64); 2] {
    let inside = || container.inside(|| bound(address(2)));
    [blast(bound(NODE), inside()), blast(inside(), bound(NODE))]
}

fn assert_limited(container: &Container) {
    let rate = f64::from(MBIT) * 1e6 / 8.0;
    for (bytes, seconds) in blasts(container) {
        assert!(bytes > 0.0 && bytes <= AT_ONCE_BYTES + rate * seconds, "{bytes} bytes in {seconds} s");
    }
}

fn queue_of(interface: &str) -> String {
    let output = Command::new("tc").args(["qdisc", "show", "dev", interface]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_rate_holds_in_both_directions() {
    on_node(|| async {
        let (network, container) = (network(), Container::start());
        network.prepare().await.unwrap();
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        network.limit_rate(container.id, container.pid(), Some(MBIT)).await.unwrap();
        assert_limited(&container);
        assert_reachable(&container, address(2));
        // Again, and as part of what is attached already.
        network.limit_rate(container.id, container.pid(), Some(MBIT)).await.unwrap();
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        assert!(network.is_attached(container.id, container.pid(), address(2)).await.unwrap());
        assert_limited(&container);
    });
}

#[test]
fn a_rate_changes_and_goes() {
    on_node(|| async {
        let (network, container) = (network(), Container::start());
        network.prepare().await.unwrap();
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        let interface = host_interface(container.id);
        for (mbit, shown) in [(1, "rate 1Mbit"), (1000, "rate 1Gbit"), (400_000, "rate 400Gbit"), (8, "rate 8Mbit")] {
            network.limit_rate(container.id, container.pid(), Some(mbit)).await.unwrap();
            for text in [queue_of(&interface), container.inside(|| queue_of("eth0"))] {
                assert!(text.contains("qdisc tbf") && text.contains(shown), "{text}");
            }
        }
        for _ in 0..2 {
            network.limit_rate(container.id, container.pid(), None).await.unwrap();
            for text in [queue_of(&interface), container.inside(|| queue_of("eth0"))] {
                assert!(!text.contains("tbf"), "{text}");
            }
        }
        assert_reachable(&container, address(2));
    });
}

#[test]
fn a_link_that_is_not_there_has_no_rate() {
    on_node(|| async {
        let (network, container) = (network(), Container::start());
        assert!(network.limit_rate(container.id, container.pid(), Some(MBIT)).await.is_err());
    });
}

#[test]
fn a_rate_that_others_changed_is_noticed() {
    on_node(|| async {
        let (network, container) = (network(), Container::start());
        network.prepare().await.unwrap();
        network.attach(container.id, container.pid(), address(2)).await.unwrap();
        let stands = async |mbit| network.is_rate_limited(container.id, container.pid(), mbit).await.unwrap();
        assert!(!stands(MBIT).await);
        network.limit_rate(container.id, container.pid(), Some(MBIT)).await.unwrap();
        assert!(stands(MBIT).await && !stands(MBIT + 1).await);
        let interface = host_interface(container.id);
        for damage in [
            format!("tc qdisc del dev {interface} root"),
            format!("tc qdisc replace dev {interface} root tbf rate 17mbit burst 128k limit 1m"),
            format!("nsenter --net=/proc/{}/ns/net tc qdisc del dev eth0 root", container.pid()),
        ] {
            let mut words = damage.split(' ');
            assert!(Command::new(words.next().unwrap()).args(words).status().unwrap().success(), "{damage}");
            assert!(!stands(MBIT).await, "{damage}");
            network.limit_rate(container.id, container.pid(), Some(MBIT)).await.unwrap();
            assert!(stands(MBIT).await, "{damage}");
        }
    });
}
