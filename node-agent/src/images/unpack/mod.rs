//! Unpacking of one layer by a confined process.
//!
//! The agent's side is [`run`]; the process's side is [`child_main`], which the agent's program calls where
//! its first argument is [`SUBCOMMAND`].

mod archive;
mod child;
#[doc(hidden)]
pub mod fuzzing;
mod layer;
mod metadata;
mod path;
mod report;
pub(crate) mod run;
pub(crate) mod sparse;

pub use child::{SUBCOMMAND, child_main};
pub use layer::Limits;
pub use report::{Refusal, Tally};
