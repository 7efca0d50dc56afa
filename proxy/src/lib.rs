//! The egress relay: takes what containers send, TCP, DNS and other UDP, and carries it through the proxy that the
//! tenant chose. It runs unprivileged beside the agent, which hands it the sockets, and outlives it.
//!
//! [`control`] is what both programs share. Behind it: `containers` holds what the agent set; a container has a
//! route in force, which names an upstream's session; `tcp`, `dns` and `udp` take what comes and go through
//! `upstream`; `relay` moves the bytes. Nothing is ever dialled but upstreams.

pub mod config;
mod container;
mod containers;
pub mod control;
mod counts;
pub mod dns;
pub mod fuzzing;
pub mod program;
mod relay;
mod route;
mod shared;
mod tcp;
mod udp;
mod upstream;
