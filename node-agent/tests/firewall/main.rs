//! The firewall against the real kernel: real packets between network namespaces.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod access;
mod connections;
mod counters;
mod drift;
mod egress;
mod hosts;
mod isolation;
mod model;
mod ownership;
mod packet;
mod probe;
mod speed;
mod world;
