//! What one container's relaying should be, and how the relay's word for it is told to the control plane.

use hoody_protocol::{
    bounded::{List, Text, TooLong},
    container::Cause,
    egress::{self, EgressStatus},
    id::ContainerId,
};
use hoody_proxy::control::{self, Health};
use ipnet::IpNet;
use sha2::{Digest, Sha256};
use std::net::Ipv4Addr;

/// A container's relaying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relayed {
    pub(super) address: Ipv4Addr,
    pub(super) upstream: egress::Upstream,
}

impl Relayed {
    /// The relay's form of it. Its revision is a digest of the content, so that an agent that comes back knows
    /// whether the relay has this already; the platform's `own` addresses are not part of it.
    pub(super) fn for_relay(
        &self,
        container: ContainerId,
        allowed: &[IpNet],
        own: Vec<IpNet>,
    ) -> Result<control::Egress, TooLong> {
        let upstream = &self.upstream;
        let credentials = match &upstream.credentials {
            Some(credentials) => Some(control::Credentials {
                user: control::Secret::try_from(credentials.username.to_string())?,
                password: control::Secret::try_from(credentials.password.to_string())?,
            }),
            None => None,
        };
        let dns: Vec<_> = upstream.dns.iter().map(|server| (*server).into()).collect();
        Ok(control::Egress {
            container,
            address: self.address,
            revision: self.revision(allowed),
            policy: control::Policy {
                upstream: control::Upstream {
                    kind: match upstream.kind {
                        egress::UpstreamKind::Socks5 => control::UpstreamKind::Socks5,
                        egress::UpstreamKind::Http => control::UpstreamKind::Http,
                        egress::UpstreamKind::Https => control::UpstreamKind::Https,
                    },
                    host: Text::try_from(upstream.host.as_str())?,
                    port: upstream.port,
                    credentials,
                    server_name: None,
                },
                dns_servers: dns.try_into()?,
                allowed: allowed.to_vec().try_into()?,
                own: List::try_from(own)?,
            },
        })
    }

    pub(super) fn revision(&self, allowed: &[IpNet]) -> u64 {
        let content = serde_json::to_vec(&(self.address, &self.upstream, allowed)).expect("plain data always encodes");
        let digest: [u8; 32] = Sha256::digest(content).into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// Why nothing leaves: the relay does not run, or does not answer.
pub(super) fn relay_away() -> EgressStatus {
    not_working("relay_unavailable", "the server's relay is not available: nothing leaves until it is back")
}

/// Why nothing leaves: the relay was not given the container's sockets.
pub(super) fn not_handed_over() -> EgressStatus {
    not_working(
        "relay_refused",
        "the server's relay did not take the container over: nothing leaves; it is tried again",
    )
}

fn not_working(code: &str, message: &str) -> EgressStatus {
    EgressStatus { working: false, cause: Some(Cause::new(code, message)) }
}

/// The relay's word for an upstream.
pub(super) fn told(health: &Health) -> EgressStatus {
    match health {
        Health::Untried | Health::Ok => EgressStatus { working: true, cause: None },
        Health::Failing { cause, message, .. } => not_working(cause.name(), message),
    }
}
