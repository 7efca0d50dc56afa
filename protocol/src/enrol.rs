//! Enrolment and renewal of a node's certificate.

use crate::{
    bounded::{Bytes, List, Text},
    container::Cause,
    id::ServerId,
};
use serde::{Deserialize, Serialize};

/// Bytes of a certificate or signing request in DER.
pub const MAX_DER: usize = 16 << 10;

/// Asks for the first certificate; sent on a connection without a client certificate.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// The secret of a join token.
    pub secret: Text<128>,
    /// PKCS #10 request, DER, signed by the node's Ed25519 key.
    pub csr: Bytes<MAX_DER>,
    /// Version of the agent.
    pub agent_version: Text<64>,
}

impl std::fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrolRequest").field("agent_version", &self.agent_version).finish_non_exhaustive()
    }
}

/// Asks for the next certificate; sent over the live link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// PKCS #10 request, DER, signed by the key of the present certificate.
    pub csr: Bytes<MAX_DER>,
}

/// The answer to both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnrolReply {
    /// A certificate was issued.
    Issued {
        /// The node's identity, also in the certificate.
        server: ServerId,
        /// The certificate and what leads to the authority, DER, leaf first.
        chain: List<Bytes<MAX_DER>, 4>,
        /// Certificates of the authority that the control plane is verified by, DER.
        authorities: List<Bytes<MAX_DER>, 4>,
    },
    /// No certificate; the cause says what to do.
    Refused(Cause),
}
