//! The real program between real proxies and a container's namespace with real packet filter rules. As root.

#![allow(clippy::unwrap_used, reason = "a panic is the message of a test")]

mod control;
mod crowd;
mod destination;
mod dns;
mod failures;
mod namespace;
mod tcp;
mod udp;
mod upstreams;
mod world;
