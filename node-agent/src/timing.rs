//! How long the steps of a change take. `HOODY_LOG=info,hoody::step=debug` writes one line for each;
//! `make bench` reads them.

use std::{future::Future, time::Instant};

/// Target of the lines.
const TARGET: &str = "hoody::step";

/// Does `work` and writes down how long it took.
pub(crate) async fn step<T>(name: &'static str, work: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let done = work.await;
    tracing::debug!(target: TARGET, step = name, us = begun.elapsed().as_micros() as u64);
    done
}
