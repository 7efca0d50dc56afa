//! The one table that `dev bench` prints, line by line as it goes.

use crate::measure::Times;

/// Prints the head.
pub(super) fn head() {
    println!("{:<50} {:>9} {:>9}  ratio", "", "p50 ms", "p95 ms");
}

/// Times of one thing; where `peer` was measured in the same run, how many times its p50.
pub(super) fn times(what: &str, times: &Times, peer: Option<(&str, &Times)>) {
    let (p50, p95) = (times.percentile(50.0), times.percentile(95.0));
    let ratio = peer.map(|(name, peer)| format!("{:.2} x {name}", p50 / peer.percentile(50.0)));
    println!("{what:<50} {p50:>9.1} {p95:>9.1}  {}", ratio.unwrap_or_default());
}

/// Anything else.
pub(super) fn value(what: &str, value: &str) {
    println!("{what:<50} {value:>19}");
}

/// A part of the table.
pub(super) fn part(name: &str) {
    println!("\n{name}");
}
