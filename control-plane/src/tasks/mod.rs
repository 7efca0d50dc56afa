//! Background work.

pub mod blobs;
pub mod retention;
pub mod token_uses;
