//! Sealing with XChaCha20-Poly1305: a random 24-byte nonce, and the purpose and id of what is sealed
//! authenticated with it, so that a sealed value copied elsewhere does not open there.

use base64::{Engine, engine::general_purpose::STANDARD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305,
    aead::{Aead, Payload},
};
use zeroize::Zeroizing;

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 32;
/// Bytes of a nonce.
const NONCE_BYTES: usize = 24;

/// A key that seals. Wiped when dropped, never shown.
#[derive(Clone)]
pub struct SealingKey(pub(super) Zeroizing<[u8; KEY_BYTES]>);

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey")
    }
}

impl SealingKey {
    /// A new random key.
    pub fn generate() -> Self {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(key.as_mut_slice());
        Self(key)
    }

    /// The key of these bytes; `None` where they are not as many as a key has.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(Zeroizing::new(bytes.try_into().ok()?)))
    }

    /// The key's bytes, to be sealed by another.
    pub fn expose(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Nonce and ciphertext, base64.
    pub fn seal(&self, purpose: &str, id: &str, secret: &[u8]) -> String {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let aad = associated(purpose, id);
        let sealed = self
            .cipher()
            .encrypt((&nonce).into(), Payload { msg: secret, aad: &aad })
            .expect("the cipher takes messages up to 256 GiB");
        STANDARD.encode([nonce.as_slice(), &sealed].concat())
    }

    /// The secret, unless another key, purpose or id sealed it, or it was altered.
    pub fn open(&self, purpose: &str, id: &str, sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
        let bytes = STANDARD.decode(sealed).ok()?;
        let (nonce, ciphertext) = bytes.split_first_chunk::<NONCE_BYTES>()?;
        let aad = associated(purpose, id);
        self.cipher().decrypt(nonce.into(), Payload { msg: ciphertext, aad: &aad }).ok().map(Zeroizing::new)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }
}

/// Purpose and id, unambiguous: the purpose, a constant, contains no zero byte.
fn associated(purpose: &str, id: &str) -> Vec<u8> {
    [purpose.as_bytes(), &[0], id.as_bytes()].concat()
}
