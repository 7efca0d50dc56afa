//! Background work.

pub mod blobs;
pub mod expiry;
pub mod keys;
pub mod mail;
pub mod moves;
pub mod pulls;
pub mod retention;
pub mod shares;
pub mod snapshots;
pub mod token_uses;
