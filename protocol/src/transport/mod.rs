//! QUIC and TLS of both sides, and the certificates that they show each other.
//!
//! One UDP listener serves three protocols, told apart by ALPN: [`NODE`] and [`BULK`] ask for a
//! certificate of a node, [`ENROL`] is the only one without. TLS asks every client for a certificate
//! and lets it have none; [`admit`] then decides by protocol, before the first stream is accepted.
//!
//! Invariants: TLS 1.3 only; no session resumption and no 0-RTT on either side, so that every
//! connection asks the verifier (a ticket would let a revoked node back in unasked); windows and
//! stream counts are explicit.

mod authority;
mod close;
mod endpoint;
mod identity;
mod quic;
mod replica;
mod socket;
mod tls;

pub use authority::{Authority, AuthorityError, NODE_CERTIFICATE_LIFETIME, RENEW_AFTER, verify_signing_request};
pub use close::Close;
pub use endpoint::{RESET_SECRET_BYTES, dialler, listen};
pub use identity::{
    Identity, IdentityError, NodeKey, PeerIdentity, PublicKey, certificate_identity, generate_node_key, signing_request,
};
pub use quic::{
    AdmitError, Admitted, COMMAND_STREAMS, EXEC_STREAMS, IDLE_TIMEOUT, KEEP_ALIVE, admit, client_config,
    enrol_client_config, peer_identity, server_config,
};
pub use replica::{
    REPLICA, REPLICA_BULK, REPLICA_BULK_STREAMS, REPLICA_STREAMS, ReplicaPeer, admit_replica, replica_client_config,
    replica_name, replica_server_config,
};
pub use rustls::pki_types::{CertificateDer, PrivateKeyDer};
pub use tls::{AnyPeer, PeerCheck, PeerRefused, TransportError};

/// ALPN of the link: control stream, commands, reports.
pub const NODE: &[u8] = b"hoody-node/1";
/// ALPN of the second connection of a node, for bulk transfer.
pub const BULK: &[u8] = b"hoody-bulk/1";
/// ALPN of enrolment: the only one without a client certificate.
pub const ENROL: &[u8] = b"hoody-enrol/1";

/// The name in the control plane's certificate. Fixed, because the control plane is known by its
/// authority, wherever it is reached.
pub const SERVER_NAME: &str = "control-plane.hoody.internal";

#[cfg(test)]
mod replica_tests;
#[cfg(test)]
mod tests;
