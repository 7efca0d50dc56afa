//! A container's egress: what its specification makes of its policy and of its relaying, and how that fares.
//!
//! The packet filter's policy is put in force before the relay is told, and taken back before the relay is: at
//! every instant in between, what finds no listener is dropped.

use super::{Reconciler, Shared, owner::Cell};
use crate::{desired::record::Record, egress::listener_address, firewall::Egress};
use hoody_protocol::egress::{EgressSpec, EgressStatus};
use std::sync::Weak;

/// What the packet filter lets leave.
pub(super) fn policy(record: &Record) -> Egress {
    match record.spec.egress {
        None => Egress::Direct,
        Some(EgressSpec::Block) => Egress::Block,
        Some(EgressSpec::Proxy(_)) => Egress::Proxy(listener_address(record.address)),
    }
}

/// Tells the relay what the specification says. Only where the policy that goes with it is in force: the relay of a
/// container that still is as it was before goes on as it was.
pub(super) async fn relay(cell: &Cell, record: &Record) {
    let enforced = cell.enforced().firewall.map(|(_, egress)| egress);
    if enforced != Some(policy(record)) {
        return;
    }
    let upstream = match &record.spec.egress {
        Some(EgressSpec::Proxy(upstream)) => Some(upstream),
        _ => None,
    };
    cell.context.capabilities.egress.set(record.spec.id, record.address, upstream).await;
    hoody_fault::point!("egress.set");
}

/// How it fares, for the report; `None` where nothing is asked for, or it is not in force.
pub(super) fn status(cell: &Cell, record: &Record) -> Option<EgressStatus> {
    let egress = record.spec.egress.as_ref()?;
    if cell.enforced().firewall.map(|(_, egress)| egress) != Some(policy(record)) {
        return None;
    }
    match egress {
        EgressSpec::Block => Some(EgressStatus { working: true, cause: None }),
        EgressSpec::Proxy(_) => cell.context.capabilities.egress.status(record.spec.id),
    }
}

/// Makes owners look, and report, when their relaying fares differently. Ends with the reconciler.
pub(super) async fn follow(reconciler: Weak<Shared>) {
    let Some(egress) = reconciler.upgrade().map(|shared| shared.context.capabilities.egress.clone()) else { return };
    loop {
        let id = egress.changed().await;
        let Some(shared) = reconciler.upgrade() else { return };
        Reconciler(shared).wake(id);
    }
}
