//! The value of an auth token: `hdy_` and 32 random bytes in hexadecimal. It is shown once; the database has
//! its SHA-256, which needs no salt and no slowness, since nobody guesses 256 random bits.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Random bytes of a value.
const RANDOM_BYTES: usize = 32;
/// Characters of the value that are kept for people to tell tokens apart.
const SHOWN_CHARS: usize = 12;

/// A token's value. `Debug` does not show it.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// How every value begins.
    pub const PREFIX: &'static str = "hdy_";

    /// A new value.
    pub fn generate() -> Self {
        let bytes: Zeroizing<[u8; RANDOM_BYTES]> = Zeroizing::new(rand::random());
        Self(Zeroizing::new(format!("{}{}", Self::PREFIX, hex::encode(bytes.as_slice()))))
    }

    /// The value, if it has the form of one; no other text is worth a look into the database.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(Self::PREFIX)?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (digits.len() == 2 * RANDOM_BYTES && digits.bytes().all(is_digit))
            .then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// What the database knows of it.
    pub fn hash(&self) -> String {
        hex::encode(Sha256::digest(self.0.as_bytes()))
    }

    /// The beginning, for people.
    pub fn shown(&self) -> &str {
        &self.0[..SHOWN_CHARS]
    }

    /// The value itself, for the one answer that shows it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_back_and_nothing_else_is() {
        let secret = Secret::generate();
        assert_eq!(Secret::parse(secret.reveal()).unwrap().hash(), secret.hash());
        assert_ne!(Secret::generate().hash(), secret.hash());
        assert!(secret.reveal().starts_with(secret.shown()) && !format!("{secret:?}").contains(secret.shown()));
        let upper = format!("hdy_{}", "A".repeat(64));
        for text in ["", "hdy_", &secret.reveal()[4..], &format!("{}0", secret.reveal()), &upper] {
            assert!(Secret::parse(text).is_none(), "{text}");
        }
    }
}
