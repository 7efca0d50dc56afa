//! Keys: token signing, response signing and, through [`Keys::load_or_create`], whatever else needs a
//! secret of its own (the nodes' certificate authority, for example).
//!
//! They live in the database, so that replicas share them, and are sealed by the master key, so that a
//! stolen database opens nothing. One key per purpose is active; the unique index decides which replica's
//! key that is when several start at once. Secrets are wiped when dropped and never shown by `Debug`.

mod master;
mod response;
mod sealing;
mod token;

pub use master::{MasterKey, MasterKeyError};
pub use response::{PublicKey, ResponseKey};
pub use sealing::SealingKey;
pub use token::{ACCESS_LIFETIME, Claims, REFRESH_LIFETIME, TokenError, TokenKey, TokenKind};

use crate::store::{Store, StoreError, key, sealed};
use std::error::Error;
use zeroize::Zeroizing;

/// Purpose of the key that signs JWTs.
const TOKEN_SIGNING: &str = "token-signing";
/// Purpose of the key that signs responses.
const RESPONSE_SIGNING: &str = "response-signing";

/// Why keys could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The stored key was sealed by another master key, or was tampered with.
    #[error(
        "the master key does not open the stored {purpose} key: it is another installation's, or the row is damaged"
    )]
    WrongMasterKey {
        /// The stored key's purpose.
        purpose: String,
    },
    /// The key was opened but is not of the expected form.
    #[error("the stored {purpose} key is not of the expected form")]
    Malformed {
        /// The stored key's purpose.
        purpose: String,
    },
    /// A new key could not be made.
    #[error("make a {purpose} key")]
    Generate {
        /// The key's purpose.
        purpose: String,
        /// What the generator said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The database failed.
    #[error("read or write a stored key")]
    Store(#[from] StoreError),
}

/// What a generator makes.
pub struct Generated {
    /// Stored in the clear, for example a certificate or a public key in hexadecimal.
    pub public: String,
    /// Stored sealed.
    pub secret: Zeroizing<Vec<u8>>,
}

/// A key from the store, opened.
pub struct KeyPair {
    /// The row's id; the `kid` of what the key signs.
    pub id: String,
    /// The part that was stored in the clear.
    pub public: String,
    /// The secret.
    pub secret: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Generated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generated").field("public", &self.public).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair").field("id", &self.id).field("public", &self.public).finish_non_exhaustive()
    }
}

/// The opened keys.
#[derive(Debug)]
pub struct Keys {
    master: MasterKey,
    /// Signs and verifies JWTs.
    pub tokens: TokenKey,
    /// Signs responses.
    pub responses: ResponseKey,
}

impl Keys {
    /// Opens every key, making those that the database does not have yet.
    pub async fn open(store: &Store, master: MasterKey) -> Result<Self, KeyError> {
        let tokens = TokenKey::from_pair(&load_or_create(&master, store, TOKEN_SIGNING, ed25519).await?)?;
        let responses = ResponseKey::from_pair(&load_or_create(&master, store, RESPONSE_SIGNING, ed25519).await?)?;
        Ok(Self { master, tokens, responses })
    }

    /// The active key of `purpose`; where the database has none, `generate` makes it. Replicas that start
    /// together all get the same one.
    pub async fn load_or_create(
        &self,
        store: &Store,
        purpose: &str,
        generate: impl FnOnce() -> Result<Generated, Box<dyn Error + Send + Sync>>,
    ) -> Result<KeyPair, KeyError> {
        load_or_create(&self.master, store, purpose, generate).await
    }

    /// Seals a secret for storage. `purpose` and `id` must be the same when it is opened: a sealed value
    /// copied to another row or column does not open there.
    pub fn seal(&self, purpose: &str, id: &str, secret: &[u8]) -> String {
        self.master.seal(purpose, id, secret)
    }

    /// Seals every stored secret with another master key, in one transaction; how many it were. This process
    /// and others that run go on with the master key they were started with, so they must be started again.
    pub async fn rotate_master(&self, store: &Store, to: &MasterKey) -> Result<usize, KeyError> {
        let mut tx = store.begin().await?;
        let mut sealed = 0;
        for secret in sealed::all(&mut tx).await? {
            let opened = self.open_sealed(&secret.purpose, &secret.id, &secret.sealed)?;
            let renewed = to.seal(&secret.purpose, &secret.id, &opened);
            sealed::replace(&mut tx, &secret, &renewed).await?;
            sealed += 1;
        }
        sealed::forget_passing(&mut tx).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(sealed)
    }

    /// Opens what [`Keys::seal`] sealed.
    pub fn open_sealed(&self, purpose: &str, id: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.master.open(purpose, id, sealed).ok_or_else(|| KeyError::WrongMasterKey { purpose: purpose.to_owned() })
    }
}

