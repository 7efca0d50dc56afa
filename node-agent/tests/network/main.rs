//! The network against the real kernel, as root, each test in throwaway namespaces.
#![allow(clippy::unwrap_used, reason = "a panic is the message of a test")]

mod crash_points;
mod fixture;
mod isolation;
mod link;
mod rate;
