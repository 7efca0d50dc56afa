//! Proof keys (RFC 7636), S256 alone: whoever brings a code back must know what hashes to the challenge.

use crate::service::account::policy::Problems;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// Characters of a challenge: 32 bytes in base64url.
const CHALLENGE_CHARS: usize = 43;
/// Characters that a verifier can have.
const VERIFIER_CHARS: std::ops::RangeInclusive<usize> = 43..=128;

/// Checks the form of a challenge.
pub fn check_challenge(challenge: &str, problems: &mut Problems) {
    // The decoder refuses bits that stand for nothing.
    let is_hash = challenge.len() == CHALLENGE_CHARS && URL_SAFE_NO_PAD.decode(challenge).is_ok();
    if !is_hash {
        let problem = "must be the SHA-256 of the verifier in base64url without padding: 43 characters";
        problems.insert("code_challenge".to_owned(), problem.to_owned());
    }
}

/// Checks the form of a verifier.
pub fn check_verifier(verifier: &str, problems: &mut Problems) {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    if !VERIFIER_CHARS.contains(&verifier.len()) || !verifier.bytes().all(is_plain) {
        let problem = "must be 43 to 128 letters, digits, -, ., _ or ~";
        problems.insert("code_verifier".to_owned(), problem.to_owned());
    }
}

/// The challenge of a verifier.
pub(super) fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_holds() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn forms_are_checked() {
        let good = challenge("x");
        let last_bits = format!("{}B", &good[..42]);
        let mut problems = Problems::new();
        check_challenge(&good, &mut problems);
        check_verifier(&"a.~_-".repeat(9), &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        for bad in ["", "short", &last_bits, &format!("{good}="), &"+".repeat(43)] {
            let mut problems = Problems::new();
            check_challenge(bad, &mut problems);
            assert_eq!(problems.len(), 1, "{bad}");
        }
        for bad in ["a".repeat(42), "a".repeat(129), "é".repeat(30)] {
            let mut problems = Problems::new();
            check_verifier(&bad, &mut problems);
            assert_eq!(problems.len(), 1, "{bad}");
        }
    }
}
