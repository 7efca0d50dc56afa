//! Response signatures: Ed25519 over `<unix seconds>\n<METHOD>\n<status>\n<path>\n<body>`.

use super::{KeyError, KeyPair, signing_key};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ed25519_dalek::{Signer, SigningKey};

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

/// Signs responses.
pub struct ResponseKey {
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

    /// The value of `X-Hoody-Signature`. `path` is the path as requested, without the query.
    pub fn sign(&self, unix_s: u64, method: &str, status: u16, path: &str, body: &[u8]) -> String {
        let mut signed = format!("{unix_s}\n{method}\n{status}\n{path}\n").into_bytes();
        signed.extend_from_slice(body);
        let signature = hex::encode(self.key.sign(&signed).to_bytes());
        format!("t={unix_s},kid={},m={method},s={status},path={path},sig={signature}", self.kid)
    }

    /// What verifies the signatures.
    pub fn public(&self) -> PublicKey {
        let bytes = self.key.verifying_key().to_bytes();
        PublicKey {
            kid: self.kid.clone(),
            hex: hex::encode(bytes),
            base64: STANDARD.encode(bytes),
            base64url: URL_SAFE_NO_PAD.encode(bytes),
        }
    }
}
