//! TLS configurations and certificate verifiers of both sides.

use super::{
    ENROL, SERVER_NAME,
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

/// The control plane's side. Clients may show a certificate; one that is shown must verify.
pub(super) fn server(
    identity: Identity,
    authorities: &[CertificateDer<'static>],
    check: Arc<dyn PeerCheck>,
) -> Result<ServerConfig, TransportError> {
    let provider = provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(authorities)?, provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| TransportError::Verifier(Box::new(error)))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(NodeVerifier { chain: verifier, check }))
        .with_single_cert(identity.chain, identity.key)?;
    config.alpn_protocols = [super::NODE, super::BULK, ENROL].map(<[u8]>::to_vec).to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The node's side of an ordinary connection: the server is verified by authority and name.
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

/// Verifies a node's certificate: chain to the authority, validity, client usage, the name of one
/// node, an Ed25519 key; then asks the check.
#[derive(Debug)]
struct NodeVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    check: Arc<dyn PeerCheck>,
}

impl ClientCertVerifier for NodeVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        // Enrolment has none; for the other protocols see `admit`.
        false
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
        let peer = certificate_identity(leaf).map_err(|error| match error {
            IdentityError::Encoding(_) => CertificateError::BadEncoding,
            _ => CertificateError::ApplicationVerificationFailure,
        })?;
        self.check.check(&peer).map_err(|PeerRefused| CertificateError::Revoked)?;
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
