//! Passwords: argon2id, a bounded number at a time (each takes its memory and a core), and the same work for
//! accounts that do not exist.

use crate::{config::PasswordCost, error::ServiceError};
use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

/// Hashes worked on at the same time.
const CONCURRENT: usize = 4;
/// Longest wait for a place.
const WAIT: Duration = Duration::from_secs(5);
/// Characters of the shortest password.
pub const MIN_CHARS: usize = 8;
/// Characters of the longest password.
pub const MAX_CHARS: usize = 128;

/// Hashes and verifies passwords. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Passwords {
    places: Arc<Semaphore>,
    cost: PasswordCost,
    /// A hash of nobody's password.
    nobody: Arc<str>,
    /// Passwords hashed or verified: each is the same work.
    worked: Arc<AtomicU64>,
}

/// What a password turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    /// Not the one that was hashed, or there is no hash.
    No,
    /// The one that was hashed.
    Yes,
    /// The same, and here is a new hash: the old one was made at another cost.
    Rehashed(String),
}

/// Parameters of argon2 for this cost; an error where it is outside what argon2 allows.
pub fn parameters(cost: PasswordCost) -> Result<Params, argon2::Error> {
    Params::new(cost.memory_kib, cost.passes, cost.lanes, None)
}

impl Passwords {
    /// Hashes at this cost, which the settings have checked; at the default one otherwise.
    pub fn new(cost: PasswordCost) -> Self {
        // An empty text, if hashing should fail, verifies nothing either.
        let nobody = hash(cost, &hex::encode(rand::random::<[u8; 16]>())).unwrap_or_default();
        Self { places: Arc::new(Semaphore::new(CONCURRENT)), cost, nobody: nobody.into(), worked: Arc::default() }
    }

    /// How many passwords were hashed or verified so far. Requests that must not tell whether an account exists
    /// do the same number either way.
    pub fn worked(&self) -> u64 {
        self.worked.load(Ordering::Relaxed)
    }

    /// The hash as a PHC string.
    pub async fn hash(&self, password: Zeroizing<String>) -> Result<String, ServiceError> {
        let (permit, cost) = (self.permit().await?, self.cost);
        work(permit, move || hash(cost, &password)).await?.map_err(ServiceError::internal)
    }

    /// Whether the password is the one that was hashed. Without a hash (there is no such account) the same
    /// work is done.
    pub async fn verify(&self, password: Zeroizing<String>, hashed: Option<String>) -> Result<Verified, ServiceError> {
        let (permit, cost, nobody) = (self.permit().await?, self.cost, Arc::clone(&self.nobody));
        work(permit, move || {
            let known = hashed.is_some();
            let parsed = PasswordHash::new(hashed.as_deref().unwrap_or(&nobody));
            let Ok(parsed) = parsed else { return Verified::No };
            let verified = Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok();
            if !known || !verified {
                return Verified::No;
            }
            let wanted = parameters(cost).unwrap_or_default();
            let same = Params::try_from(&parsed).is_ok_and(|made| {
                (made.m_cost(), made.t_cost(), made.p_cost()) == (wanted.m_cost(), wanted.t_cost(), wanted.p_cost())
            });
            if same { Verified::Yes } else { hash(cost, &password).map_or(Verified::Yes, Verified::Rehashed) }
        })
        .await
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, ServiceError> {
        self.worked.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("hoody_password_hashes_total").increment(1);
        let acquired = tokio::time::timeout(WAIT, Arc::clone(&self.places).acquire_owned()).await;
        acquired
            .ok()
            .and_then(Result::ok)
            .ok_or_else(|| ServiceError::Unavailable("too many logins at the moment: try again in a minute".to_owned()))
    }
}

fn hash(cost: PasswordCost, password: &str) -> Result<String, argon2::password_hash::Error> {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters(cost).unwrap_or_default());
    Ok(argon2.hash_password(password.as_bytes())?.to_string())
}

async fn work<T: Send + 'static>(
    permit: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ServiceError> {
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    })
    .await
    .map_err(ServiceError::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Zeroizing<String> {
        Zeroizing::new(text.to_owned())
    }

    const CHEAP: PasswordCost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };

    #[tokio::test]
    async fn only_the_right_password_of_an_account_verifies() {
        let passwords = Passwords::new(PasswordCost::default());
        let hash = passwords.hash(secret("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        for (password, hash, expected) in [
            ("correct horse", Some(hash.clone()), Verified::Yes),
            ("wrong horse", Some(hash.clone()), Verified::No),
            ("correct horse", None, Verified::No),
            ("x", Some("damaged".to_owned()), Verified::No),
        ] {
            assert_eq!(passwords.verify(secret(password), hash).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_hash_of_another_cost_is_made_anew() {
        let (old, new) = (Passwords::new(CHEAP), Passwords::new(PasswordCost { passes: 2, ..CHEAP }));
        let hash = old.hash(secret("correct horse")).await.unwrap();
        let Verified::Rehashed(hash) = new.verify(secret("correct horse"), Some(hash)).await.unwrap() else {
            panic!("it was not made anew");
        };
        assert!(hash.contains("m=64,t=2,p=1"), "{hash}");
        assert_eq!(new.verify(secret("correct horse"), Some(hash)).await.unwrap(), Verified::Yes);
    }

    #[test]
    fn nobodys_hash_costs_as_much_as_a_real_one() {
        assert!(Passwords::new(PasswordCost::default()).nobody.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    }
}
