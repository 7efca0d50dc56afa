//! Who a side is: a node's key, its certificate, and what a peer's certificate says.

use crate::{id::ServerId, time::UnixMs};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ED25519, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::{fmt, str::FromStr};
use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    oid_registry::OID_SIG_ED25519,
    prelude::{FromDer, X509Certificate},
    x509::SubjectPublicKeyInfo,
};

/// Prefix of the SAN URI that carries a node's identity; the server id follows.
pub(super) const NODE_URI: &str = "hoody://node/";

/// Bytes of an Ed25519 public key.
const PUBLIC_KEY_BYTES: usize = 32;

/// A certificate chain, leaf first, with its key.
pub struct Identity {
    /// The certificates, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key.
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    /// The identity of a node: its certificates as the control plane issued them, and its key.
    pub fn of_node(chain: Vec<CertificateDer<'static>>, key: &NodeKey) -> Self {
        Self { chain, key: key.private() }
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

/// An Ed25519 public key; its text form is 64 lowercase hexadecimal characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; PUBLIC_KEY_BYTES]);

impl PublicKey {
    /// The key's bytes (RFC 8032).
    pub const fn as_bytes(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        &self.0
    }

    pub(super) fn of_spki(info: &SubjectPublicKeyInfo<'_>) -> Result<Self, IdentityError> {
        if info.algorithm.algorithm != OID_SIG_ED25519 {
            return Err(IdentityError::NotEd25519);
        }
        let bytes = info.subject_public_key.data.as_ref();
        bytes.try_into().map(Self).map_err(|_| IdentityError::NotEd25519)
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let mut bytes = [0; PUBLIC_KEY_BYTES];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| IdentityError::NotEd25519)?;
        Ok(Self(bytes))
    }
}

/// What a peer's certificate says of it, after the certificate was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The node.
    pub server: ServerId,
    /// Its key.
    pub public_key: PublicKey,
    /// End of the certificate's validity.
    pub not_after: UnixMs,
    /// Serial number of the certificate, hexadecimal.
    pub serial: String,
    /// Name of the authority that issued it, as [`super::Authority::name`] gives it.
    pub issuer: String,
}

/// Why a certificate, request or key is not one of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not DER of the expected form.
    #[error("not valid X.509: {0}")]
    Encoding(String),
    /// Only Ed25519 keys are used.
    #[error("the key is not an Ed25519 key")]
    NotEd25519,
    /// The SAN extension has not exactly one name of the form `hoody://node/<server id>`.
    #[error("the certificate does not name exactly one node")]
    NoNode,
    /// The SAN extension has not exactly one name of the form `<replica id>.replica.hoody.internal`.
    #[error("the certificate does not name exactly one replica")]
    NoReplica,
    /// The peer showed no certificate.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// The signature over the signing request is not of the key in it.
    #[error("the signature of the signing request is not valid")]
    Signature,
    /// The key could not be made or used.
    #[error("key: {0}")]
    Key(String),
}

/// Reads a node's identity from its (already verified) certificate.
pub fn certificate_identity(certificate: &CertificateDer<'_>) -> Result<PeerIdentity, IdentityError> {
    let parsed = parse(certificate)?;
    let Some([GeneralName::URI(uri)]) = names(&parsed) else { return Err(IdentityError::NoNode) };
    let server = uri.strip_prefix(NODE_URI).and_then(|id| id.parse::<ServerId>().ok()).ok_or(IdentityError::NoNode)?;
    Ok(PeerIdentity {
        server,
        public_key: PublicKey::of_spki(parsed.public_key())?,
        not_after: not_after(&parsed),
        serial: hex::encode(parsed.raw_serial()),
        issuer: parsed.issuer().iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or("").to_owned(),
    })
}

pub(super) fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, IdentityError> {
    let (rest, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| IdentityError::Encoding(error.to_string()))?;
    if !rest.is_empty() {
        return Err(IdentityError::Encoding(format!("{} bytes after the certificate", rest.len())));
    }
    Ok(parsed)
}

/// The alternative names of the certificate's subject.
pub(super) fn names<'a>(parsed: &'a X509Certificate<'a>) -> Option<&'a [GeneralName<'a>]> {
    parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(names.general_names.as_slice()),
        _ => None,
    })
}

pub(super) fn not_after(parsed: &X509Certificate<'_>) -> UnixMs {
    u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0).saturating_mul(1000)
}

/// A node's private key. It never leaves the server that made it.
pub struct NodeKey(KeyPair);

impl NodeKey {
    /// Reads the key back from PKCS #8 DER.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, IdentityError> {
        KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519)
            .map(Self)
            .map_err(|error| IdentityError::Key(error.to_string()))
    }

    /// The key as PKCS #8 DER, to be stored where only root reads.
    pub fn pkcs8(&self) -> &[u8] {
        self.0.serialized_der()
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        let mut bytes = [0; PUBLIC_KEY_BYTES];
        // An Ed25519 key pair has a public key of exactly this length.
        bytes.copy_from_slice(self.0.public_key_raw());
        PublicKey(bytes)
    }

    pub(super) fn pair(&self) -> &KeyPair {
        &self.0
    }

    pub(super) fn private(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeKey").field(&self.public_key()).finish()
    }
}

/// A new Ed25519 key.
pub fn generate_node_key() -> Result<NodeKey, IdentityError> {
    KeyPair::generate_for(&PKCS_ED25519).map(NodeKey).map_err(|error| IdentityError::Key(error.to_string()))
}

/// A signing request (PKCS #10, DER) for the key. It says nothing but the key: who the node is, the
/// control plane decides.
pub fn signing_request(key: &NodeKey) -> Result<Vec<u8>, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(key.pair()).map_err(|error| IdentityError::Key(error.to_string()))?;
    Ok(request.der().to_vec())
}
