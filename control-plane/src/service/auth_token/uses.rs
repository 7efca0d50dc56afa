//! When and where from auth tokens were last used. Noted in memory, so that a read stays a read; the
//! background task writes the notes down every few seconds, and what a crash loses is those seconds.

use crate::store::{Store, StoreError, auth_token};
use hoody_protocol::{id::AuthTokenId, time::now_ms};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// The notes that are not written yet: one a token, and only of tokens that exist. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Uses(Arc<Mutex<HashMap<AuthTokenId, (i64, IpAddr)>>>);

impl Uses {
    /// Notes a use, now.
    pub fn note(&self, token: AuthTokenId, address: IpAddr) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.insert(token, (now_ms() as i64, address));
    }

    /// Writes the notes down. Where that fails they are lost: the next use makes new ones.
    pub async fn write(&self, store: &Store) -> Result<(), StoreError> {
        let notes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if notes.is_empty() {
            return Ok(());
        }
        let mut notes: Vec<_> = notes.into_iter().map(|(id, (at, address))| (id, at, address.to_string())).collect();
        // One order for all replicas, so that they do not wait for each other in a circle.
        notes.sort_by_key(|(id, ..)| *id);
        auth_token::note_uses(store, &notes).await
    }
}
