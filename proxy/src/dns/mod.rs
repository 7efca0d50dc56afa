//! DNS: every query to port 53, whatever server it names, is answered through the upstream, over TCP.

mod addresses;
mod connection;
mod exchange;
pub(crate) mod message;
mod serve;
mod told;

pub use addresses::Addresses;
pub(crate) use exchange::{Servers, resolve};
pub use message::Query;
pub(crate) use serve::{serve_connection, serve_packet};
pub(crate) use told::Told;

/// Where DNS is taken.
pub(crate) const PORT: u16 = 53;
