//! A container's RAM disk, in clients' words. What changes takes effect at the next start.

use hoody_protocol::share::RamdiskScope;

const PROJECT: &str = "project";

/// `container` or `project`.
pub(super) fn check_scope(word: &str) -> Result<(), String> {
    if matches!(word, "container" | PROJECT) { Ok(()) } else { Err("must be container or project".to_owned()) }
}

/// The scope of a word that was checked; empty: the container alone.
pub(super) fn scope(word: &str) -> RamdiskScope {
    if word == PROJECT { RamdiskScope::Project } else { RamdiskScope::Container }
}
