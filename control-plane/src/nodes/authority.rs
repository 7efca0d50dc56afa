//! The certificate authority for nodes: kept in the store, sealed by the master key, so that replicas
//! share it.

use crate::{
    keys::{Generated, KeyError, Keys},
    store::Store,
};
use hoody_protocol::transport::{Authority, AuthorityError};
use std::time::SystemTime;

/// Purpose of the key in the store.
const PURPOSE: &str = "node-authority";

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The stored key cannot be read or made.
    #[error("key of the node authority")]
    Key(#[from] KeyError),
    /// The stored certificate is not hexadecimal.
    #[error("stored certificate of the node authority")]
    Encoding(#[from] hex::FromHexError),
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
