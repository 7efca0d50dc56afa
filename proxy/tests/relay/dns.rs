//! DNS, over UDP and TCP, to whatever server it is sent.

use crate::world::{NAME_SERVER, PRIVATE_NAME_SERVER, World, policy};
use hoody_proxy::control::{Policy, UpstreamKind};
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket},
};

/// A server that is not there.
const ANYWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
const A: u8 = 1;
const TXT: u8 = 16;
const NOERROR: u8 = 0;
const SERVFAIL: u8 = 2;

fn query(id: u16, name: &str, kind: u8) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    query.extend_from_slice(b"\x01\x00\0\x01\0\0\0\0\0\0");
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, kind, 0, 1]);
    query
}

fn rcode(answer: &[u8]) -> u8 {
    answer[3] & 0x0f
}

fn ask(socket: &UdpSocket, server: Ipv4Addr, query: &[u8]) -> Vec<u8> {
    socket.send_to(query, (server, 53)).unwrap();
    let mut answer = vec![0; 4096];
    let (length, from) = socket.recv_from(&mut answer).unwrap();
    assert_eq!(from, SocketAddr::from((server, 53)), "the answer's source is who was asked");
    assert_eq!(answer[..2], query[..2], "the id");
    answer.truncate(length);
    answer
}

fn send(stream: &mut TcpStream, query: &[u8]) {
    stream.write_all(&[&(query.len() as u16).to_be_bytes(), query].concat()).unwrap();
}

fn receive(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    answer
}

fn with_servers(servers: &[Ipv4Addr]) -> Policy {
    let servers: Vec<IpAddr> = servers.iter().copied().map(IpAddr::V4).collect();
    Policy { dns_servers: servers.try_into().unwrap(), ..policy(UpstreamKind::Socks5, 1080) }
}

