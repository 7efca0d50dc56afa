//! The container's SSH key: put into its file before each start, and again when it changes while it runs. A key that
//! cannot be placed keeps nothing from running: it is reported, and tried again with every pass.

use super::owner::Cell;
use crate::desired::record::Record;
use hoody_protocol::{bounded::Text, container::Cause, ssh_key};

/// What a specification says of the key.
pub(super) type SshKey = Option<Text<{ ssh_key::MAX_BYTES }>>;

/// Puts the key in where the file is not known to have it.
pub(super) async fn keep(cell: &Cell, record: &Record) {
    if cell.enforced().ssh_key.as_ref() != Some(&record.spec.ssh_public_key) {
        place(cell, record).await;
    }
}

/// Puts the key in, whatever the file had.
pub(super) async fn place(cell: &Cell, record: &Record) {
    let spec = &record.spec;
    match cell.context.capabilities.storage.place_ssh_key(spec.id, spec.ssh_public_key.as_deref()).await {
        Ok(()) => cell.set_enforced(|enforced| {
            enforced.ssh_key = Some(spec.ssh_public_key.clone());
            enforced.ssh_key_error = None;
        }),
        Err(error) => {
            tracing::warn!(container = %spec.id, error = &error as &dyn std::error::Error, "the SSH key was not placed");
            let message = "the SSH key could not be written to /root/.ssh/authorized_keys: it must be a plain file of at \
                most 256 KiB in plain folders, with room on the disk";
            let cause = Cause::new("ssh_key_not_placed", message);
            cell.set_enforced(|enforced| {
                enforced.ssh_key = None;
                enforced.ssh_key_error = Some((spec.version, cause));
            });
        }
    }
}
