//! Keys: token signing, response signing and, through [`Keys::load_or_create`], whatever else needs a
//! secret of its own (the nodes' certificate authority, for example).
//!
//! They live in the database, so that replicas share them, and are sealed by the master key, so that a
//! stolen database opens nothing. One key per purpose is active; the unique index decides which replica's
//! key that is when several start at once. Rotation retires it and makes a new one; retired keys go on
//! verifying for a while, and the running processes read the keys again and again ([`ring`]). Secrets are wiped when dropped and never shown by `Debug`.

mod master;
mod response;
mod ring;
mod sealing;
mod token;

pub use master::{MasterKey, MasterKeyError};
pub use response::{PublicKey, ResponseKeys, SignedClaim};
pub use ring::RELOAD_INTERVAL;
pub use sealing::SealingKey;
pub(crate) use token::fuzzing as token_fuzzing;
pub use token::{ACCESS_LIFETIME, Claims, REFRESH_LIFETIME, TokenError, TokenKeys, TokenKind};

use crate::store::{Store, StoreError, key, sealed};
use hoody_protocol::time::now_ms;
use std::{error::Error, time::Duration};
use zeroize::Zeroizing;

/// Purpose of the key that signs JWTs.
const TOKEN_SIGNING: &str = "token-signing";
/// Purpose of the key that signs responses.
const RESPONSE_SIGNING: &str = "response-signing";
/// Purposes whose key can be rotated.
pub const ROTATABLE: [&str; 2] = [TOKEN_SIGNING, RESPONSE_SIGNING];
/// How long a retired key goes on verifying: longer than anything that it signed is valid.
const RETIRED_FOR: Duration = Duration::from_secs(8 * 24 * 60 * 60);

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
    /// This key cannot be rotated.
    #[error("there is no key {purpose:?} that can be rotated: there are {}", ROTATABLE.join(", "))]
    NotRotatable {
        /// What was asked for.
        purpose: String,
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
    pub tokens: TokenKeys,
    /// Signs responses and claims.
    pub responses: ResponseKeys,
}

impl Keys {
    /// Opens every key, making those that the database does not have yet.
    pub async fn open(store: &Store, master: MasterKey) -> Result<Self, KeyError> {
        load_or_create(&master, store, TOKEN_SIGNING, ed25519).await?;
        load_or_create(&master, store, RESPONSE_SIGNING, ed25519).await?;
        let tokens = TokenKeys::new(usable(&master, store, TOKEN_SIGNING, token::TokenKey::from_pair).await?)?;
        let responses =
            ResponseKeys::new(usable(&master, store, RESPONSE_SIGNING, response::ResponseKey::from_pair).await?)?;
        Ok(Self { master, tokens, responses })
    }

    /// Reads the stored keys again: another process may have rotated them.
    pub async fn reload(&self, store: &Store) -> Result<(), KeyError> {
        self.tokens.replace(usable(&self.master, store, TOKEN_SIGNING, token::TokenKey::from_pair).await?);
        let responses = usable(&self.master, store, RESPONSE_SIGNING, response::ResponseKey::from_pair).await?;
        self.responses.replace(responses);
        Ok(())
    }

