//! Simulated agents: the real protocol over real QUIC connections with identities of real enrolments, and
//! nothing behind it. An agent accepts every command at once and reports it as done. Many of them live in
//! one process and share a few sockets, so that one machine holds thousands.

mod agent;
mod fleet;

pub use agent::{Held, Identified, enrol};
pub use fleet::{Counts, Fleet};
