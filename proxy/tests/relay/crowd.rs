//! Many connections at once, and what they take.

use crate::{
    destination::echo,
    namespace::wait_for,
    world::{World, policy},
};
use hoody_proxy::control::UpstreamKind;
use std::{fs, net::TcpStream};

const CONNECTIONS: usize = 500;
/// Bytes of memory that a connection may take.
const MOST_PER_CONNECTION: u64 = 20 << 10;

#[test]
fn five_hundred_at_once() {
    let mut world = World::new();
    let _upstream = world.microsocks(1080, None);
    world.set_up(policy(UpstreamKind::Socks5, 1080));
    let (port, _) = world.serve(echo);
    // What is allocated once.
    world.echo(&mut world.dial(port), "first");
    wait_for("the first one's end", || (world.status().counters.open == 0).then_some(()));
    let before = resident(&world);
    let mut streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| world.dial(port)).collect();
    for round in 0..2 {
        for (number, stream) in streams.iter_mut().enumerate() {
            world.echo(stream, &format!("{round} of {number}"));
        }
    }
    assert_eq!(world.status().counters.open, CONNECTIONS as u64);
    let each = resident(&world).saturating_sub(before) / CONNECTIONS as u64;
    println!("{each} bytes of memory a connection");
    assert!(each < MOST_PER_CONNECTION, "{each} bytes a connection");
    drop(streams);
    wait_for("all of them to end", || (world.status().counters.open == 0).then_some(()));
    let descriptors = fs::read_dir(format!("/proc/{}/fd", world.proxy_pid())).unwrap().count();
    assert!(descriptors < 300, "{descriptors} descriptors are left");
}

fn resident(world: &World) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", world.proxy_pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}
