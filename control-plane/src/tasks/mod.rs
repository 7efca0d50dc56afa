//! Background work.

pub mod blobs;
