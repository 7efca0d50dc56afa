//! What the folders of a pool are called, and how long steps on it may take.

use std::time::Duration;

/// Root file systems, by container.
pub(crate) const CONTAINERS: &str = "containers";
/// Snapshots of each container.
pub(crate) const SNAPSHOTS: &str = "snapshots";
/// What was sent and received, by container.
pub(super) const TRANSFERS: &str = "transfers";
/// What is being exported.
pub(super) const EXPORTS: &str = "exports";

/// To look at something, or to change its limit.
pub(super) const LOOKUP_DEADLINE: Duration = Duration::from_secs(15);
/// To make a subvolume or a snapshot, which waits for the commit of a transaction that others write into.
pub(super) const CREATE_DEADLINE: Duration = Duration::from_secs(60);
/// To delete a subvolume, which may have to commit once for each that is nested in it.
pub(super) const DELETE_DEADLINE: Duration = Duration::from_secs(120);
