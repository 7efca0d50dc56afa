//! TCP through every kind of upstream.

use crate::{
    destination::{PART, digest_at_the_end, echo, end_first, pattern, up_and_down},
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

/// A small connection, and a large one in one direction after the other.
fn exercise(world: &mut World, policy: Policy, large: usize) {
    world.set_up(policy);
    let (port, peers) = world.serve(echo);
    let mut stream = world.dial(port);
    world.echo(&mut stream, "through the upstream");
    let peer = peers.recv_timeout(DEADLINE).unwrap();
    assert!(peer != CONTAINER && peer != Ipv4Addr::new(198, 51, 100, 1), "the destination saw {peer}");

    let (port, _) = world.serve(up_and_down);
    one_way_each(world.dial(port), large);
    let counters = world.status().counters;
    assert!(counters.bytes_in >= large as u64 && counters.bytes_out >= large as u64, "{counters:?}");
    assert_eq!(counters.connections, 2);
}

/// Connections that end in one direction first. Of Debian's proxies dante alone keeps them open.
fn half_close(world: &World) {
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
}

/// Sends, has it confirmed, and receives as much.
fn one_way_each(mut stream: TcpStream, bytes: usize) {
    stream.write_all(&(bytes as u64).to_be_bytes()).unwrap();
    let mut hasher = Sha256::new();
    for number in 0..bytes / PART {
        let part = pattern(number);
        hasher.update(&part);
        stream.write_all(&part).unwrap();
    }
    let mut digest = [0; 32];
    stream.read_exact(&mut digest).unwrap();
    assert_eq!(digest, *hasher.finalize(), "what the destination received");
    let mut hasher = Sha256::new();
    let mut part = vec![0; PART];
    for _ in 0..bytes / PART {
        stream.read_exact(&mut part).unwrap();
        hasher.update(&part);
    }
    assert_eq!(digest, *hasher.finalize(), "what came back");
    assert_eq!(stream.read(&mut part).unwrap(), 0, "a clean end");
}

/// Sends and receives at once, and compares the digests. It ends after everything is back: few proxies keep a connection
/// of which one direction ended. Not for microsocks, which reads nothing while it cannot write.
fn both_ways(world: &World, bytes: usize) {
    let (port, _) = world.serve(echo);
    let mut stream = world.dial(port);
    let mut reader = stream.try_clone().unwrap();
    let received = std::thread::spawn(move || {
        let (mut hasher, mut left, mut buffer) = (Sha256::new(), bytes, vec![0; PART]);
        while left > 0 {
            let read = reader.read(&mut buffer).unwrap();
            assert!(read > 0, "an end with {left} bytes missing");
            hasher.update(&buffer[..read]);
            left -= read;
        }
        hasher.finalize()
    });
    let mut hasher = Sha256::new();
    for number in 0..bytes / PART {
        let part = pattern(number);
        hasher.update(&part);
        stream.write_all(&part).unwrap();
    }
    assert_eq!(received.join().unwrap(), hasher.finalize());
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "a clean end");
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
    both_ways(&world, 32 << 20);
    half_close(&world);
}

#[test]
fn http() {
    let mut world = World::new();
    let _upstream = world.tinyproxy(8888, Some(("somebody", "secret")));
    exercise(&mut world, with_credentials(policy(UpstreamKind::Http, 8888), "somebody", "secret"), 8 << 20);
    both_ways(&world, 8 << 20);
}

#[test]
fn https() {
    let mut world = World::new();
    let _upstream = world.squid(3129, "upstream.test");
    world.reload();
    let mut policy = policy(UpstreamKind::Https, 3129);
    policy.upstream.host = "upstream.test".try_into().unwrap();
    exercise(&mut world, policy, 8 << 20);
    both_ways(&world, 8 << 20);
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
