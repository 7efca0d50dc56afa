//! Background work.

pub mod blobs;
pub mod token_uses;
