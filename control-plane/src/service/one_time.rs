//! Single-use tokens: 32 random bytes as 64 hexadecimal characters. They are random enough that a plain hash
//! of them cannot be searched; only the hash is stored.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Characters of a token.
pub const CHARS: usize = 64;

/// A new token.
pub fn token() -> Zeroizing<String> {
    Zeroizing::new(hex::encode(*Zeroizing::new(rand::random::<[u8; CHARS / 2]>())))
}

/// What is stored of it.
pub fn hash(token: &str) -> String {
    hex::encode(Sha256::digest(token))
}
