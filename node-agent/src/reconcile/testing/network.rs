//! Links, rules, names and proxies of the kernel in memory.

use super::{Damage, Faulted, Kernel, World};
use crate::{
    egress::{Egress, EgressError},
    firewall::{Answer, Firewall, FirewallError, Policy},
    names::{self, Names},
    network::{Network, NetworkError, host_interface},
    runtime::Process,
};
use async_trait::async_trait;
use hoody_protocol::{
    egress::{EgressStatus, Upstream},
    firewall::RuleCounter,
    id::ContainerId,
    stats::NetworkStats,
};
use std::{collections::BTreeSet, net::Ipv4Addr};

impl From<Faulted> for NetworkError {
    fn from(_: Faulted) -> Self {
        Self::Interrupted { action: "fault" }
    }
}

impl From<Faulted> for FirewallError {
    fn from(_: Faulted) -> Self {
        Self::Configuration { reason: "fault".into() }
    }
}

#[async_trait]
impl Network for Kernel {
    async fn prepare(&self) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn attach(&self, id: ContainerId, pid: i32, address: Ipv4Addr) -> Result<(), NetworkError> {
        if self.world().exiting {
            return Err(NetworkError::OpenNamespace { pid, source: std::io::ErrorKind::NotFound.into() });
        }
        let effect = |world: &mut World| {
            let stands = world.rules.contains_key(&id);
            world.demand_unless(Damage::Rules, stands, "attached before its policy stood");
            world.unseen.remove(&Damage::Link);
            let target = match world.processes.get(&id) {
                Some(Process::Created { pid } | Process::Running { pid } | Process::Paused { pid }) => Some(*pid),
                _ => None,
            };
            // The process may have ended a moment ago; another one's pid would be a mistake.
            world.demand(target.is_none_or(|target| target == pid), "attached to another process");
            world.links.insert(id, address);
            world.rates.remove(&id);
        };
        Ok(self.step("attach", effect).await?)
    }

    async fn limit_rate(&self, id: ContainerId, pid: i32, mbit: Option<u32>) -> Result<(), NetworkError> {
        if self.world().exiting {
            return Err(NetworkError::OpenNamespace { pid, source: std::io::ErrorKind::NotFound.into() });
        }
        let effect = |world: &mut World| {
            let stands = world.links.contains_key(&id);
            world.demand_unless(Damage::Link, stands, "a rate without a link");
            world.rates.insert(id, mbit);
        };
        Ok(self.step("rate", effect).await?)
    }

    async fn is_rate_limited(&self, id: ContainerId, _pid: i32, mbit: u32) -> Result<bool, NetworkError> {
        Ok(self.step("rate?", |world| world.rates.get(&id) == Some(&Some(mbit))).await?)
    }

    async fn is_attached(&self, id: ContainerId, pid: i32, address: Ipv4Addr) -> Result<bool, NetworkError> {
        if self.world().exiting {
            self.step("attached?", |_| ()).await?;
            return Err(NetworkError::OpenNamespace { pid, source: std::io::ErrorKind::NotFound.into() });
        }
        let look = |world: &mut World| {
            world.unseen.remove(&Damage::Link);
            world.links.get(&id) == Some(&address)
        };
        Ok(self.step("attached?", look).await?)
    }

    async fn detach(&self, id: ContainerId) -> Result<(), NetworkError> {
        let effect = |world: &mut World| {
            world.links.remove(&id);
        };
        Ok(self.step("detach", effect).await?)
    }

    async fn stats(&self, _id: ContainerId) -> Result<Option<NetworkStats>, NetworkError> {
        Ok(None)
    }

    async fn inventory(&self) -> Result<Vec<String>, NetworkError> {
        Ok(self.world().links.keys().map(|id| host_interface(*id)).collect())
    }
}

#[async_trait]
impl Firewall for Kernel {
    async fn prepare(&self) -> Result<(), FirewallError> {
        Ok(self.step("prepare", |world| world.prepared = true).await?)
    }

    async fn is_prepared(&self) -> Result<bool, FirewallError> {
        Ok(self.step("prepared?", |world| world.prepared).await?)
    }

    async fn close_endpoints(&self, _: Vec<std::net::SocketAddrV4>) -> Result<(), FirewallError> {
        Ok(())
    }

    async fn changed(&self) {
        self.news().notified().await;
    }

    async fn apply(&self, policy: &Policy) -> Result<(), FirewallError> {
        let effect = |world: &mut World| {
            world.rules.insert(policy.id, policy.rules.clone());
            world.egress.insert(policy.id, policy.egress);
            world.applied.insert(policy.id);
        };
        Ok(self.step("policy", effect).await?)
    }

    async fn is_applied(&self, id: ContainerId) -> Result<bool, FirewallError> {
        let look = |world: &mut World| {
            world.unseen.remove(&Damage::Rules);
            world.applied.contains(&id) && world.rules.contains_key(&id)
        };
        Ok(self.step("applied?", look).await?)
    }

    async fn remove(&self, id: ContainerId) -> Result<(), FirewallError> {
        let effect = |world: &mut World| {
            world.demand(!world.links.contains_key(&id), "policy removed before the link");
            world.demand(!world.is_alive(id), "policy removed before the processes");
            world.rules.remove(&id);
            world.egress.remove(&id);
            world.applied.remove(&id);
        };
        Ok(self.step("unpolicy", effect).await?)
    }

    async fn resolved(&self, _: ContainerId, _: &str, _: Answer) -> Result<(), FirewallError> {
        Ok(())
    }

    async fn counters(&self, _id: ContainerId) -> Result<Vec<RuleCounter>, FirewallError> {
        Ok(Vec::new())
    }

    async fn inventory(&self) -> Result<Vec<ContainerId>, FirewallError> {
        Ok(self.world().rules.keys().copied().collect())
    }
}

/// Not a step of its own: it never fails, and what it does is asked for again by every pass.
#[async_trait]
impl Names for Kernel {
    async fn set(&self, id: ContainerId, hosts: BTreeSet<String>, path: names::Path) {
        let mut world = self.world();
        if hosts.is_empty() {
            world.names.remove(&id);
        } else {
            world.names.insert(id, (hosts, path));
        }
    }
}

/// Not a step of its own: it never fails, and what it does is asked for again by every pass.
#[async_trait]
impl Egress for Kernel {
    async fn prepare(&self) -> Result<(), EgressError> {
        Ok(())
    }

    async fn set(&self, id: ContainerId, _address: Ipv4Addr, upstream: Option<&Upstream>) {
        let mut world = self.world();
        match upstream {
            Some(upstream) => {
                let captured = matches!(world.egress.get(&id), Some(crate::firewall::Egress::Proxy(_)));
                world.demand(captured, "relayed before its packets were taken");
                world.relayed.insert(id, upstream.clone());
            }
            None => _ = world.relayed.remove(&id),
        }
    }

    fn status(&self, id: ContainerId) -> Option<EgressStatus> {
        self.world().relayed.get(&id).map(|_| EgressStatus { working: true, cause: None })
    }

    async fn changed(&self) -> ContainerId {
        std::future::pending().await
    }

    async fn retain(&self, _known: BTreeSet<ContainerId>) {}
}
