//! Firewall rules of a container: parsed and validated here, enforced by the node.

mod input;
mod peer;
mod ports;
mod rule;
mod rules;
mod selector;

pub use input::{RuleInput, Scalar};
pub use peer::render as render_peer;
pub use ports::render as render_ports;
pub use rule::{RuleTexts, parse_rule};
pub use rules::{Added, MAX_BYTES, Rule, add, byte_count, list, remove, reset, texts, toggle};
pub use selector::Selector;