#[test]
fn whatever_server_is_asked_the_policys_answers() {
    let mut world = World::new();
    let _upstream = world.microsocks(1080, None);
    let _name_server = world.name_server();
    world.set_up(with_servers(&[NAME_SERVER]));
    let socket = world.udp();
    for server in [ANYWHERE, Ipv4Addr::new(10, 88, 0, 1), NAME_SERVER] {
        let answer = ask(&socket, server, &query(7, "www.example.test", A));
        assert!(answer.ends_with(&[203, 0, 113, 77]), "{answer:?}");
    }
    // Several at once, told apart by their ids.
    for id in 0..100 {
        socket.send_to(&query(id, &format!("n{id}.example.test"), A), (ANYWHERE, 53)).unwrap();
    }
    let mut seen: Vec<u16> = (0..100)
        .map(|_| {
            let mut answer = [0; 512];
            let length = socket.recv(&mut answer).unwrap();
            let id = u16::from_be_bytes([answer[0], answer[1]]);
            let asked = query(id, &format!("n{id}.example.test"), A);
            assert_eq!(answer[12..asked.len()], asked[12..]);
            assert!(answer[..length].ends_with(&[203, 0, 113, 77]));
            id
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<u16>>());

    let mut stream = world.dial_address(SocketAddrV4::new(ANYWHERE, 53));
    for id in 0..20 {
        send(&mut stream, &query(id, "www.example.test", A));
    }
    for _ in 0..20 {
        assert!(receive(&mut stream).ends_with(&[203, 0, 113, 77]));
    }
    // dnsmasq serves 20 queries of a TCP connection: one more needs another one.
    assert_eq!(world.status().counters.dns_failures, 0);
}

#[test]
fn long_answers_over_udp_ask_for_tcp() {
    let mut world = World::new();
    let _upstream = world.microsocks(1080, None);
    let _name_server = world.name_server();
    world.set_up(with_servers(&[NAME_SERVER]));
    let asked = query(7, "long.test", TXT);
    let cut = ask(&world.udp(), ANYWHERE, &asked);
    assert!(cut.len() <= 512 && cut[2] & 2 != 0, "truncated");
    let mut stream = world.dial_address(SocketAddrV4::new(ANYWHERE, 53));
    send(&mut stream, &asked);
    let whole = receive(&mut stream);
    assert!(whole.len() > 2000 && whole[2] & 2 == 0, "{} bytes", whole.len());
    // With the room said (EDNS), it fits.
    let mut roomy = asked.clone();
    roomy[11] = 1;
    roomy.extend_from_slice(&[0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    let answer = ask(&world.udp(), ANYWHERE, &roomy);
    assert!(answer.len() > 2000 && answer[2] & 2 == 0, "{} bytes", answer.len());
}

#[test]
fn the_next_server_answers_where_one_does_not() {
    let mut world = World::new();
    let _upstream = world.microsocks(1080, None);
    let _name_server = world.name_server();
    // Nothing listens at the first one's port 53.
    world.set_up(with_servers(&[crate::world::DESTINATION, NAME_SERVER]));
    let answer = ask(&world.udp(), ANYWHERE, &query(7, "www.example.test", A));
    assert_eq!(rcode(&answer), NOERROR);
}

#[test]
fn without_servers_in_the_policy_the_public_one_that_is_asked_answers() {
    let mut world = World::new();
    let upstream = world.microsocks(1080, None);
    let _name_server = world.name_server();
    world.set_up(with_servers(&[]));
    let socket = world.udp();
    let asked = query(7, "www.example.test", A);
    assert_eq!(rcode(&ask(&socket, NAME_SERVER, &asked)), NOERROR);
    assert_eq!(rcode(&ask(&socket, PRIVATE_NAME_SERVER, &asked)), SERVFAIL, "a private one");
    // Without an agent the answers' sockets are still there.
    world.disconnect();
    assert_eq!(rcode(&ask(&socket, NAME_SERVER, &asked)), NOERROR);
    drop(upstream);
    world.connect();
    assert_eq!(rcode(&ask(&socket, NAME_SERVER, &asked)), SERVFAIL, "nothing is asked another way");
    assert!(world.status().counters.dns_failures >= 2);
}

#[test]
fn a_private_server_is_asked_where_the_policy_names_it() {
    let mut world = World::new();
    let _upstream = world.microsocks(1080, None);
    let _name_server = world.name_server();
    world.set_up(with_servers(&[PRIVATE_NAME_SERVER]));
    assert_eq!(rcode(&ask(&world.udp(), ANYWHERE, &query(7, "www.example.test", A))), NOERROR);
}

#[test]
fn few_servers_of_a_containers_choice_are_asked_at_a_time() {
    const MOST: u8 = 8;
    let mut world = World::new();
    let servers: Vec<Ipv4Addr> = (0..=MOST).map(|number| Ipv4Addr::new(9, 9, 9, 100 + number)).collect();
    for server in &servers {
        world.outside.run(&format!("ip addr add {server}/32 dev lo"));
    }
    let _upstream = world.microsocks(1080, None);
    let _name_server = world.name_server();
    world.set_up(with_servers(&[]));
    let (socket, asked) = (world.udp(), query(7, "www.example.test", A));
    let answers = servers.iter().map(|server| rcode(&ask(&socket, *server, &asked)));
    let expected = [NOERROR; MOST as usize].into_iter().chain([SERVFAIL]);
    assert!(answers.eq(expected));
}

#[test]
fn what_the_agent_asks_for_a_container_the_container_is_told_too() {
    let mut world = World::new();
    let upstream = world.microsocks(1080, None);
    let _names = world.name_server();
    world.set_up(with_servers(&[NAME_SERVER]));
    let agents = |world: &World, name: &str| {
        world.block_on(world.client().query(world.id, ANYWHERE.into(), &query(9, name, A))).unwrap()
    };
    let answer = agents(&world, "example.test").unwrap();
    assert_eq!((&answer[..2], answer[answer.len() - 4..].to_vec()), (&[0, 9][..], vec![203, 0, 113, 77]));
    let socket = world.udp();
    // The way to the name server is gone: whoever asks the same gets the agent's answer, and for other names there is none.
    drop(upstream);
    let told = ask(&socket, ANYWHERE, &query(3, "EXAMPLE.test", A));
    assert_eq!((rcode(&told), &told[told.len() - 4..]), (NOERROR, &[203, 0, 113, 77][..]));
    assert_eq!(rcode(&ask(&socket, ANYWHERE, &query(4, "www.example.test", A))), SERVFAIL);
    // The agent is told nothing any more, and so is the container.
    assert_eq!(agents(&world, "example.test"), None);
    assert_eq!(rcode(&ask(&socket, ANYWHERE, &query(5, "example.test", A))), SERVFAIL);
    let nobody = hoody_protocol::id::ContainerId::generate();
    let unknown = world.block_on(world.client().query(nobody, ANYWHERE.into(), &query(9, "example.test", A)));
    assert_eq!(unknown.unwrap(), None, "a container that the relay does not have");
}
