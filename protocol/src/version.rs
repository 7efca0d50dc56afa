//! Versions: of the protocol, and of a container's specification.

use serde::{Deserialize, Serialize};

/// The protocol versions this build speaks.
///
/// | version | what changed |
/// | --- | --- |
/// | 1 | first version; no longer spoken |
/// | 2 | a specification may say how its container's traffic leaves: a proxy, nothing, rules by host name; no longer spoken |
/// | 3 | a specification may name snapshots that moved with its container |
///
/// Older versions are shut out at the hello: their agents ignore fields that they do not know. Those of version 1 would let
/// a container out that is to be held back, those of version 2 would start one without its snapshots.
pub const SUPPORTED: ProtocolRange = ProtocolRange { min: 3, max: 3 };

/// A range of protocol versions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolRange {
    /// The oldest version spoken.
    pub min: u16,
    /// The newest version spoken.
    pub max: u16,
}

impl ProtocolRange {
    /// The newest version that both sides speak.
    pub fn negotiate(self, other: Self) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

/// The version of a container's specification: it orders by epoch, then generation.
///
/// The generation grows with every change. A new epoch begins when the control plane's database is
/// restored from a backup: what follows wins over what the lost state had sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct SpecVersion {
    /// The life of the control plane's database.
    pub epoch: u64,
    /// The change, counted from 1.
    pub generation: u64,
}

impl std::fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.epoch, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiation_takes_the_newest_common_version() {
        let range = |min, max| ProtocolRange { min, max };
        assert_eq!(range(1, 3).negotiate(range(2, 5)), Some(3));
        assert_eq!(range(1, 1).negotiate(range(2, 5)), None);
        assert_eq!(range(4, 9).negotiate(range(2, 5)), Some(5));
    }

    #[test]
    fn a_new_epoch_wins_over_any_generation() {
        let old = SpecVersion { epoch: 1, generation: 900 };
        let restored = SpecVersion { epoch: 2, generation: 3 };
        assert!(restored > old);
    }
}
