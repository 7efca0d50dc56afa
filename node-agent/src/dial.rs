//! Where hosts may be that tenants name: the upstreams of their proxies, and what names in firewall rules lead to.
//!
//! The platform's own addresses are known here. Which networks beyond the public internet are allowed the control
//! plane says with each hello; it is kept in a file, so that it holds after a restart without the control plane.

use crate::desired::file;
use hoody_protocol::address::DialRules;
use ipnet::IpNet;
use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, sync::Arc};
use tokio::sync::watch;

/// What may be dialled. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DialPolicy(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: PathBuf,
    own: Vec<IpNet>,
    allowed: watch::Sender<Vec<IpNet>>,
}

impl DialPolicy {
    /// With what `file` says is allowed; nothing, where it is damaged. `own` are addresses and networks of the platform.
    pub fn open(file: PathBuf, own: Vec<IpNet>) -> Self {
        let allowed = match file::read(&file) {
            Ok(Some(bytes)) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Ok(None) => Vec::new(),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "which networks are allowed is not known");
                Vec::new()
            }
        };
        Self(Arc::new(Shared { file, own, allowed: watch::Sender::new(allowed) }))
    }

    /// From now on these networks are allowed and no others.
    pub fn allow(&self, networks: Vec<IpNet>) {
        if *self.0.allowed.borrow() == networks {
            return;
        }
        let bytes = serde_json::to_vec(&networks).expect("plain data always encodes");
        if let Err(error) = file::write(&self.0.file, &bytes) {
            // It holds now, and is asked for again with the next hello.
            tracing::warn!(error = &error as &dyn std::error::Error, "the allowed networks were not written down");
        }
        tracing::info!(?networks, "networks beyond the internet that tenants may name hosts in");
        self.0.allowed.send_replace(networks);
    }

    /// The networks that are allowed, now and when they change.
    pub fn allowed(&self) -> watch::Receiver<Vec<IpNet>> {
        self.0.allowed.subscribe()
    }

    /// Addresses that nothing leads to: the platform's, and those of this server's interfaces.
    pub fn own(&self) -> Vec<IpNet> {
        let mut own: BTreeSet<IpNet> = self.0.own.iter().copied().collect();
        let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
        for address in interfaces.filter_map(|interface| interface.address) {
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            let v6 = address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
            own.extend(v4.or(v6).map(IpNet::from));
        }
        own.into_iter().collect()
    }

    /// The rules as they are now.
    pub fn rules(&self) -> DialRules {
        DialRules { allowed: self.0.allowed.borrow().clone(), own: self.own() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_holds_after_a_restart_and_damage_allows_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("allowed-networks");
        let own: IpNet = "10.1.2.0/24".parse().unwrap();
        let open = || DialPolicy::open(file.clone(), vec![own]);
        assert!(open().rules().check("10.1.1.1".parse().unwrap()).is_err());
        open().allow(vec!["10.1.0.0/16".parse().unwrap()]);
        assert!(open().rules().check("10.1.1.1".parse().unwrap()).is_ok());
        assert!(open().rules().check("10.1.2.1".parse().unwrap()).is_err(), "the platform's own stays closed");
        assert!(open().rules().check("127.0.0.1".parse().unwrap()).is_err(), "an interface's address");
        std::fs::write(&file, b"[\"0.0.0.0/0\"]").unwrap();
        assert!(open().rules().check("10.1.1.1".parse().unwrap()).is_err());
        open().allow(Vec::new());
        assert!(open().allowed().borrow().is_empty());
    }
}
