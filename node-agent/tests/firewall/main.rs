//! The firewall against the real kernel: real packets between network namespaces.

mod access;
mod connections;
mod counters;
mod drift;
mod isolation;
mod probe;
mod speed;
mod world;
