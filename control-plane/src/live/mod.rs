//! Live delivery of events.
//!
//! One task per process, [`feed`], publishes what was committed and hands it to the [`hub`], which gives
//! every listener what is in its record. A listener that resumes reads from the store what it has missed,
//! and then goes on with what comes from the hub: each event once, in the order of delivery. Queues are
//! bounded; a listener that does not keep up loses its place in the hub and is told where to resume.

pub mod feed;
mod hub;
mod subscription;
mod witness;

pub use hub::{Live, Refused};
pub use subscription::{End, Next, Subscription};
pub use witness::Witness;
