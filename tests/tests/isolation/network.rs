//! Other tenants, the server, the control plane and the clouds' metadata from inside; forged addresses.

use crate::{DEADLINE, World};
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{Process, run},
    probe::{self, Web},
};
use std::{net::SocketAddr, process::Command, time::Instant};

/// A service of the server itself.
const HOST_PORT: u16 = 8001;
/// The containers' default gateway.
const GATEWAY: &str = "169.254.1.1";
/// Metadata services of clouds.
const METADATA: [&str; 5] = ["169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192"];

pub(crate) fn reaches_nobody_else(world: &World) -> Result<()> {
    let (one, two) = (&world.mine[0], &world.mine[1]);
    ensure!(world.fetches(&one.0, two.1.address), "the same tenant's containers do not reach each other");
    ensure!(!world.fetches(&one.0, world.theirs.1.address), "another tenant's container is reached");
    ensure!(!world.fetches(&world.theirs.0, one.1.address), "another tenant's container is reached");

    // Services of the server: on its uplink, on the gateway's address, on loopback of another namespace.
    let server = world.server();
    let folder = server.folder.join("host-web");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("index.html"), "host")?;
    let mut command = server.command("busybox");
    command.args(["httpd", "-f", "-p", &HOST_PORT.to_string(), "-h"]).arg(&folder);
    let _service = Process::start("the server's own service", &mut command, &server.folder.join("host-web.log"))?;
    serves(SocketAddr::from((server.address, HOST_PORT)))?;
    for address in [server.address.to_string(), GATEWAY.to_owned(), "127.0.0.1".to_owned()] {
        let address: SocketAddr = format!("{address}:{HOST_PORT}").parse()?;
        ensure!(!world.fetches(&one.0, address), "the server's own service at {address} is reached");
    }
    metadata(world)?;
    // Beyond the server is the world.
    let uplink = server.address.octets();
    let beyond = SocketAddr::from(([uplink[0], uplink[1], uplink[2], uplink[3] - 1], HOST_PORT));
    let mut command = Command::new("busybox");
    command.args(["httpd", "-f", "-p", &beyond.to_string(), "-h"]).arg(&folder);
    let _beyond = Process::start("a service beyond the server", &mut command, &server.folder.join("beyond.log"))?;
    serves(beyond)?;
    ensure!(world.fetches(&one.0, beyond), "nothing beyond the server is reached");
    // Where the control plane awaits nodes: seen from this machine, not from a container.
    let (plane, port) = (beyond.ip().to_string(), world.cluster.control_plane.node_port().to_string());
    let seen = run(Command::new(&world.hostile).args(["quic", &plane, &port]))?;
    ensure!(seen.contains("answered"), "the control plane's port for nodes is silent to everybody");
    let seen = world.hostile(&one.0, &["quic", &plane, &port])?;
    ensure!(seen.is_empty(), "the control plane's port for nodes answers a container");
    // IPv6 is closed: no address but none, no socket that leads anywhere.
    ensure!(world.server().exec(&one.0, &["ip", "-6", "addr"])?.trim().is_empty(), "a container has IPv6");
    Ok(())
}

/// Waits until the server's page is served, as seen from outside.
fn serves(address: SocketAddr) -> Result<()> {
    let web = Web::at(address, "host");
    let end = Instant::now() + DEADLINE;
    while let Err(error) = probe::answers_now(&web, true) {
        ensure!(Instant::now() < end, "the service does not come up: {error:#}");
        std::thread::yield_now();
    }
    Ok(())
}

pub(crate) fn cannot_forge(world: &World) -> Result<()> {
    let (one, two) = (&world.mine[0], &world.mine[1]);
    let theirs = world.theirs.1.address.ip();
    // Programs that make their packets themselves.
    ensure!(!world.succeeds(&one.0, "ping -c 1 -W 2 127.0.0.1"), "a raw socket was opened");
    ensure!(!world.succeeds(&one.0, "arping -c 1 -w 2 -I eth0 169.254.1.1"), "a raw socket was opened");
    for source in [theirs.to_string(), GATEWAY.to_owned(), "192.0.2.1".to_owned(), world.server().address.to_string()] {
        let sent = world.hostile(&one.0, &["spoof", &source, &two.1.address.ip().to_string()])?;
        ensure!(sent.is_empty(), "forged: {sent}");
    }
    // Capabilities that would help: none of NET_RAW (13), NET_ADMIN (12), SYS_ADMIN (21).
    let status = world.server().exec(&one.0, &["cat", "/proc/1/status"])?;
    for set in ["CapEff", "CapBnd"] {
        let line = status.lines().find_map(|line| line.strip_prefix(set)).context("no capabilities")?;
        let mask = u64::from_str_radix(line.trim_start_matches(':').trim(), 16)?;
        for (bit, name) in
            [(12, "NET_ADMIN"), (13, "NET_RAW"), (16, "SYS_MODULE"), (19, "SYS_PTRACE"), (21, "SYS_ADMIN")]
        {
            ensure!(mask & (1 << bit) == 0, "{set} has {name}");
        }
    }
    // Another's address cannot be taken, nor a route laid.
    for script in [
        format!("ip addr add {theirs}/32 dev eth0"),
        "ip link set eth0 address 02:00:00:00:00:01".to_owned(),
        "ip route add default via 169.254.1.2 dev eth0".to_owned(),
        "ip link set eth0 down".to_owned(),
        "ip link add dummy0 type dummy".to_owned(),
    ] {
        ensure!(!world.succeeds(&one.0, &script), "this works in a container: {script}");
    }
    ensure!(world.fetches(&one.0, two.1.address), "the network is gone after all that");
    Ok(())
}

/// Every metadata service answers the server, and no container.
fn metadata(world: &World) -> Result<()> {
    let (server, container) = (world.server(), &world.mine[0].0);
    let uplink = server.address.octets();
    let beyond = std::net::Ipv4Addr::new(uplink[0], uplink[1], uplink[2], uplink[3] - 1);
    // The services' addresses are this machine's for the while, on the server's uplink alone.
    let ip = |arguments: &str| run(Command::new("ip").args(arguments.split_whitespace())).map(drop);
    let folder = server.folder.join("host-web");
    for address in METADATA {
        ip(&format!("addr add {address}/32 dev {}", server.name))?;
        run(server.command("ip").args(["route", "add", address, "via", &beyond.to_string()]))?;
        let served = (|| {
            let at: SocketAddr = format!("{address}:80").parse()?;
            let mut command = Command::new("busybox");
            command.args(["httpd", "-f", "-p", &at.to_string(), "-h"]).arg(&folder);
            let _service = Process::start("a metadata service", &mut command, &server.folder.join("metadata.log"))?;
            serves(at)?;
            let open = format!("exec 3<>/dev/tcp/{address}/80");
            run(server.command("timeout").args(["5", "bash", "-c", &open]))
                .context("the server itself does not reach it")?;
            ensure!(!world.fetches(container, at), "the metadata service {address} is reached");
            Ok(())
        })();
        // It goes with the interface at the latest.
        ip(&format!("addr del {address}/32 dev {}", server.name))?;
        served?;
    }
    Ok(())
}
