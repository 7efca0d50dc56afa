//! Passwords: argon2id, a bounded number at a time (each takes 19 MiB and a core), and the same work for
//! accounts that do not exist.

use crate::error::ServiceError;
use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use std::{
    sync::{Arc, OnceLock},
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
pub struct Passwords(Arc<Semaphore>);

impl Default for Passwords {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CONCURRENT)))
    }
}

impl Passwords {
    /// The hash as a PHC string.
    pub async fn hash(&self, password: Zeroizing<String>) -> Result<String, ServiceError> {
        let permit = self.permit().await?;
        work(permit, move || hash(&password)).await?.map_err(ServiceError::internal)
    }

    /// True where the password is the one that was hashed. Without a hash (there is no such account) the
    /// same work is done and the answer is false.
    pub async fn verify(&self, password: Zeroizing<String>, hash: Option<String>) -> Result<bool, ServiceError> {
        let permit = self.permit().await?;
        work(permit, move || {
            let known = hash.is_some();
            let hash = hash.as_deref().unwrap_or_else(|| nobody());
            let verified = PasswordHash::new(hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok());
            known && verified
        })
        .await
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, ServiceError> {
        let acquired = tokio::time::timeout(WAIT, Arc::clone(&self.0).acquire_owned()).await;
        acquired
            .ok()
            .and_then(Result::ok)
            .ok_or_else(|| ServiceError::Unavailable("too many logins at the moment: try again in a minute".to_owned()))
    }
}

fn hash(password: &str) -> Result<String, argon2::password_hash::Error> {
    Ok(Argon2::default().hash_password(password.as_bytes())?.to_string())
}

/// A hash of nobody's password, with the parameters of real ones.
fn nobody() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    // An empty text, if hashing should fail, verifies nothing either.
    HASH.get_or_init(|| hash(&hex::encode(rand::random::<[u8; 16]>())).unwrap_or_default())
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

    #[tokio::test]
    async fn only_the_right_password_of_an_account_verifies() {
        let passwords = Passwords::default();
        let hash = passwords.hash(secret("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.verify(secret("correct horse"), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify(secret("wrong horse"), Some(hash)).await.unwrap());
        assert!(!passwords.verify(secret("correct horse"), None).await.unwrap());
        assert!(!passwords.verify(secret("x"), Some("damaged".to_owned())).await.unwrap());
    }

    #[test]
    fn nobodys_hash_costs_as_much_as_a_real_one() {
        assert!(nobody().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    }
}
