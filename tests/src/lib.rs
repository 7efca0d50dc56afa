//! A cluster of the real binaries on one machine: the control plane, and servers that are network
//! namespaces, each with its own agent, state, btrfs pool, cgroup and addresses. Used by the black-box
//! tests, `make up`, `make demo` and the benchmarks.

pub mod api;
pub mod browser;
pub mod cluster;
pub mod contract;
pub mod damage;
pub mod deaths;
pub mod faults;
pub mod flood;
pub mod image;
pub mod ports;
pub mod postgres;
pub mod probe;
pub mod registry;
pub mod secrets;
pub mod simulated;
pub mod smtp;
pub mod soak;
pub mod totp;
pub mod traces;
pub mod traffic;
pub mod wait;
