//! What shows that a stream arrived as it was sent, from one end to the other: BLAKE3. It names nothing and is kept
//! nowhere, so it need not be what others use, and it takes less of the processor than SHA-256.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

const PREFIX: &str = "blake3:";

/// The BLAKE3 digest of a stream; its text form is `blake3:` and 64 lowercase hexadecimal characters.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamDigest([u8; 32]);

/// The text is not `blake3:` and 64 lowercase hexadecimal characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest of a stream is \"blake3:\" and 64 lowercase hexadecimal characters")]
pub struct InvalidStreamDigest;

impl StreamDigest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }
}

impl fmt::Display for StreamDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", hex::encode(self.0))
    }
}

impl fmt::Debug for StreamDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for StreamDigest {
    type Err = InvalidStreamDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix(PREFIX).ok_or(InvalidStreamDigest)?;
        if digits.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(InvalidStreamDigest);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| InvalidStreamDigest)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for StreamDigest {
    type Error = InvalidStreamDigest;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<StreamDigest> for String {
    fn from(digest: StreamDigest) -> Self {
        digest.to_string()
    }
}

/// Makes the digest of a stream as it passes.
#[derive(Debug, Clone, Default)]
pub struct StreamHasher(blake3::Hasher);

impl StreamHasher {
    /// Nothing has passed.
    pub fn new() -> Self {
        Self::default()
    }

    /// These bytes pass.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of what has passed.
    pub fn digest(&self) -> StreamDigest {
        StreamDigest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_in_pieces_and_as_text() {
        // From the test vectors of the BLAKE3 team: no bytes at all.
        let nothing = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(StreamHasher::new().digest().to_string(), nothing);
        let mut hasher = StreamHasher::new();
        hasher.update(b"a stream ");
        assert_ne!(hasher.digest(), StreamDigest::of(b"a stream in pieces"));
        hasher.update(b"in pieces");
        assert_eq!(hasher.digest(), StreamDigest::of(b"a stream in pieces"));
        assert_eq!(hasher.digest().to_string().parse(), Ok(hasher.digest()));
        for wrong in ["", "blake3:", &nothing[..70], &nothing.replace("blake3", "sha256"), &nothing.replace('f', "F")] {
            assert_eq!(wrong.parse::<StreamDigest>(), Err(InvalidStreamDigest), "{wrong}");
        }
    }
}
