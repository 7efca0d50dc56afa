//! What must be known again after the agent restarts: how the container was made, which process is
//! its first, which its conmon. Replaced as a whole (write, rename), never edited.

use super::{RuntimeError, error::io, pidfd::ProcessId};
use crate::storage::IdRange;
use serde::{Deserialize, Serialize};
use std::{io::Read, os::unix::fs::OpenOptionsExt, path::Path};

/// A record is a few hundred bytes; more is not one.
const MAX_RECORD_BYTES: u64 = 64 << 10;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The record of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The boot on which it was written; process numbers mean nothing on another.
    pub(super) boot_id: String,
    /// The container's ids.
    pub(super) ids: IdRange,
    /// The signal that asks the first process to end.
    pub(super) stop_signal: i32,
    /// True where the first process is systemd.
    pub(super) systemd: bool,
    /// The first process and conmon, once made.
    pub(super) made: Option<Made>,
    /// True once a start was attempted: from then on the end of the process is the container's end.
    pub(super) started: bool,
}

/// The processes of a made container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    /// The first process.
    pub(super) first: ProcessId,
    /// Its conmon; `None` where it was gone when the record was made anew.
    pub(super) conmon: Option<ProcessId>,
}

impl Made {
    /// True while conmon keeps the output and waits for the exit code.
    pub(super) fn is_monitored(&self) -> Result<bool, RuntimeError> {
        self.conmon.map_or(Ok(false), |conmon| conmon.is_alive())
    }
}

impl Record {
    /// Reads a record; `None` where there is none or it is from before a reboot. One that cannot be
    /// read is an error, not an absence.
    pub(super) fn load(path: &Path) -> Result<Option<Self>, RuntimeError> {
        let mut text = Vec::new();
        match std::fs::File::open(path) {
            Ok(file) => file.take(MAX_RECORD_BYTES).read_to_end(&mut text).map_err(io("read", path))?,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io("open", path)(source)),
        };
        let record: Self = serde_json::from_slice(&text)
            .map_err(|error| RuntimeError::Corrupt { path: path.into(), reason: error.to_string() })?;
        Ok((record.boot_id == boot_id()?).then_some(record))
    }

    /// Writes the record whole. Not synced: it is worthless after a crash of the machine.
    pub(super) fn save(&self, path: &Path) -> Result<(), RuntimeError> {
        let text = serde_json::to_vec(self)
            .map_err(|error| RuntimeError::Corrupt { path: path.into(), reason: error.to_string() })?;
        replace(path, &text)
    }
}

/// Replaces a private file as a whole.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), RuntimeError> {
    use std::io::Write;
    let temporary = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(io("create", &temporary))?;
    file.write_all(content).map_err(io("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(io("rename", &temporary))
}

/// Names this boot of the machine.
pub(super) fn boot_id() -> Result<String, RuntimeError> {
    if let Some(id) = hoody_fault::boot_id() {
        return Ok(id);
    }
    Ok(std::fs::read_to_string(BOOT_ID).map_err(io("read", BOOT_ID))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let ids = IdRange { first: 1_000_000 };
        Record { boot_id: boot_id().unwrap(), ids, stop_signal: 15, systemd: false, made: None, started: true }
    }

    #[test]
    fn a_record_comes_back_and_a_missing_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        assert_eq!(Record::load(&path).unwrap(), None);
        record().save(&path).unwrap();
        assert_eq!(Record::load(&path).unwrap(), Some(record()));
    }

    #[test]
    fn a_record_of_another_boot_is_none_and_a_broken_one_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        Record { boot_id: "another".into(), ..record() }.save(&path).unwrap();
        assert_eq!(Record::load(&path).unwrap(), None);
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(Record::load(&path), Err(RuntimeError::Corrupt { .. })));
    }
}
