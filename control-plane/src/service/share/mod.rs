//! Shares: folders of one container that appear in others on the same server. Whoever may change the source makes and
//! ends them; whoever may change a target accepts or refuses them for it.

mod apply;
mod expiry;
mod input;
mod read;
mod standing;
mod write;

pub use expiry::{end_due, tell_ending};
pub use input::{ChoiceInput, CreateInput, UpdateInput};
pub use read::{Incoming, ListFilter, get, list, list_all, list_incoming, list_incoming_all};
pub use standing::{Standing, View};
pub use write::{choose, create, delete, update};

pub(in crate::service) use apply::{apply, lock_with_targets, mounts, release};

const SHARE: &str = "share";
