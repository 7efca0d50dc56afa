//! The contract between the control plane and the node agent: identifiers, messages, the frame
//! codec, protocol versions and the TLS and QUIC configuration of both sides.
//!
//! Everything except [`transport`] and [`stream`] is pure data and code without sockets, so that it
//! is tested with plain bytes. Every type that arrives from a peer bounds its collections while it is
//! being decoded ([`bounded`]) and refuses what its invariants exclude: a decoded value is valid.

pub mod address;
pub mod blob;
pub mod bounded;
pub mod codec;
pub mod command;
pub mod container;
pub mod egress;
pub mod enrol;
pub mod exec;
pub mod export;
pub mod firewall;
pub mod flow;
pub mod id;
pub mod image;
pub mod inspection;
pub mod join_token;
pub mod link;
pub mod logs;
pub mod operation;
pub mod replica;
pub mod share;
pub mod snapshot;
pub mod ssh_key;
pub mod stats;
pub mod stream;
pub mod stream_digest;
pub mod tag;
pub mod time;
pub mod transfer;
pub mod transport;
pub mod version;
