//! Connections that outlive their request are told when something took place that may change what their caller may do,
//! so that they look at it at once. Only a hint: they look from time to time all the same.

use super::hub::Live;
use crate::event::{Event, EventKind, ResourceKind};
use hoody_protocol::id::UserId;
use std::sync::Arc;
use tokio::sync::Notify;

/// Told of what may change the rights of somebody. Dropping it ends it.
#[derive(Debug)]
pub struct Witness {
    live: Live,
    id: u64,
    users: [UserId; 2],
    changed: Arc<Notify>,
}

impl Witness {
    pub(super) fn new(live: Live, id: u64, users: [UserId; 2], changed: Arc<Notify>) -> Self {
        Self { live, id, users, changed }
    }

    /// Returns once something took place since it last returned. May be dropped while it waits.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.live.dismiss(self.id, self.users);
    }
}

/// Sessions and auth tokens that end, accounts that are changed, projects that are shared with fewer.
pub(super) fn about_rights(event: &Event) -> bool {
    event.kind == EventKind::ActivityLogged
        || matches!(event.kind.resource(), ResourceKind::User | ResourceKind::AuthToken | ResourceKind::Project)
}
