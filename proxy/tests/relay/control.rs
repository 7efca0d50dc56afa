//! What the agent may rely on.

use crate::{
    destination::echo,
    namespace::{run, wait_for},
    world::{LISTENERS, World, policy, with_credentials},
};
use hoody_protocol::id::ContainerId;
use hoody_proxy::control::{ControlError, Health, UpstreamKind, open_listeners};
use std::net::{TcpStream, UdpSocket};

#[test]
fn agents_come_and_go_and_connections_stay() {
    let mut world = World::new();
    let _upstream = world.microsocks(1080, None);
    let _second = world.microsocks(1081, None);
    world.set_up(policy(UpstreamKind::Socks5, 1080));
    let (port, _) = world.serve(echo);
    let mut stream = world.dial(port);
    world.echo(&mut stream, "one");

    world.disconnect();
    world.echo(&mut stream, "without an agent");
    world.echo(&mut world.dial(port), "a new connection without an agent");
    world.connect();
    let status = world.status();
    assert_eq!((status.revision, status.listeners, status.health), (1, LISTENERS, Health::Ok));
    wait_for("one open connection", || (world.status().counters.open == 1).then_some(()));

    let mut same = policy(UpstreamKind::Socks5, 1080);
    same.dns_servers = vec!["9.9.9.9".parse().unwrap()].try_into().unwrap();
    world.change(same).unwrap();
    assert_eq!(world.status().revision, 2);
    world.echo(&mut stream, "another policy, the same upstream");

    world.change(policy(UpstreamKind::Socks5, 1081)).unwrap();
    world.expect_reset(&mut stream);
    let mut stream = world.dial(port);
    world.echo(&mut stream, "the other upstream");

    world.block_on(world.client().remove(world.id)).unwrap();
    world.expect_reset(&mut stream);
    assert!(!world.reaches(port));
    assert_eq!(world.block_on(world.client().list()).unwrap(), []);
    world.block_on(world.client().remove(world.id)).unwrap();
}

#[test]
fn a_proxy_that_restarts_is_told_everything_again() {
    let mut world = World::new();
    let _upstream = world.microsocks(1080, None);
    world.set_up(policy(UpstreamKind::Socks5, 1080));
    let (port, _) = world.serve(echo);
    let mut stream = world.dial(port);
    world.echo(&mut stream, "before");
    world.kill_proxy();
    assert!(!world.reaches(port), "closed meanwhile");
    let events = world.events();
    tokio_end(events);
    world.start_proxy();
    assert!(matches!(world.change(policy(UpstreamKind::Socks5, 1080)), Err(ControlError::Refused(_))), "no listeners");
    world.set_up(policy(UpstreamKind::Socks5, 1080));
    world.echo(&mut world.dial(port), "after");
}

/// The agent notices that the proxy is gone.
fn tokio_end(events: &mut hoody_proxy::control::Events) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = async { while events.next().await.is_some() {} };
    runtime.block_on(async { tokio::time::timeout(crate::namespace::DEADLINE, ended).await }).unwrap();
}

#[test]
fn changes_are_told_without_being_asked_for() {
    let mut world = World::new();
    world.set(policy(UpstreamKind::Socks5, 1080));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let next = |world: &mut World| {
        let events = world.events();
        runtime
            .block_on(async { tokio::time::timeout(crate::namespace::DEADLINE, events.next()).await })
            .unwrap()
            .unwrap()
    };
    assert!(matches!(next(&mut world).health, Health::Failing { .. }));
    let _upstream = world.microsocks(1080, None);
    while next(&mut world).health != Health::Ok {}
}

#[test]
fn what_cannot_work_is_refused_and_changes_nothing() {
    let mut world = World::new();
    let _upstream = world.microsocks(1080, None);
    world.set_up(policy(UpstreamKind::Socks5, 1080));
    let (port, _) = world.serve(echo);
    let good = policy(UpstreamKind::Socks5, 1080);
    let mut no_port = good.clone();
    no_port.upstream.port = 0;
    let mut no_host = good.clone();
    no_host.upstream.host = "a b".try_into().unwrap();
    let header = with_credentials(policy(UpstreamKind::Http, 1080), "somebody", "x\r\nProxy-Authorization: y");
    for bad in [no_port, no_host, header, with_credentials(good.clone(), "", "x")] {
        assert!(matches!(world.change(bad), Err(ControlError::Refused(_))));
    }
    let mut stranger = world.egress(good.clone());
    stranger.container = ContainerId::generate();
    let refused = world.block_on(world.client().set(stranger.clone(), None));
    assert!(matches!(refused, Err(ControlError::Refused(_))), "a container without listeners");
    let elsewhere = world.server.within(|| {
        let mut sockets = open_listeners("127.0.0.1:0".parse().unwrap()).unwrap();
        sockets.udp = UdpSocket::bind("127.0.0.1:0").unwrap().into();
        sockets
    });
    let refused = world.block_on(world.client().set(stranger, Some(elsewhere)));
    assert!(matches!(refused, Err(ControlError::Refused(_))), "sockets that do not belong together");
    assert_eq!(world.status().revision, 1);
    world.echo(&mut world.dial(port), "as before");
}

#[test]
fn nobody_but_the_agent_speaks_to_it_and_nobody_but_the_container_goes_through_it() {
    let mut world = World::new();
    let _upstream = world.microsocks(1080, None);
    world.set_up(policy(UpstreamKind::Socks5, 1080));
    let socket = world.socket();
    let connect = format!(
        "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect('{}'); print(len(s.recv(100)))",
        socket.display()
    );
    let as_user = |user: &str| {
        let output = std::process::Command::new("setpriv")
            .args(["--reuid", user, "--clear-groups", "/usr/bin/python3", "-c", &connect])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(as_user("12345"), "", "the socket's mode");
    run(&["chmod", "666", socket.to_str().unwrap()]);
    assert_eq!(as_user("12345"), "0", "hung up on");
    assert_ne!(as_user("0"), "0", "welcomed");

    // On the server itself the listener is a port like any other.
    let (port, peers) = world.serve(echo);
    let mut stream = world.server.within(|| TcpStream::connect(LISTENERS)).unwrap();
    world.expect_reset(&mut stream);
    world.echo(&mut world.dial(port), "the container");
    world.container.run("ip addr add 10.88.0.3/24 dev eth0");
    let other = world.container.within(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"10.88.0.3:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        socket.connect(&std::net::SocketAddrV4::new(crate::world::DESTINATION, port).into()).unwrap();
        TcpStream::from(socket)
    });
    let mut other = other;
    world.expect_reset(&mut other);
    assert_eq!(peers.try_iter().count(), 1);
    wait_for("the refusals counted", || (world.status().counters.refused >= 2).then_some(()));
    // Packets likewise, those to a name server too.
    let other = world.container.within(|| UdpSocket::bind("10.88.0.3:0").unwrap());
    other.send_to(b"a question", (crate::world::NAME_SERVER, 53)).unwrap();
    let local = world.server.within(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    local.send_to(b"a question", LISTENERS).unwrap();
    let counters = wait_for("what became of the packets", || {
        let counters = world.status().counters;
        Some(counters).filter(|counters| counters.packets_dropped + counters.dns_queries >= 2)
    });
    assert_eq!((counters.packets_dropped, counters.dns_queries), (2, 0));
}
