//! Placement of containers on servers: a pure function over candidates. What it chooses is only a
//! proposal; the reservation in the store decides, and a lost race goes on with the next candidate.

mod reason;

pub use reason::Reason;

use crate::{service::server::pool, store::reservation::ServerRow};
use hoody_protocol::{container::Limits, id::ServerId};

/// What is to be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand<'a> {
    /// What it takes of a server.
    pub limits: &'a Limits,
    /// Architecture of its image, in OCI terms; `None`: there is one for whatever the server has.
    pub architecture: Option<&'a str>,
    /// It is to have KVM.
    pub kvm: bool,
}

/// A server that was considered and why it cannot take the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The server's name.
    pub server: String,
    /// Why.
    pub reason: Reason,
}

/// Whether a server can take the container, its node's connection aside: what is chosen by name may
/// wait for its node.
pub fn check(server: &ServerRow, demand: Demand<'_>) -> Result<(), Reason> {
    suits(server, demand)?;
    if server.draining {
        return Err(Reason::Draining);
    }
    fits(server, demand.limits)
}

/// Whether a server may take such a container at all; not whether anything is placed on it, and how full it is.
pub fn suits(server: &ServerRow, demand: Demand<'_>) -> Result<(), Reason> {
    match server.status.as_str() {
        "enrolled" => {}
        "created" => return Err(Reason::NotEnrolled),
        "disabled" => return Err(Reason::Disabled),
        _ => return Err(Reason::Revoked),
    }
    // Before its first hello a server's architecture is not known.
    if let Some(image) = demand.architecture
        && !server.architecture.is_empty()
        && server.architecture != image
    {
        let (image, server) = (image.to_owned(), server.architecture.clone());
        return Err(Reason::Architecture { image, server });
    }
    if demand.kvm && !server.owned {
        return Err(Reason::KvmNotOwned);
    }
    if demand.kvm && !server.kvm {
        return Err(Reason::NoKvm);
    }
    Ok(())
}

fn fits(server: &ServerRow, limits: &Limits) -> Result<(), Reason> {
    if server.free_containers < 1 {
        return Err(Reason::Full);
    }
    if server.pool_level >= pool::FULL {
        return Err(Reason::PoolFull);
    }
    let enough = |free: i64, wanted: u64| u64::try_from(free).is_ok_and(|free| free >= wanted);
    if !enough(server.free_memory_bytes, limits.memory_bytes) {
        return Err(Reason::Memory { free: server.free_memory_bytes.max(0), wanted: limits.memory_bytes });
    }
    if !enough(server.free_cpu_millis, u64::from(limits.cpu_millis)) {
        return Err(Reason::Cpu { free: server.free_cpu_millis.max(0), wanted: limits.cpu_millis });
    }
    if !enough(server.free_disk_bytes, limits.disk_bytes) {
        return Err(Reason::Disk { free: server.free_disk_bytes.max(0), wanted: limits.disk_bytes });
    }
    Ok(())
}

/// The servers that can take the container, best first: the fewest containers of the same project, then
/// the least memory, cpu and disk left over, then the id, so that equal input gives equal output. With
/// none, the reason of each.
pub fn rank(servers: &[ServerRow], demand: Demand<'_>) -> Result<Vec<ServerId>, Vec<Rejection>> {
    let mut fitting = Vec::new();
    let mut rejections = Vec::new();
    for server in servers {
        let verdict = check(server, demand).and(if server.online { Ok(()) } else { Err(Reason::Offline) });
        match verdict {
            Ok(()) => fitting.push(server),
            Err(reason) => rejections.push(Rejection { server: server.name.clone(), reason }),
        }
    }
    if fitting.is_empty() {
        return Err(rejections);
    }
    fitting.sort_by_key(|server| {
        let ServerRow { free_memory_bytes, free_cpu_millis, free_disk_bytes, .. } = server;
        (server.project_containers, *free_memory_bytes, *free_cpu_millis, *free_disk_bytes, server.id)
    });
    Ok(fitting.into_iter().map(|server| server.id).collect())
}

#[cfg(test)]
mod tests;
