//! What holds for a container now: its policy, and the upstream that the policy names.

use crate::{
    control::Egress,
    dns::{Servers, Told},
    shared::Shared,
    upstream::Session,
};
use hoody_protocol::address::DialRules;
use std::sync::Arc;

/// A container's policy in force. Connections keep the one with which they began, as long as its session lasts.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) shared: Arc<Shared>,
    pub(crate) egress: Egress,
    pub(crate) rules: DialRules,
    pub(crate) session: Arc<Session>,
    pub(crate) servers: Servers,
    pub(crate) told: Told,
}

impl Route {
    /// The health of the container's upstream changed.
    pub(crate) fn announce(&self) {
        self.shared.announce(self.egress.container);
    }
}
