//! Send streams between two places of a real pool: what arrives is what was sent, and what is made by hand gets
//! nowhere. Needs root, mkfs.btrfs, btrfs.

#![allow(clippy::unwrap_used, unreachable_pub, missing_debug_implementations, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod crafted;
mod difference;
mod fixture;
mod hostile;
mod leftovers;
mod whole;
