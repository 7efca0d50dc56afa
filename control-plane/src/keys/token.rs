//! JWTs: EdDSA over Ed25519, our issuer and audience, and a kind, so that a refresh token is never taken
//! for an access token. Verifying needs no database; whether the user has logged out since is for the
//! caller to check ([`Claims::generation`]).

use super::{
    KeyError, KeyPair,
    ring::{Dated, Ring},
    signing_key,
};
use hoody_protocol::{
    id::{RequestId, SessionId, UserId},
    time::now_ms,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use zeroize::Zeroizing;

/// Life of an access token.
pub const ACCESS_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Life of a refresh token.
pub const REFRESH_LIFETIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const ISSUER: &str = "hoody-control-plane";
const AUDIENCE: &str = "hoody-api";
/// DER of an unencrypted PKCS #8 Ed25519 key up to its 32-byte seed (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// Authenticates requests.
    Access,
    /// Gets new tokens, once.
    Refresh,
}

impl TokenKind {
    /// How long such a token lives.
    pub fn lifetime(self) -> Duration {
        match self {
            Self::Access => ACCESS_LIFETIME,
            Self::Refresh => REFRESH_LIFETIME,
        }
    }
}

/// A token's content.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    /// The user.
    pub sub: UserId,
    /// The token itself.
    pub jti: RequestId,
    /// The login that it descends from.
    pub sid: SessionId,
    /// The user's token generation when it was issued.
    #[serde(rename = "gen")]
    pub generation: i64,
    /// What it is for.
    pub typ: TokenKind,
    /// Issued at, Unix seconds.
    pub iat: u64,
    /// Expires at, Unix seconds.
    pub exp: u64,
    iss: String,
    aud: String,
}

impl Claims {
    /// A token of this kind from now on.
    pub fn new(kind: TokenKind, user: UserId, session: SessionId, generation: i64) -> Self {
        Self::issued_at(now_ms() / 1000, kind, user, session, generation)
    }

    pub(crate) fn issued_at(iat: u64, kind: TokenKind, user: UserId, session: SessionId, generation: i64) -> Self {
        Self {
            sub: user,
            jti: RequestId::generate(),
            sid: session,
            generation,
            typ: kind,
            iat,
            exp: iat + kind.lifetime().as_secs(),
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
        }
    }
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It was good once.
    #[error("token expired")]
    Expired,
    /// It is not ours, was altered, or is of the other kind.
    #[error("token not valid")]
    Invalid,
}

/// One key.
pub(super) struct TokenKey {
    header: Header,
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").field("kid", &self.header.kid).finish_non_exhaustive()
    }
}

impl TokenKey {
    pub(super) fn from_pair(pair: &KeyPair) -> Result<Self, KeyError> {
        let public = signing_key(&pair.secret)
            .ok_or_else(|| KeyError::Malformed { purpose: super::TOKEN_SIGNING.to_owned() })?
            .verifying_key();
        let der = Zeroizing::new([PKCS8_PREFIX.as_slice(), &pair.secret].concat());
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(pair.id.clone());
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = 0;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Ok(Self {
            header,
            encoding: EncodingKey::from_ed_der(&der),
            decoding: DecodingKey::from_ed_der(public.as_bytes()),
            validation,
        })
    }

    fn kid(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }
}

/// Signs tokens with the newest key, and verifies each with the key that its `kid` names.
#[derive(Debug)]
pub struct TokenKeys(Ring<TokenKey>);

impl TokenKeys {
    pub(super) fn new(keys: Vec<Dated<TokenKey>>) -> Result<Self, KeyError> {
        Ring::new(keys).map(Self).ok_or_else(|| KeyError::Malformed { purpose: super::TOKEN_SIGNING.to_owned() })
    }

    pub(super) fn replace(&self, keys: Vec<Dated<TokenKey>>) {
        self.0.replace(keys);
    }

