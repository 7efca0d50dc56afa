//! How much of a process's input and output may be on its way: each side may send [`WINDOW`] bytes, its messages
//! counted along, before it was told
//! that some were taken. The receiver keeps what it has not taken in memory and goes on reading, so a reader that
//! stands still holds up its own process, and not what else goes over the connection, as it would by letting the
//! stream's bytes use up the connection's window.

use tokio::sync::Semaphore;

/// Bytes on their way in one direction of one process.
pub const WINDOW: u32 = 128 << 10;

/// What a message counts beside its bytes: many small ones must not use up more than the window either.
const MESSAGE_COST: u32 = 64;

fn cost(bytes: usize) -> Result<u32, Overrun> {
    u32::try_from(bytes).ok().and_then(|bytes| bytes.checked_add(MESSAGE_COST)).ok_or(Overrun)
}

/// The peer did not keep to the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer went beyond the window of {WINDOW} bytes")]
pub struct Overrun;

/// What may still be sent.
#[derive(Debug)]
pub struct Allowance(Semaphore);

impl Default for Allowance {
    fn default() -> Self {
        Self(Semaphore::new(WINDOW as usize))
    }
}

impl Allowance {
    /// Waits until a message of so many bytes may be sent, which is a piece and less than the window.
    pub async fn take(&self, bytes: usize) {
        let Ok(cost) = cost(bytes) else { return };
        // The semaphore is never closed.
        if let Ok(permit) = self.0.acquire_many(cost.min(WINDOW)).await {
            permit.forget();
        }
    }

    /// The receiver took so many.
    pub fn grant(&self, bytes: u32) -> Result<(), Overrun> {
        if self.0.available_permits() as u64 + u64::from(bytes) > u64::from(WINDOW) {
            return Err(Overrun);
        }
        self.0.add_permits(bytes as usize);
        Ok(())
    }
}

/// What was received.
#[derive(Debug, Default)]
pub struct Received {
    /// Bytes that the sender does not know to be taken.
    outstanding: u32,
    /// Of those, taken.
    taken: u32,
}

impl Received {
    /// Counts a message that came.
    pub fn arrived(&mut self, bytes: usize) -> Result<(), Overrun> {
        let cost = cost(bytes)?;
        self.outstanding = self.outstanding.checked_add(cost).filter(|sum| *sum <= WINDOW).ok_or(Overrun)?;
        Ok(())
    }

    /// Counts a message that was taken; what the sender is to be told, once it is worth a message.
    pub fn taken(&mut self, bytes: usize) -> Option<u32> {
        self.taken = self.taken.saturating_add(cost(bytes).unwrap_or(WINDOW));
        if self.taken < WINDOW / 4 {
            return None;
        }
        self.outstanding -= self.taken.min(self.outstanding);
        Some(std::mem::take(&mut self.taken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::Future, pin::pin, task::Poll};

    #[tokio::test]
    async fn a_sender_waits_until_something_was_taken() {
        let (allowance, mut received) = (Allowance::default(), Received::default());
        for _ in 0..7 {
            allowance.take(16 << 10).await;
            received.arrived(16 << 10).unwrap();
        }
        assert_eq!(received.arrived(16 << 10), Err(Overrun));
        let mut waits = pin!(allowance.take(16 << 10));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert_eq!(waits.as_mut().poll(&mut context), Poll::Pending);
        assert_eq!(received.taken(16 << 10), None, "a message for every piece would be too many");
        let credit = received.taken(16 << 10).unwrap();
        allowance.grant(credit).unwrap();
        waits.await;
    }

    #[test]
    fn credit_for_what_was_never_sent_is_refused() {
        assert_eq!(Allowance::default().grant(1), Err(Overrun));
    }
}
