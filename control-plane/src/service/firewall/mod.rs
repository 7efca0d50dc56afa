//! Firewall rules of a container: parsed and validated here, enforced by the node.

mod input;
mod peer;
mod ports;
mod rule;
mod selector;

pub use input::{RuleInput, Scalar};
pub use rule::{RuleTexts, parse_rule};
pub use selector::Selector;
