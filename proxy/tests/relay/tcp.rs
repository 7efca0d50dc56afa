//! TCP through every kind of upstream.

use crate::{
    destination::{digest_at_the_end, echo, end_first},
    namespace::DEADLINE,
    world::{CONTAINER, World, policy, with_credentials},
};
use hoody_proxy::control::{Policy, UpstreamKind};
use sha2::{Digest, Sha256};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpStream},
    time::Duration,
};

const PART: usize = 64 << 10;

/// Everything that a connection can be: small, half-closed from either side, large in both directions at once.
fn exercise(world: &mut World, policy: Policy, large: usize) {
    world.set_up(policy);
    let (port, peers) = world.serve(echo);
    let mut stream = world.dial(port);
    world.echo(&mut stream, "through the upstream");
    let peer = peers.recv_timeout(DEADLINE).unwrap();
    assert!(peer != CONTAINER && peer != Ipv4Addr::new(198, 51, 100, 1), "the destination saw {peer}");

    let (port, _) = world.serve(digest_at_the_end);
    let mut stream = world.dial(port);
    stream.write_all(&pattern(0)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut digest = Vec::new();
    stream.read_to_end(&mut digest).unwrap();
    assert_eq!(digest, Sha256::digest(pattern(0)).to_vec(), "the answer comes after the container's end");

    let (port, _) = world.serve(end_first);
    let mut stream = world.dial(port);
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "goodbye");
    stream.write_all(b"still here").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "a clean end");

    let (port, _) = world.serve(echo);
    both_ways(world.dial(port), large);
    let counters = world.status().counters;
    assert!(counters.bytes_in >= large as u64 && counters.bytes_out >= large as u64, "{counters:?}");
    assert_eq!(counters.connections, 4);
}

/// A part of a transfer; each is another one.
fn pattern(number: usize) -> Vec<u8> {
    let seed = number.wrapping_mul(0x9e37_79b9).to_le_bytes();
    (0..PART).map(|at| seed[at % seed.len()] ^ (at >> 3) as u8).collect()
}

/// Sends and receives at once, and compares the digests.
fn both_ways(stream: TcpStream, bytes: usize) {
    let mut reader = stream.try_clone().unwrap();
    let received = std::thread::spawn(move || {
        let (mut hasher, mut length, mut buffer) = (Sha256::new(), 0, vec![0; PART]);
        loop {
            match reader.read(&mut buffer).unwrap() {
                0 => return (length, hasher.finalize()),
                read => {
                    hasher.update(&buffer[..read]);
                    length += read;
                }
            }
        }
    });
    let (mut hasher, mut stream) = (Sha256::new(), stream);
    for number in 0..bytes / PART {
        let part = pattern(number);
        hasher.update(&part);
        stream.write_all(&part).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let (length, digest) = received.join().unwrap();
    assert_eq!(length, bytes);
    assert_eq!(digest, hasher.finalize());
}

#[test]
fn socks5() {
    let mut world = World::new();
    let _upstream = world.microsocks(1080, None);
    exercise(&mut world, policy(UpstreamKind::Socks5, 1080), 64 << 20);
}

#[test]
fn socks5_with_user_and_password_by_name() {
    let mut world = World::new();
    let _upstream = world.microsocks(1080, Some(("somebody", "a secret of theirs")));
    let mut policy = with_credentials(policy(UpstreamKind::Socks5, 1080), "somebody", "a secret of theirs");
    policy.upstream.host = "upstream.test".try_into().unwrap();
    exercise(&mut world, policy, 8 << 20);
    assert!(!world.log().contains("a secret of theirs"), "credentials are in no log");
}

#[test]
fn socks5_of_another_make() {
    let mut world = World::new();
    let _upstream = world.dante(1080);
    exercise(&mut world, policy(UpstreamKind::Socks5, 1080), 8 << 20);
}

#[test]
fn http() {
    let mut world = World::new();
    let _upstream = world.tinyproxy(8888, Some(("somebody", "secret")));
    exercise(&mut world, with_credentials(policy(UpstreamKind::Http, 8888), "somebody", "secret"), 16 << 20);
}

#[test]
fn https() {
    let mut world = World::new();
    let _upstream = world.squid(3129, "upstream.test");
    world.reload();
    let mut policy = policy(UpstreamKind::Https, 3129);
    policy.upstream.host = "upstream.test".try_into().unwrap();
    exercise(&mut world, policy, 16 << 20);
}

#[test]
fn an_upstream_that_answers_together_with_the_destination_loses_no_byte() {
    let mut world = World::new();
    let (port, _) = world.serve_at(crate::world::UPSTREAM, |mut stream| {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match stream.read(&mut byte) {
                Ok(1) => request.push(byte[0]),
                _ => return,
            }
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n220 speaks first\r\n").unwrap();
        std::thread::sleep(Duration::from_secs(1));
    });
    world.set_up(policy(UpstreamKind::Http, port));
    let mut greeting = [0; 18];
    world.dial(25).read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 speaks first\r\n");
}
