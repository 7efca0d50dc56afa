//! Upstreams that do not work, and why; and that work again.

use crate::{
    destination::echo,
    world::{World, policy, with_credentials},
};
use hoody_proxy::control::{Cause, Health, Policy, UpstreamKind};
use std::{io::Write, time::Duration};

/// Waits until the upstream fails for this reason; then connections are refused.
#[track_caller]
fn expect(world: &mut World, policy: Policy, expected: Cause) -> String {
    world.set(policy);
    let message = expect_failing(world, expected);
    world.expect_reset(&mut world.dial(80));
    world.block_on(world.client().remove(world.id)).unwrap();
    message
}

#[track_caller]
fn expect_failing(world: &World, expected: Cause) -> String {
    let status = world.wait_health("a failing upstream", |health| matches!(health, Health::Failing { .. }));
    let Health::Failing { cause, message, .. } = status.health else { unreachable!() };
    assert_eq!(cause, expected, "{message}");
    message.to_string()
}

#[test]
fn addresses_that_may_not_be_dialled() {
    let mut world = World::new();
    let _upstream = world.microsocks(1080, None);
    let plain = policy(UpstreamKind::Socks5, 1080);

    let nothing_allowed = Policy { allowed: Default::default(), ..plain.clone() };
    assert!(expect(&mut world, nothing_allowed, Cause::RefusedAddress).contains("reserved"));
    let own = Policy { own: vec!["198.51.100.2/32".parse().unwrap()].try_into().unwrap(), ..plain.clone() };
    assert!(expect(&mut world, own, Cause::RefusedAddress).contains("platform"));
    let mut named = plain.clone();
    named.upstream.host = "inside.test".try_into().unwrap();
    assert!(expect(&mut world, named, Cause::RefusedAddress).contains("loopback"));
    let mut nowhere = plain.clone();
    nowhere.upstream.host = "no-such-name.test".try_into().unwrap();
    expect(&mut world, nowhere, Cause::Unresolvable);

    // Rules that come later end what was dialled before them.
    world.set_up(plain.clone());
    let (port, _) = world.serve(echo);
    let mut stream = world.dial(port);
    world.echo(&mut stream, "allowed");
    world.change(Policy { allowed: Default::default(), ..plain }).unwrap();
    world.expect_reset(&mut stream);
}

#[test]
fn credentials_that_are_refused() {
    let mut world = World::new();
    let _socks = world.microsocks(1080, Some(("somebody", "right")));
    let socks = policy(UpstreamKind::Socks5, 1080);
    expect(&mut world, socks.clone(), Cause::AuthFailed);
    expect(&mut world, with_credentials(socks, "somebody", "wrong-password"), Cause::AuthFailed);

    let _http = world.tinyproxy(8888, Some(("somebody", "right")));
    for credentials in [None, Some("wrong-password")] {
        let http = policy(UpstreamKind::Http, 8888);
        world.set(match credentials {
            Some(password) => with_credentials(http, "somebody", password),
            None => http,
        });
        // An HTTP proxy is asked for credentials with the first connection.
        world.wait_health("an answer", |health| *health == Health::Ok);
        world.expect_reset(&mut world.dial(80));
        expect_failing(&world, Cause::AuthFailed);
        world.block_on(world.client().remove(world.id)).unwrap();
    }
    assert!(!world.log().contains("wrong-password"), "credentials are in no log");
}

#[test]
fn certificates_of_others() {
    let mut world = World::new();
    let _upstream = world.squid(3129, "upstream.test");
    let mut https = policy(UpstreamKind::Https, 3129);
    https.upstream.host = "upstream.test".try_into().unwrap();
    // The authority is there, but not read yet.
    expect(&mut world, https.clone(), Cause::CertificateInvalid);
    world.reload();
    world.set_up(https.clone());
    world.block_on(world.client().remove(world.id)).unwrap();

    https.upstream.server_name = Some("other.test".try_into().unwrap());
    expect(&mut world, https.clone(), Cause::CertificateInvalid);
    // By address, with the name said.
    https.upstream.host = crate::world::UPSTREAM.to_string().try_into().unwrap();
    https.upstream.server_name = None;
    expect(&mut world, https.clone(), Cause::CertificateInvalid);
    https.upstream.server_name = Some("upstream.test".try_into().unwrap());
    world.set_up(https);
}

#[test]
fn an_upstream_that_is_down_and_comes_back() {
    let mut world = World::new();
    let upstream = world.microsocks(1080, None);
    world.set_up(policy(UpstreamKind::Socks5, 1080));
    let (port, peers) = world.serve(echo);
    drop(upstream);
    world.expect_reset(&mut world.dial(port));
    expect_failing(&world, Cause::Unreachable);
    let refused = world.status().counters.refused;
    world.expect_reset(&mut world.dial(port));
    assert!(world.status().counters.refused > refused);

    let _upstream = world.microsocks(1080, None);
    world.wait_health("the upstream again, without a connection", |health| *health == Health::Ok);
    world.echo(&mut world.dial(port), "again");
    assert_eq!(peers.try_iter().count(), 1, "nothing went another way");
}

#[test]
fn an_upstream_that_trickles() {
    let mut world = World::new();
    let (port, _) = world.serve_at(crate::world::UPSTREAM, |mut stream| {
        for byte in b"HTTP/1.1 200 OK\r\nX-Slowly: yes".iter().cycle() {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    // As an HTTP proxy it is up, and its answers never end.
    world.set(policy(UpstreamKind::Http, port));
    world.expect_reset(&mut world.dial(80));
    assert_eq!(world.status().health, Health::Ok, "what cannot be reached through it says nothing about it");
    world.block_on(world.client().remove(world.id)).unwrap();
    // As a SOCKS proxy it is none.
    expect(&mut world, policy(UpstreamKind::Socks5, port), Cause::Protocol);
    let (silent, _) = world.serve_at(crate::world::UPSTREAM, |stream| {
        std::thread::sleep(Duration::from_secs(20));
        drop(stream);
    });
    world.set(policy(UpstreamKind::Socks5, silent));
    expect_failing(&world, Cause::TimedOut);
    world.expect_reset(&mut world.dial(80));
}
