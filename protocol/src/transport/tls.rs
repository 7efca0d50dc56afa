//! TLS configurations and certificate verifiers of both sides.

use super::{
    ENROL, REPLICA, REPLICA_BULK, ReplicaPeer, SERVER_NAME,
    identity::{Identity, IdentityError, PeerIdentity, certificate_identity},
};
use crate::image::Digest;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};
use std::{fmt, sync::Arc};

/// Why a transport configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A certificate or key is not usable.
    #[error("certificate or key")]
    Tls(#[from] Error),
    /// The authorities are not usable to verify clients by.
    #[error("verify clients by the authority")]
    Verifier(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The provider has no cipher suite for QUIC's first packets.
    #[error("no cipher suite for QUIC")]
    Suite,
}

/// Asked during the handshake about every certificate of a node, after it was verified.
pub trait PeerCheck: fmt::Debug + Send + Sync {
    /// Refuses the peer, or lets the handshake go on.
    fn check(&self, peer: &PeerIdentity) -> Result<(), PeerRefused>;
}

/// The check refused the peer; it sees the alert "certificate revoked".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerRefused;

/// Refuses nobody whose certificate verifies.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnyPeer;

impl PeerCheck for AnyPeer {
    fn check(&self, _: &PeerIdentity) -> Result<(), PeerRefused> {
        Ok(())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn roots(authorities: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    Ok(Arc::new(roots))
}

/// The control plane's side. Clients may show a certificate; one that is shown must be a node's, and pass the check.
pub(super) fn server(
    identity: Identity,
    authorities: &[CertificateDer<'static>],
    check: Arc<dyn PeerCheck>,
) -> Result<ServerConfig, TransportError> {
    let is_node = move |leaf: &CertificateDer<'_>| {
        let peer = certificate_identity(leaf).map_err(not_its_kind)?;
        check.check(&peer).map_err(|PeerRefused| CertificateError::Revoked.into())
    };
    // Enrolment has none; for the other protocols see `admit`.
    let verifier = ClientVerifier::new(authorities, false, Box::new(is_node))?;
    listener(identity, verifier, &[super::NODE, super::BULK, ENROL])
}

/// A replica's side towards the others: who shows no certificate of a replica does not get in.
pub(super) fn replica_server(
    identity: Identity,
    authorities: &[CertificateDer<'static>],
) -> Result<ServerConfig, TransportError> {
    let is_replica = |leaf: &CertificateDer<'_>| ReplicaPeer::of(leaf).map(drop).map_err(not_its_kind);
    let verifier = ClientVerifier::new(authorities, true, Box::new(is_replica))?;
    listener(identity, verifier, &[REPLICA, REPLICA_BULK])
}

fn listener(identity: Identity, verifier: ClientVerifier, protocols: &[&[u8]]) -> Result<ServerConfig, TransportError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(identity.chain, identity.key)?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The dialling side of an ordinary connection: the server is verified by authority and name.
pub(super) fn client(
    identity: Option<&Identity>,
    authorities: &[CertificateDer<'static>],
    alpn: &[u8],
) -> Result<ClientConfig, TransportError> {
    let provider = provider();
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(authorities)?, provider.clone())
        .build()
        .map_err(|error| TransportError::Verifier(Box::new(error)))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match identity {
        Some(identity) => config.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?,
        None => config.with_no_client_auth(),
    };
    Ok(finish_client(config, alpn))
}

/// The node's side of enrolment: the server is verified by the digest of its authority.
pub(super) fn enrol_client(authority: Digest) -> Result<ClientConfig, TransportError> {
    let provider = provider();
    let verifier = PinnedAuthority { authority, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(finish_client(config, ENROL))
}

fn finish_client(mut config: ClientConfig, alpn: &[u8]) -> ClientConfig {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config
}

/// What is asked of a client's certificate after chain, validity and usage were verified.
type Further = Box<dyn Fn(&CertificateDer<'_>) -> Result<(), Error> + Send + Sync>;

fn not_its_kind(error: IdentityError) -> Error {
    match error {
        IdentityError::Encoding(_) => CertificateError::BadEncoding.into(),
        _ => CertificateError::ApplicationVerificationFailure.into(),
    }
}

/// Verifies a client's certificate: chain to the authority, validity, client usage; then what else is asked of it, such
/// as whom it names.
struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    mandatory: bool,
    further: Further,
}

impl ClientVerifier {
    fn new(authorities: &[CertificateDer<'static>], mandatory: bool, further: Further) -> Result<Self, TransportError> {
        let chain = WebPkiClientVerifier::builder_with_provider(roots(authorities)?, provider())
            .build()
            .map_err(|error| TransportError::Verifier(Box::new(error)))?;
        Ok(Self { chain, mandatory, further })
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier").field("mandatory", &self.mandatory).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(leaf, intermediates, now)?;
        (self.further)(leaf)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Trusts exactly the authority whose certificate has this digest; the server sends that certificate
/// in its chain.
#[derive(Debug)]
struct PinnedAuthority {
    authority: Digest,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| Digest::of(certificate) == self.authority)
            .ok_or(CertificateError::UnknownIssuer)?;
        let roots = roots(&[authority.clone().into_owned()])?;
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, algorithms)?;
        let name = ServerName::try_from(SERVER_NAME).map_err(|_| Error::General("server name".to_owned()))?;
        verify_server_name(&parsed, &name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // Never asked: TLS 1.3 is the only version offered.
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Authority;
    use std::time::{Duration, SystemTime};

    #[test]
    fn nobody_comes_back_by_a_ticket_or_is_heard_before_the_handshake() {
        let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 60 * 60));
        let authority = Authority::create(now).unwrap();
        let trusted = [authority.certificate().clone()];
        for config in [
            server(authority.issue_server(day, now).unwrap(), &trusted, Arc::new(AnyPeer)).unwrap(),
            replica_server(authority.issue_replica("one", day, now).unwrap(), &trusted).unwrap(),
        ] {
            assert_eq!((config.send_tls13_tickets, config.max_early_data_size), (0, 0));
            assert!(!config.session_storage.can_cache());
        }
    }
}
