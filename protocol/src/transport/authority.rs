//! The certificate authority of a control plane: nodes and the control plane itself are known by
//! certificates of it, and by nothing else.

use super::{
    Identity, SERVER_NAME,
    identity::{IdentityError, NODE_URI, NodeKey, PublicKey, generate_node_key},
    replica::replica_name,
};
use crate::{id::ServerId, image::Digest};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use std::time::{Duration, SystemTime};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

const DAY_S: u64 = 24 * 60 * 60;

/// Validity of the authority's own certificate: ten years.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(3653 * DAY_S);
/// Validity of a node's certificate.
pub const NODE_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(30 * DAY_S);
/// Age at which a node's certificate is renewed: two thirds of its validity.
pub const RENEW_AFTER: Duration = Duration::from_secs(20 * DAY_S);
/// Certificates begin this much in the past, for clocks that are behind.
const BACKDATE: Duration = Duration::from_secs(60 * 60);
/// Random bytes of a serial number (RFC 5280 allows 20 with a positive sign).
const SERIAL_BYTES: usize = 16;
/// Characters of the key that the authority's name carries.
const NAME_CHARS: usize = 16;

/// Why the authority could not do it.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The request or key is not acceptable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate could not be made.
    #[error("make a certificate")]
    Certificate(#[from] rcgen::Error),
}

/// A certificate authority with its key.
#[derive(Debug)]
pub struct Authority {
    certificate: CertificateDer<'static>,
    key: NodeKey,
}

impl Authority {
    /// A new authority, self-signed.
    pub fn create(now: SystemTime) -> Result<Self, AuthorityError> {
        let key = generate_node_key()?;
        let mut params = params(now, AUTHORITY_LIFETIME);
        // Each authority has a name of its own, so that a certificate of another one is reported as that
        // and not as a forged signature.
        params.distinguished_name.push(DnType::CommonName, name(&key));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(key.pair())?;
        Ok(Self { certificate: certificate.der().clone(), key })
    }

    /// The authority with this certificate (DER) and key (PKCS #8 DER), as they were stored.
    pub fn open(certificate: Vec<u8>, pkcs8: &[u8]) -> Result<Self, AuthorityError> {
        let authority = Self { certificate: certificate.into(), key: NodeKey::from_pkcs8(pkcs8)? };
        authority.issuer()?;
        Ok(authority)
    }

    /// The certificate, DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The name that certificates of this authority carry as their issuer's; another one for every authority.
    pub fn name(&self) -> String {
        name(&self.key)
    }

    /// The key, PKCS #8 DER, to be stored sealed.
    pub fn pkcs8(&self) -> &[u8] {
        self.key.pkcs8()
    }

    /// What a join token carries: nodes trust the certificate with this digest and no other.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.certificate)
    }

    /// Issues a node's certificate; the chain, leaf first.
    pub fn issue_node(
        &self,
        server: ServerId,
        key: &PublicKey,
        now: SystemTime,
    ) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        let mut params = params(now, NODE_CERTIFICATE_LIFETIME);
        params.distinguished_name.push(DnType::CommonName, server.to_string());
        params.subject_alt_names = vec![SanType::URI(format!("{NODE_URI}{server}").try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(key, &self.issuer()?)?;
        Ok(vec![leaf.der().clone(), self.certificate.clone()])
    }

    /// Issues the control plane's own certificate, with a new key that is kept nowhere.
    pub fn issue_server(&self, lifetime: Duration, now: SystemTime) -> Result<Identity, AuthorityError> {
        let key = generate_node_key()?;
        let mut params = params(now, lifetime);
        params.distinguished_name.push(DnType::CommonName, SERVER_NAME);
        params.subject_alt_names = vec![SanType::DnsName(SERVER_NAME.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(key.pair(), &self.issuer()?)?;
        Ok(Identity { chain: vec![leaf.der().clone(), self.certificate.clone()], key: key.private() })
    }

    /// Issues the certificate by which a replica of the control plane is known to the others, with a new key that is
    /// kept nowhere. It names no node, and not the control plane either, so that it is neither's.
    pub fn issue_replica(
        &self,
        replica: &str,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Identity, AuthorityError> {
        let (key, name) = (generate_node_key()?, replica_name(replica));
        let mut params = params(now, lifetime);
        params.distinguished_name.push(DnType::CommonName, name.clone());
        params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(key.pair(), &self.issuer()?)?;
        Ok(Identity { chain: vec![leaf.der().clone(), self.certificate.clone()], key: key.private() })
    }

    fn issuer(&self) -> Result<Issuer<'_, &KeyPair>, AuthorityError> {
        Ok(Issuer::from_ca_cert_der(&self.certificate, self.key.pair())?)
    }
}

fn name(key: &NodeKey) -> String {
    format!("hoody control plane {}", &key.public_key().to_string()[..NAME_CHARS])
}

/// What all certificates have in common: validity around `now`, a random serial number, no subject.
fn params(now: SystemTime, lifetime: Duration) -> CertificateParams {
    let mut serial: [u8; SERIAL_BYTES] = rand::random();
    // Positive and without a leading zero byte, as RFC 5280 and DER want it.
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + lifetime).into();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

/// Checks a signing request (PKCS #10, DER): an Ed25519 key, and signed by it. Subject and extensions
/// are not looked at: they decide nothing.
pub fn verify_signing_request(der: &[u8]) -> Result<PublicKey, IdentityError> {
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|error| IdentityError::Encoding(error.to_string()))?;
    if !rest.is_empty() {
        return Err(IdentityError::Encoding(format!("{} bytes after the signing request", rest.len())));
    }
    let key = PublicKey::of_spki(&request.certification_request_info.subject_pki)?;
    request.verify_signature().map_err(|_| IdentityError::Signature)?;
    Ok(key)
}
