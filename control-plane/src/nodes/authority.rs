//! The certificate authority for nodes: kept in the store, sealed by the master key, so that replicas
//! share it.
//!
//! While it is being replaced there are two. The present one vouches for the control plane, so that nodes
//! which know nothing of the next are still let in; certificates of nodes come from the next; both are
//! trusted, on both sides. When every node has moved, or an operator says so, the present one is retired and
//! the next takes its place.

use crate::{
    keys::{Generated, KeyError, KeyPair, Keys},
    store::{Store, StoreError, key},
};
use hoody_protocol::transport::{Authority, AuthorityError, CertificateDer, RESET_SECRET_BYTES};
use std::{error::Error, time::SystemTime};

/// Purposes of the keys in the store.
const PURPOSE: &str = "node-authority";
const NEXT_PURPOSE: &str = "node-authority-next";
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
    /// The database failed.
    #[error("read or write the node authority")]
    Store(#[from] StoreError),
}

/// The authority, and the one that is to take its place.
#[derive(Debug)]
pub struct Authorities {
    /// Vouches for the control plane; join tokens carry its fingerprint.
    pub present: Authority,
    /// Issues the certificates of nodes, while there is one.
    pub next: Option<Authority>,
    /// The keys' ids in the store: what changes when one is added or retired.
    ids: (String, Option<String>),
}

impl Authorities {
    /// The one that certificates of nodes come from.
    pub fn issuing(&self) -> &Authority {
        self.next.as_ref().unwrap_or(&self.present)
    }

    /// Everything that is trusted.
    pub fn trusted(&self) -> Vec<CertificateDer<'static>> {
        [Some(&self.present), self.next.as_ref()]
            .into_iter()
            .flatten()
            .map(|authority| authority.certificate().clone())
            .collect()
    }

    /// True where a certificate with this issuer is still trusted.
    pub fn trusts(&self, issuer: &str) -> bool {
        self.present.name() == issuer || self.next.as_ref().is_some_and(|next| next.name() == issuer)
    }
}

/// Opens the authorities; the first start makes the one.
pub async fn open(store: &Store, keys: &Keys) -> Result<Authorities, OpenError> {
    let present = keys.load_or_create(store, PURPOSE, generate).await?;
    let next = keys.load(store, NEXT_PURPOSE).await?;
    let ids = (present.id.clone(), next.as_ref().map(|pair| pair.id.clone()));
    let next = next.as_ref().map(opened).transpose()?;
    Ok(Authorities { present: opened(&present)?, next, ids })
}

/// The authorities as they are stored now, where they are others than `known`.
pub(super) async fn changed(store: &Store, keys: &Keys, known: &Authorities) -> Result<Option<Authorities>, OpenError> {
    let ids = (key::active_id(store, PURPOSE).await?, key::active_id(store, NEXT_PURPOSE).await?);
    if ids == (Some(known.ids.0.clone()), known.ids.1.clone()) {
        return Ok(None);
    }
    Ok(Some(open(store, keys).await?))
}

/// Adds the next authority, where there is none yet. Processes that serve notice within a second or two, and
/// have their nodes renew.
pub async fn rotate(store: &Store, keys: &Keys) -> Result<Authorities, OpenError> {
    keys.load_or_create(store, NEXT_PURPOSE, generate).await?;
    open(store, keys).await
}

/// Retires the present authority and puts the next in its place; false where there is no next. The retired
/// key's secret is forgotten.
pub async fn retire(store: &Store, keys: &Keys) -> Result<bool, OpenError> {
    let Some(next) = keys.load(store, NEXT_PURPOSE).await? else { return Ok(false) };
    let id = key::new_id();
    // Sealed anew: a secret opens only under the purpose and id that it was sealed for.
    let sealed = keys.seal(PURPOSE, &id, &next.secret);
    let row = key::Row { id, public: next.public.clone(), sealed };
    Ok(key::promote(store, NEXT_PURPOSE, &next.id, PURPOSE, row).await?)
}

fn opened(pair: &KeyPair) -> Result<Authority, OpenError> {
    Ok(Authority::open(hex::decode(&pair.public)?, &pair.secret)?)
}

fn generate() -> Result<Generated, Box<dyn Error + Send + Sync>> {
    let authority = Authority::create(SystemTime::now())?;
    Ok(Generated { public: hex::encode(authority.certificate()), secret: authority.pkcs8().to_vec().into() })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{keys::MasterKey, store::testing::each_backend};

    #[tokio::test]
    async fn the_next_authority_takes_the_place_of_the_present_once() {
        each_backend(|store| async move {
            let keys = Keys::open(&store, MasterKey::from_hex(&"42".repeat(32)).unwrap()).await.unwrap();
            let first = open(&store, &keys).await.unwrap();
            assert!(!retire(&store, &keys).await.unwrap(), "there is no next");
            assert!(changed(&store, &keys, &first).await.unwrap().is_none());
            let both = rotate(&store, &keys).await.unwrap();
            let again = rotate(&store, &keys).await.unwrap();
            assert_eq!(both.trusted(), again.trusted(), "asked twice, there is one next");
            assert_eq!((both.trusted().len(), both.present.name()), (2, first.present.name()));
            assert!(changed(&store, &keys, &first).await.unwrap().is_some());
            let next = both.issuing().name();
            let (one, other) = tokio::join!(retire(&store, &keys), retire(&store, &keys));
            assert!(one.unwrap() ^ other.unwrap(), "one of two replicas retires it");
            let after = changed(&store, &keys, &both).await.unwrap().unwrap();
            assert_eq!((after.present.name(), after.next.is_none()), (next, true));
            assert!(!after.trusts(&first.present.name()));
            let secrets: Vec<String> = sqlx::query_scalar("SELECT sealed FROM keys WHERE retired_at IS NOT NULL")
                .fetch_all(store.reader())
                .await
                .unwrap();
            assert_eq!(secrets, ["", ""], "retired secrets are forgotten");
            // What is forgotten does not keep the others from another master key.
            let new = MasterKey::from_hex(&"43".repeat(32)).unwrap();
            keys.rotate_master(&store, &new).await.unwrap();
            let keys = Keys::open(&store, new).await.unwrap();
            assert_eq!(open(&store, &keys).await.unwrap().present.name(), after.present.name());
        })
        .await;
    }
}
