//! How many large values are worked on at the same time. One of 10 MiB is in memory several times over, as it came,
//! as text, sealed and encoded, so what must be bounded is their number.

use crate::error::ServiceError;
use hoody_protocol::id::UserId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of the largest request or value that needs no place.
pub const SMALL_BYTES: u64 = 64 << 10;
/// Large values worked on at the same time, to be written and to be read.
const PLACES: usize = 4;
/// Longest wait for one.
const WAIT: Duration = Duration::from_secs(15);

/// The places. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Places {
    writes: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    writers: Arc<Mutex<HashMap<UserId, Arc<Semaphore>>>>,
    longest_wait: Duration,
}

impl Default for Places {
    fn default() -> Self {
        let semaphore = || Arc::new(Semaphore::new(PLACES));
        Self { writes: semaphore(), reads: semaphore(), writers: Arc::default(), longest_wait: WAIT }
    }
}

/// A place, given back when dropped.
#[derive(Debug)]
pub struct Place {
    _place: OwnedSemaphorePermit,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// A place to take a large value in. A user has one at a time: a slow client keeps out itself and not others.
    pub async fn write(&self, user: UserId) -> Result<Place, ServiceError> {
        let turn = self.wait(self.turn(user)).await?;
        Ok(Place { _place: self.wait(Arc::clone(&self.writes)).await?, _turn: Some(turn) })
    }

    /// A place to give a large value out.
    pub async fn read(&self) -> Result<Place, ServiceError> {
        Ok(Place { _place: self.wait(Arc::clone(&self.reads)).await?, _turn: None })
    }

    /// Lets the writers of one user take turns.
    fn turn(&self, user: UserId) -> Arc<Semaphore> {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody holds or waits for.
        writers.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(writers.entry(user).or_insert_with(|| Arc::new(Semaphore::new(1))))
    }

    async fn wait(&self, places: Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ServiceError> {
        let acquired = tokio::time::timeout(self.longest_wait, places.acquire_owned()).await;
        let busy =
            || ServiceError::Unavailable("too many large values at the moment: try again in a minute".to_owned());
        acquired.ok().and_then(Result::ok).ok_or_else(busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_are_few_one_to_a_user_and_come_back() {
        let places = Places { longest_wait: Duration::from_millis(1), ..Places::default() };
        let users: Vec<UserId> = (0..=PLACES).map(|_| UserId::generate()).collect();
        let mut taken = Vec::new();
        for user in &users[..PLACES] {
            taken.push(places.write(*user).await.unwrap());
        }
        assert!(places.write(users[0]).await.is_err(), "one to a user");
        assert!(places.write(users[PLACES]).await.is_err(), "all are taken");
        places.read().await.unwrap();
        taken.remove(0);
        // Who had waited in vain may come again.
        let last = places.write(users[PLACES]).await.unwrap();
        drop((taken, last));
        let mut taken = Vec::new();
        for user in users {
            taken = vec![places.write(user).await.unwrap()];
        }
        assert_eq!((taken.len(), places.writers.lock().unwrap().len()), (1, 2), "who is gone is forgotten");
    }
}
