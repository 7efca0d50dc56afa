//! The join token: what an operator carries from the control plane to a new server. Its text form is
//! `hoody-join-1.` and base64url of CBOR.

use crate::{
    bounded::{List, Text},
    image::Digest,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

const PREFIX: &str = "hoody-join-1.";
const MAX_CHARS: usize = 2048;

/// What a join token says. The secret is worth a server's identity for as long as it is valid.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Where the control plane listens for nodes, `host:port`; tried in order.
    pub addresses: List<Text<255>, 8>,
    /// SHA-256 of the control plane's authority certificate, DER: the agent trusts nothing else.
    pub authority: Digest,
    /// Proves the right to enrol, once.
    pub secret: Text<128>,
}

/// The text is not a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a join token: it begins with {PREFIX:?} and is copied whole from the control plane")]
pub struct InvalidJoinToken;

impl JoinToken {
    /// The text form. Not `Display`, so that a secret is not logged by accident.
    pub fn reveal(&self) -> String {
        let bytes = minicbor_serde::to_vec(self).expect("plain data always encodes");
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("addresses", &self.addresses)
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = InvalidJoinToken;
    fn from_str(text: &str) -> Result<Self, InvalidJoinToken> {
        let text = text.trim();
        if text.len() > MAX_CHARS {
            return Err(InvalidJoinToken);
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(InvalidJoinToken)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| InvalidJoinToken)?;
        minicbor_serde::from_slice(&bytes).map_err(|_| InvalidJoinToken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_damage() {
        let token = JoinToken {
            addresses: vec![Text::try_from("192.0.2.1:7443").unwrap()].try_into().unwrap(),
            authority: Digest::of(b"authority"),
            secret: Text::try_from("s3cret").unwrap(),
        };
        let text = token.reveal();
        assert_eq!(text.parse(), Ok(token));
        assert_eq!(text[1..].parse::<JoinToken>(), Err(InvalidJoinToken));
        assert_eq!(text[..text.len() - 6].parse::<JoinToken>(), Err(InvalidJoinToken));
    }
}
