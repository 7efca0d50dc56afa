//! The egress relay: takes what containers send, TCP, DNS and other UDP, and carries it through the proxy that the
//! tenant chose. It runs unprivileged beside the agent, which hands it the sockets, and outlives it.
//!
//! [`control`] is what both programs share.

pub mod control;
