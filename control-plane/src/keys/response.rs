//! Response signatures: Ed25519 over `<unix seconds>\n<METHOD>\n<status>\n<path>\n<body>`, and claims: Ed25519 over
//! a JSON object. The first byte tells the two apart (a digit, a brace), so neither can be taken for the other.

use super::{
    KeyError, KeyPair,
    ring::{Dated, Ring},
    signing_key,
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ed25519_dalek::{Signer, SigningKey};
use hoody_protocol::time::now_ms;

/// A public key in the forms that clients ask for.
#[derive(Debug, Clone)]
pub struct PublicKey {
    /// The key's id.
    pub kid: String,
    /// Hexadecimal.
    pub hex: String,
    /// Base64.
    pub base64: String,
    /// Base64 for URLs, without padding.
    pub base64url: String,
}

/// A signed statement that others can verify with the public key of this id.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct SignedClaim {
    /// The key's id.
    pub kid: String,
    /// The statement: JSON, base64.
    pub payload_b64: String,
    /// Ed25519 over the statement's bytes, hexadecimal.
    pub signature_hex: String,
}

/// One key.
pub(super) struct ResponseKey {
    kid: String,
    key: SigningKey,
}

impl std::fmt::Debug for ResponseKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl ResponseKey {
    pub(super) fn from_pair(pair: &KeyPair) -> Result<Self, KeyError> {
        let key = signing_key(&pair.secret)
            .ok_or_else(|| KeyError::Malformed { purpose: super::RESPONSE_SIGNING.to_owned() })?;
        Ok(Self { kid: pair.id.clone(), key })
    }

    fn public(&self) -> PublicKey {
        let bytes = self.key.verifying_key().to_bytes();
        PublicKey {
            kid: self.kid.clone(),
            hex: hex::encode(bytes),
            base64: STANDARD.encode(bytes),
            base64url: URL_SAFE_NO_PAD.encode(bytes),
        }
    }
}

/// Signs responses and claims.
#[derive(Debug)]
pub struct ResponseKeys(Ring<ResponseKey>);

impl ResponseKeys {
    pub(super) fn new(keys: Vec<Dated<ResponseKey>>) -> Result<Self, KeyError> {
        let ring = Ring::new(keys);
        ring.map(Self).ok_or_else(|| KeyError::Malformed { purpose: super::RESPONSE_SIGNING.to_owned() })
    }

    pub(super) fn replace(&self, keys: Vec<Dated<ResponseKey>>) {
        self.0.replace(keys);
    }

    /// The value of `X-Hoody-Signature`. `path` is the path as requested, without the query.
    pub fn sign(&self, unix_s: u64, method: &str, status: u16, path: &str, body: &[u8]) -> String {
        let mut signed = format!("{unix_s}\n{method}\n{status}\n{path}\n").into_bytes();
        signed.extend_from_slice(body);
        self.0.with_signing(now_ms() as i64, |ResponseKey { kid, key }| {
            let signature = hex::encode(key.sign(&signed).to_bytes());
            format!("t={unix_s},kid={kid},m={method},s={status},path={path},sig={signature}")
        })
    }

    /// Signs a claim: its payload is a JSON object.
    pub fn sign_claim(&self, payload: &serde_json::Map<String, serde_json::Value>) -> SignedClaim {
        let payload = serde_json::Value::Object(payload.clone()).to_string();
        self.0.with_signing(now_ms() as i64, |ResponseKey { kid, key }| SignedClaim {
            kid: kid.clone(),
            payload_b64: STANDARD.encode(&payload),
            signature_hex: hex::encode(key.sign(payload.as_bytes()).to_bytes()),
        })
    }

    /// The id of the key that signs now.
    pub fn active_kid(&self) -> String {
        self.0.with_signing(now_ms() as i64, |key| key.kid.clone())
    }

    /// What verifies signatures, newest first.
    pub fn public(&self) -> Vec<PublicKey> {
        self.0.all().iter().map(|dated| dated.key.public()).collect()
    }
}
