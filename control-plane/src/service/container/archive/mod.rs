//! Archives of containers: [`export`] makes one that another installation can [`import`].
//!
//! What an archive holds is in `hoody_protocol::export`. Its first member, [`document`], is written and read here; its
//! files are packed and unpacked by nodes. An import is a container with an image of its own, whose one layer is the
//! archive as it was uploaded: so it is fetched, verified, unpacked and collected like any image.

mod document;
mod export;
mod import;
mod inspect;
mod spool;

pub(super) use document::Restored;
pub(crate) use document::fuzzing as document_fuzzing;
pub use export::{Exported, export, still_may};
pub use import::{ImportInput, LONGEST, import};
pub(crate) use inspect::inspect;