    /// The token's text.
    pub fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        self.0.with_signing(now_ms() as i64, |key| jsonwebtoken::encode(&key.header, claims, &key.encoding))
    }

    /// The claims of a token of this kind.
    pub fn verify(&self, token: &str, kind: TokenKind) -> Result<Claims, TokenError> {
        let claims = self.verify_any(token)?;
        if claims.typ == kind { Ok(claims) } else { Err(TokenError::Invalid) }
    }

    /// The claims of a token of any kind.
    pub fn verify_any(&self, token: &str) -> Result<Claims, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?;
        let keys = self.0.all();
        let named = keys.iter().find(|dated| header.kid.is_some() && dated.key.kid() == header.kid.as_deref());
        let key = &named.ok_or(TokenError::Invalid)?.key;
        match jsonwebtoken::decode::<Claims>(token, &key.decoding, &key.validation) {
            Ok(data) => Ok(data.claims),
            Err(error) => Err(match error.kind() {
                ErrorKind::ExpiredSignature => TokenError::Expired,
                _ => TokenError::Invalid,
            }),
        }
    }
}

/// Any text as a token, for fuzzing: of a key that signs nothing, none is good.
pub(crate) fn fuzzing(text: &str) {
    static KEYS: std::sync::LazyLock<TokenKeys> = std::sync::LazyLock::new(|| {
        let made = super::ed25519().expect("a key");
        let pair = KeyPair { id: "k1".to_owned(), public: made.public, secret: made.secret };
        TokenKeys::new(vec![Dated { key: TokenKey::from_pair(&pair).expect("a key pair"), created_at: 0 }])
            .expect("keys")
    });
    assert_eq!(KEYS.verify_any(text).map(drop), Err(TokenError::Invalid));
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    fn key() -> TokenKeys {
        let made = super::super::ed25519().unwrap();
        let pair = KeyPair { id: "k1".to_owned(), public: made.public, secret: made.secret };
        TokenKeys::new(vec![Dated { key: TokenKey::from_pair(&pair).unwrap(), created_at: 0 }]).unwrap()
    }

    fn claims(kind: TokenKind) -> Claims {
        Claims::new(kind, UserId::generate(), SessionId::generate(), 3)
    }

    #[test]
    fn a_token_comes_back_as_it_was_issued() {
        let (key, issued) = (key(), claims(TokenKind::Access));
        let found = key.verify(&key.sign(&issued).unwrap(), TokenKind::Access).unwrap();
        assert_eq!((found.sub, found.sid, found.generation), (issued.sub, issued.sid, 3));
        assert_eq!(found.exp - found.iat, 86_400);
    }

    #[test]
    fn altered_foreign_expired_and_misused_tokens_are_refused() {
        let key = key();
        let good = key.sign(&claims(TokenKind::Access)).unwrap();
        assert_eq!(key.verify(&good, TokenKind::Refresh).unwrap_err(), TokenError::Invalid);
        let foreign = super::tests::key().sign(&claims(TokenKind::Access)).unwrap();
        assert_eq!(key.verify(&foreign, TokenKind::Access).unwrap_err(), TokenError::Invalid);
        let old = Claims::issued_at(1_000, TokenKind::Access, UserId::generate(), SessionId::generate(), 1);
        assert_eq!(key.verify(&key.sign(&old).unwrap(), TokenKind::Access).unwrap_err(), TokenError::Expired);

        let parts: Vec<&str> = good.split('.').collect();
        let mut body: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
        body["sub"] = UserId::generate().to_string().into();
        let altered = URL_SAFE_NO_PAD.encode(body.to_string());
        let unsigned = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        for text in [
            format!("{}.{altered}.{}", parts[0], parts[2]),
            format!("{unsigned}.{}.", parts[1]),
            format!("{unsigned}.{}.{}", parts[1], parts[2]),
            String::new(),
            "a.b.c".to_owned(),
        ] {
            assert_eq!(key.verify(&text, TokenKind::Access).unwrap_err(), TokenError::Invalid, "{text}");
        }
    }
}
