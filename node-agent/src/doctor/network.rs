//! Packet filter and links, tried in a network namespace that vanishes with the check; and what other
//! programs' rules would do to containers' traffic.

use super::{Check, chain};
use crate::{
    config::Config,
    firewall::{Firewall, FirewallError, NftConfig, NftFirewall},
};
use nix::sched::{CloneFlags, unshare};
use rtnetlink::LinkVeth;
use std::{error::Error, io};

const GROUP: &str = "network";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

pub(super) async fn check(config: &Config) -> Vec<Check> {
    let nft = NftConfig { table: config.nft_table.clone(), ..NftConfig::new(config.node_cidr) };
    let mut checks = vec![trial(nft.clone()).await, veth().await, forwarding()];
    checks.push(match foreign(nft).await {
        Ok(chains) if chains.is_empty() => Check::ok(GROUP, "other firewalls", "none drops forwarded traffic"),
        Ok(chains) => {
            let fix = format!("let {} pass in these chains, or turn their firewall off", config.node_cidr);
            Check::warning(GROUP, "other firewalls", format!("drop forwarded traffic: {}", chains.join(", ")), fix)
        }
        Err(error) => {
            Check::failed(GROUP, "other firewalls", chain(&error), "run this as root, on a kernel with nf_tables")
        }
    });
    checks
}

/// The agent's whole table, made in a network of its own.
async fn trial(config: NftConfig) -> Check {
    let fix =
        "load nf_tables, nft_ct, nft_nat, nft_masq, nft_reject_inet and nft_connlimit, or boot a kernel that has them";
    let firewall = elsewhere(move || NftFirewall::open(config).map_err(Into::into)).await;
    let tried = match firewall {
        Ok(firewall) => firewall.prepare().await.map_err(Into::into),
        Err(error) => Err(error),
    };
    match tried {
        Ok(()) => Check::ok(GROUP, "nf_tables", "the agent's table can be made"),
        Err(error) => Check::failed(GROUP, "nf_tables", chain(error.as_ref()), fix),
    }
}

async fn veth() -> Check {
    let runtime = tokio::runtime::Handle::current();
    let made = elsewhere(move || {
        // The socket is opened by this thread and so belongs to its namespace.
        let _runtime = runtime.enter();
        let (connection, handle, _) = rtnetlink::new_connection()?;
        runtime.spawn(connection);
        Ok(handle)
    });
    let tried = match made.await {
        Ok(handle) => {
            let made = handle.link().add(LinkVeth::new("hoody-a", "hoody-b").build()).execute().await;
            made.map_err(|error| Box::new(error) as Box<dyn Error + Send + Sync>)
        }
        Err(error) => Err(error),
    };
    match tried {
        Ok(()) => Check::ok(GROUP, "veth", "a pair can be made"),
        Err(error) => Check::failed(GROUP, "veth", chain(error.as_ref()), "load the module with `modprobe veth`"),
    }
}

fn forwarding() -> Check {
    match std::fs::read_to_string(FORWARDING) {
        Ok(text) if text.trim() == "1" => Check::ok(GROUP, "forwarding", "on"),
        Ok(_) => Check::ok(GROUP, "forwarding", "off; the agent turns it on"),
        Err(error) => {
            Check::failed(GROUP, "forwarding", format!("{FORWARDING}: {error}"), "mount /proc, writable for the agent")
        }
    }
}

async fn foreign(config: NftConfig) -> Result<Vec<String>, FirewallError> {
    let found = NftFirewall::open(config)?.foreign_drops().await?;
    Ok(found.into_iter().map(|chain| format!("{} of table {}", chain.chain, chain.table)).collect())
}

/// Runs `open` on a thread in a new network namespace, which lives as long as the sockets it returns.
async fn elsewhere<T: Send + 'static>(
    open: impl FnOnce() -> Result<T, Box<dyn Error + Send + Sync>> + Send + 'static,
) -> Result<T, Box<dyn Error + Send + Sync>> {
    let (answer, opened) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("doctor".into()).spawn(move || {
        let entered = unshare(CloneFlags::CLONE_NEWNET).map_err(|error| Box::new(io::Error::from(error)).into());
        // Whoever asked may have given up.
        let _ = answer.send(entered.and_then(|()| open()));
    })?;
    opened.await?
}
