//! Connections through a tenant's proxy: the host is resolved and checked, connected to, spoken to in its own way, and
//! watched for whether it works.

pub(crate) mod dial;
mod error;
pub(crate) mod health;
mod http;
mod resolve;
pub(crate) mod session;
pub(crate) mod socks5;
mod stream;
mod tls;

pub(crate) use dial::{associate, connect};
pub(crate) use error::DialError;
pub(crate) use http::parse_response;
pub(crate) use session::Session;
pub(crate) use stream::{Stream, Transport};
pub(crate) use tls::TlsSettings;
