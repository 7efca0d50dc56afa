//! Authorise, validate, orchestrate.

pub mod image;