    /// Retires the active key of `purpose` and makes a new one; gives its id. Running processes take it up by
    /// themselves. With `revoke` no older key verifies anything any more.
    pub async fn rotate(&self, store: &Store, purpose: &str, revoke: bool) -> Result<String, KeyError> {
        if !ROTATABLE.contains(&purpose) {
            return Err(KeyError::NotRotatable { purpose: purpose.to_owned() });
        }
        let generated = ed25519().map_err(|source| KeyError::Generate { purpose: purpose.to_owned(), source })?;
        let id = key::new_id();
        let sealed = self.master.seal(purpose, &id, &generated.secret);
        key::rotate(store, purpose, &key::Row { id: id.clone(), public: generated.public, sealed }, revoke).await?;
        Ok(id)
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

    /// The active key of `purpose`, where there is one.
    pub async fn load(&self, store: &Store, purpose: &str) -> Result<Option<KeyPair>, KeyError> {
        let row = key::active(store, purpose).await?;
        row.map(|row| open_row(&self.master, purpose, row)).transpose()
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
        hoody_fault::point!("master.sealed");
        tx.commit().await.map_err(StoreError::from)?;
        hoody_fault::point!("master.committed");
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

/// The keys of a purpose that sign or verify, newest first.
async fn usable<K>(
    master: &MasterKey,
    store: &Store,
    purpose: &str,
    read: impl Fn(&KeyPair) -> Result<K, KeyError>,
) -> Result<Vec<ring::Dated<K>>, KeyError> {
    let since = now_ms() as i64 - RETIRED_FOR.as_millis() as i64;
    let mut keys = Vec::new();
    for key::Dated { id, public, sealed, created_at } in key::usable(store, purpose, since).await? {
        let pair = open_row(master, purpose, key::Row { id, public, sealed })?;
        keys.push(ring::Dated { key: read(&pair)?, created_at });
    }
    Ok(keys)
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
            assert_eq!(first.responses.public()[0].hex, second.responses.public()[0].hex);
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
                keys.responses.public()[0].hex.clone()
            };
            let found = futures::future::join_all((0..8).map(|_| open())).await;
            assert!(found.iter().all(|hex| *hex == found[0]), "{found:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn rotation_leaves_old_tokens_valid_and_is_taken_up_without_a_restart() {
        each_backend(|store| async move {
            let master = || MasterKey::from_hex(&"a1".repeat(32)).unwrap();
            let running = Keys::open(&store, master()).await.unwrap();
            let claims = Claims::new(
                TokenKind::Access,
                hoody_protocol::id::UserId::generate(),
                hoody_protocol::id::SessionId::generate(),
                1,
            );
            let old = running.tokens.sign(&claims).unwrap();
            let id = Keys::open(&store, master()).await.unwrap().rotate(&store, TOKEN_SIGNING, false).await.unwrap();
            // As if the key were made long ago, so that it signs.
            let mut tx = store.begin().await.unwrap();
            sqlx::query("UPDATE keys SET created_at = created_at - 60000").execute(&mut *tx).await.unwrap();
            tx.commit().await.unwrap();
            running.reload(&store).await.unwrap();
            let new = running.tokens.sign(&claims).unwrap();
            assert_eq!(jsonwebtoken::decode_header(&new).unwrap().kid, Some(id));
            assert_ne!(jsonwebtoken::decode_header(&old).unwrap().kid, jsonwebtoken::decode_header(&new).unwrap().kid);
            for token in [&old, &new] {
                running.tokens.verify(token, TokenKind::Access).unwrap();
            }
            let before = running.responses.public();
            running.rotate(&store, RESPONSE_SIGNING, false).await.unwrap();
            running.reload(&store).await.unwrap();
            let after = running.responses.public();
            assert_eq!((after.len(), &after[1].kid), (2, &before[0].kid), "the old key goes on verifying");

            // Revoked, no older key verifies anything any more, and the new one signs at once.
            let id = running.rotate(&store, TOKEN_SIGNING, true).await.unwrap();
            running.reload(&store).await.unwrap();
            assert_eq!(running.tokens.verify(&old, TokenKind::Access).unwrap_err(), TokenError::Invalid);
            assert_eq!(running.tokens.verify(&new, TokenKind::Access).unwrap_err(), TokenError::Invalid);
            let newest = running.tokens.sign(&claims).unwrap();
            assert_eq!(jsonwebtoken::decode_header(&newest).unwrap().kid, Some(id));
            assert!(matches!(
                running.rotate(&store, "node-authority", false).await,
                Err(KeyError::NotRotatable { .. })
            ));
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
            assert_eq!(renewed.responses.public()[0].hex, keys.responses.public()[0].hex);
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
