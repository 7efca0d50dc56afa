//! The host names in a container's rules, as they are in force.

use super::owner::Cell;
use crate::{desired::record::Record, firewall::Egress, names::Path};
use hoody_protocol::egress::EgressSpec;
use std::collections::BTreeSet;

/// Has the names resolved that the rules in force speak of.
pub(super) async fn resolve(cell: &Cell, record: &Record) {
    let Some((rules, egress)) = cell.enforced().firewall else { return };
    let enabled = rules.egress.iter().filter(|rule| rule.enabled);
    let mut hosts: BTreeSet<String> = enabled.filter_map(|rule| Some(rule.host.as_ref()?.to_string())).collect();
    let spec = &record.spec;
    let servers = if spec.dns.is_empty() { cell.context.settings.dns.clone() } else { spec.dns.to_vec() };
    let path = match (egress, &spec.egress) {
        (Egress::Proxy(_), Some(EgressSpec::Proxy(upstream))) => {
            Path::Proxy(Box::new(upstream.clone()), servers.first().copied())
        }
        (Egress::Direct, None) => Path::Direct(servers),
        // Nothing leaves, or the rules that go with the specification are not in force: nothing is asked.
        _ => {
            hosts.clear();
            Path::Direct(Vec::new())
        }
    };
    cell.context.capabilities.names.set(record.spec.id, hosts, path).await;
}

/// Ends it.
pub(super) async fn forget(cell: &Cell, record: &Record) {
    cell.context.capabilities.names.set(record.spec.id, BTreeSet::new(), Path::Direct(Vec::new())).await;
}
