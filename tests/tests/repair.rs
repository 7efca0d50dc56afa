//! What others damage on a server is repaired within one look at it, or the container is `failed` with a
//! cause, and starts again when the cause is gone. Either stands in the status log.

#[path = "repair/disks.rs"]
mod disks;
#[path = "repair/firewall.rs"]
mod firewall;
#[path = "repair/images.rs"]
mod images;
#[path = "repair/network.rs"]
mod network;
#[path = "repair/processes.rs"]
mod processes;

/// The agent looks every second, so that tests need not wait, and the firewall's table is one that others can change.
const LOOKS: &str = "drift_interval_s = 1\nown_nft_table = false";
