//! Authorise, validate, orchestrate.
pub mod firewall;
