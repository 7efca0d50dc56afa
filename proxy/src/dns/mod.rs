//! DNS: every query to port 53, whatever server it names, is answered through the upstream, over TCP.

mod connection;
mod exchange;
pub(crate) mod message;
mod serve;

pub(crate) use exchange::Servers;
pub(crate) use serve::{serve_connection, serve_packet};

/// Where DNS is taken.
pub(crate) const PORT: u16 = 53;
