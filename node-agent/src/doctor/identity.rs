//! Who the node is, and whether the control plane lets it in.

use super::{Check, chain};
use crate::{
    config::Config,
    link::{self, identity::IdentityStore},
};
use hoody_protocol::{
    time::{UnixMs, now_ms},
    transport,
};

const GROUP: &str = "control plane";
const JOIN: &str = "join with `hoody-agent join <token>`; the token comes from `hoody-control-plane admin join-token`";
/// Milliseconds in a day.
const DAY_MS: u64 = 24 * 3600 * 1000;

pub(super) async fn check(config: &Config) -> Vec<Check> {
    let node = match IdentityStore::new(config.identity_dir()).load() {
        Ok(Some(node)) => node,
        Ok(None) => {
            return vec![
                Check::warning(GROUP, "identity", "this server has not joined", JOIN),
                Check::ok(GROUP, "reachable", "skipped: this server has not joined"),
            ];
        }
        Err(error) => {
            let fix = format!("restore {} from a backup, or remove it and join again", config.identity_dir().display());
            return vec![Check::failed(GROUP, "identity", chain(&error), fix)];
        }
    };
    let mut checks = vec![Check::ok(GROUP, "identity", format!("server {}", node.server))];
    checks.push(match node.identity.chain.first().map(transport::certificate_identity) {
        Some(Ok(leaf)) => certificate(leaf.not_after, now_ms()),
        Some(Err(error)) => Check::failed(GROUP, "certificate", chain(&error), JOIN),
        None => Check::failed(GROUP, "certificate", "there is none", JOIN),
    });
    let addresses = node.addresses.join(", ");
    checks.push(match link::probe(&node).await {
        Ok(remote) => Check::ok(GROUP, "reachable", format!("{addresses} (at {remote})")),
        Err(error) => {
            let fix =
                "let UDP to it pass every firewall on the way, and see that it runs and has not revoked this server";
            Check::failed(GROUP, "reachable", format!("{addresses}: {}", chain(error.as_ref())), fix)
        }
    });
    checks
}

fn certificate(not_after: UnixMs, now: UnixMs) -> Check {
    let renewed_at = not_after
        .saturating_sub(transport::NODE_CERTIFICATE_LIFETIME.saturating_sub(transport::RENEW_AFTER).as_millis() as u64);
    let days = not_after.saturating_sub(now) / DAY_MS;
    if now >= not_after {
        let fix = "start the agent, which renews it with its key; where that is refused, join again";
        Check::failed(GROUP, "certificate", "expired", fix)
    } else if now >= renewed_at + DAY_MS {
        let fix = "see why the agent could not renew it: `hoody-agent status` and the agent's log say so";
        Check::warning(GROUP, "certificate", format!("expires in {days} days and was not renewed"), fix)
    } else {
        Check::ok(GROUP, "certificate", format!("valid for {days} days"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn a_certificate_is_valid_overdue_or_expired() {
        let end = 100 * DAY_MS;
        assert_eq!(certificate(end, end - 25 * DAY_MS).status, Status::Ok);
        assert_eq!(certificate(end, end - 3 * DAY_MS).status, Status::Warning);
        assert_eq!(certificate(end, end).status, Status::Failed);
    }
}
