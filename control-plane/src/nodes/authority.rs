//! The certificate authority for nodes: kept in the store, sealed by the master key, so that replicas
//! share it.

use crate::{
    keys::{Generated, KeyError, Keys},
    store::Store,
};
use hoody_protocol::transport::{Authority, AuthorityError, RESET_SECRET_BYTES};
use std::time::SystemTime;

/// Purposes of the keys in the store.
const PURPOSE: &str = "node-authority";
const RESET_PURPOSE: &str = "node-reset";

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The stored key cannot be read or made.
    #[error("key of the node authority")]
    Key(#[from] KeyError),
    /// The stored certificate is not hexadecimal.
    #[error("stored certificate of the node authority")]
    Encoding(#[from] hex::FromHexError),
    /// The stored secret has another length.
    #[error("stored secret for connection resets")]
    ResetSecret,
    /// Certificate and key are not usable.
    #[error("stored node authority")]
    Authority(#[from] AuthorityError),
}

/// Opens the authority; the first start makes it.
pub async fn open(store: &Store, keys: &Keys) -> Result<Authority, OpenError> {
    let generate = || {
        let authority = Authority::create(SystemTime::now())?;
        Ok(Generated { public: hex::encode(authority.certificate()), secret: authority.pkcs8().to_vec().into() })
    };
    let pair = keys.load_or_create(store, PURPOSE, generate).await?;
    Ok(Authority::open(hex::decode(&pair.public)?, &pair.secret)?)
}

/// The secret behind the listener's connection ids and reset tokens; the first start makes it.
pub(super) async fn reset_secret(store: &Store, keys: &Keys) -> Result<[u8; RESET_SECRET_BYTES], OpenError> {
    let generate = || {
        let secret: [u8; RESET_SECRET_BYTES] = rand::random();
        Ok(Generated { public: String::new(), secret: secret.to_vec().into() })
    };
    let pair = keys.load_or_create(store, RESET_PURPOSE, generate).await?;
    pair.secret.as_slice().try_into().map_err(|_| OpenError::ResetSecret)
}
