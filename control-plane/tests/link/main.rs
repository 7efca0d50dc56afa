//! The link from the control plane's side: a real listener on a real store, and a test agent that speaks
//! the real protocol. What the agent does wrong here, it does on purpose.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    missing_debug_implementations,
    reason = "this is no library, and a panic is its message"
)]

mod agent;
mod blobs;
mod commands;
mod dispatch;
mod enrolment;
mod exports;
mod frames;
mod hello;
mod hostile;
mod inspection;
mod plane;
mod replicas;
mod reports;
mod rotation;
mod transfers;
mod twins;
