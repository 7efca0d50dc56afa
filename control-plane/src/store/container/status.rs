//! The contract's status words.

use std::{fmt, str::FromStr};

/// Where a container is in its life, in the contract's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Its root file system is being made.
    Creating,
    /// Its first process runs.
    Running,
    /// Its first process is frozen.
    Paused,
    /// No process.
    Stopped,
    /// Its node could not go on.
    Failed,
    /// Nothing is left of it.
    Deleted,
    /// It is being made from another container.
    Copying,
    /// It is being deleted.
    Deleting,
    /// It is being handed to a new owner.
    Claiming,
}

/// The text is none of the status words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown container status {0:?}")]
pub struct UnknownStatus(String);

const WORDS: [(Status, &str); 9] = [
    (Status::Creating, "creating"),
    (Status::Running, "running"),
    (Status::Paused, "paused"),
    (Status::Stopped, "stopped"),
    (Status::Failed, "failed"),
    (Status::Deleted, "deleted"),
    (Status::Copying, "copying"),
    (Status::Deleting, "deleting"),
    (Status::Claiming, "claiming"),
];

impl Status {
    /// The word.
    pub fn as_str(self) -> &'static str {
        WORDS.iter().find(|(status, _)| *status == self).map_or("failed", |(_, word)| word)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = UnknownStatus;
    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        let found = WORDS.iter().find(|(_, word)| *word == text).map(|(status, _)| *status);
        found.ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_round_trips() {
        for (status, word) in WORDS {
            assert_eq!((status.as_str(), word.parse()), (word, Ok(status)));
        }
        assert!("Running".parse::<Status>().is_err());
    }
}