async fn load_or_create(
    master: &MasterKey,
    store: &Store,
    purpose: &str,
    generate: impl FnOnce() -> Result<Generated, Box<dyn Error + Send + Sync>>,
) -> Result<KeyPair, KeyError> {
    if let Some(row) = key::active(store, purpose).await? {
        return open_row(master, purpose, row);
    }
    let generated = generate().map_err(|source| KeyError::Generate { purpose: purpose.to_owned(), source })?;
    let id = key::new_id();
    let sealed = master.seal(purpose, &id, &generated.secret);
    // Another replica may have been faster; its key is then the one that counts.
    let row = key::insert_or_active(store, purpose, key::Row { id, public: generated.public, sealed }).await?;
    open_row(master, purpose, row)
}

fn open_row(master: &MasterKey, purpose: &str, row: key::Row) -> Result<KeyPair, KeyError> {
    let secret = master
        .open(purpose, &row.id, &row.sealed)
        .ok_or_else(|| KeyError::WrongMasterKey { purpose: purpose.to_owned() })?;
    Ok(KeyPair { id: row.id, public: row.public, secret })
}

/// An Ed25519 key: its seed, and its public key in hexadecimal.
fn ed25519() -> Result<Generated, Box<dyn Error + Send + Sync>> {
    let mut seed = Zeroizing::new(vec![0; ed25519_dalek::SECRET_KEY_LENGTH]);
    rand::fill(seed.as_mut_slice());
    let public = signing_key(&seed).ok_or("a seed is 32 bytes")?.verifying_key();
    Ok(Generated { public: hex::encode(public.as_bytes()), secret: seed })
}

fn signing_key(seed: &[u8]) -> Option<ed25519_dalek::SigningKey> {
    ed25519_dalek::SigningKey::try_from(seed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::each_backend;

    #[tokio::test]
    async fn a_second_start_finds_the_same_keys_and_a_wrong_master_key_is_named() {
        each_backend(|store| async move {
            let master = || MasterKey::from_hex(&"a1".repeat(32)).unwrap();
            let first = Keys::open(&store, master()).await.unwrap();
            let second = Keys::open(&store, master()).await.unwrap();
            assert_eq!(first.responses.public().hex, second.responses.public().hex);
            let error = Keys::open(&store, MasterKey::from_hex(&"b2".repeat(32)).unwrap()).await.unwrap_err();
            assert!(matches!(error, KeyError::WrongMasterKey { .. }), "{error}");
        })
        .await;
    }

    #[tokio::test]
    async fn replicas_that_start_together_agree_on_one_key() {
        each_backend(|store| async move {
            let open = || async {
                let keys = Keys::open(&store, MasterKey::from_hex(&"a1".repeat(32)).unwrap()).await.unwrap();
                keys.responses.public().hex
            };
            let found = futures::future::join_all((0..8).map(|_| open())).await;
            assert!(found.iter().all(|hex| *hex == found[0]), "{found:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn after_a_rotation_only_the_new_master_key_opens() {
        each_backend(|store| async move {
            let (old, new) = ("a1".repeat(32), "b2".repeat(32));
            let master = |hex: &str| MasterKey::from_hex(hex).unwrap();
            let keys = Keys::open(&store, master(&old)).await.unwrap();
            let user = crate::store::link_testing::user(&store).await;
            let data_key = keys.seal("vault-data-key", &user, b"0123456789abcdef0123456789abcdef");
            crate::store::vault::data_key(&store, user.parse().unwrap(), &data_key, 1).await.unwrap();
            // A rotation that cannot open everything changes nothing.
            assert!(Keys { master: master(&new), ..keys }.rotate_master(&store, &master(&new)).await.is_err());
            let keys = Keys::open(&store, master(&old)).await.unwrap();
            assert_eq!(keys.rotate_master(&store, &master(&new)).await.unwrap(), 3);
            assert!(matches!(Keys::open(&store, master(&old)).await, Err(KeyError::WrongMasterKey { .. })));
            let renewed = Keys::open(&store, master(&new)).await.unwrap();
            assert_eq!(renewed.responses.public().hex, keys.responses.public().hex);
            let stored = crate::store::vault::find_data_key(&store, user.parse().unwrap()).await.unwrap().unwrap();
            let opened = renewed.open_sealed("vault-data-key", &user, &stored).unwrap();
            assert_eq!(opened.as_slice(), b"0123456789abcdef0123456789abcdef");
        })
        .await;
    }

    #[tokio::test]
    async fn other_purposes_have_keys_of_their_own_and_secrets_are_not_shown() {
        each_backend(|store| async move {
            let keys = Keys::open(&store, MasterKey::from_hex(&"a1".repeat(32)).unwrap()).await.unwrap();
            let generate = || Ok(Generated { public: "cert".to_owned(), secret: Zeroizing::new(b"hush".to_vec()) });
            let made = keys.load_or_create(&store, "ca", generate).await.unwrap();
            let found = keys.load_or_create(&store, "ca", || Err("not asked again".into())).await.unwrap();
            assert_eq!((made.id, made.secret), (found.id.clone(), found.secret.clone()));
            let shown = format!("{found:?} {keys:?}");
            assert!(!shown.contains("hush") && !shown.contains(&"a1".repeat(4)) && !shown.contains("161, 161"));
        })
        .await;
    }
}
