//! What is persisted of a command: the request, before it runs, and its outcome, before anybody is told. The
//! output stands in a file beside, a line for each piece; it is not synced, and what a power failure takes of it is
//! lost.

use crate::desired::{DesiredError, file};
use hoody_protocol::{
    command::{CommandOutcome, CommandRequest, OutputChunk},
    id::ExecutionId,
    time::UnixMs,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

const RECORD: &str = "json";
const OUTPUT: &str = "output";
const PRIVATE: u32 = 0o600;

/// A command that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// What was asked.
    pub(super) request: CommandRequest,
    /// The kernel's boot id when it was accepted.
    pub(super) boot_id: String,
    /// When it was accepted.
    pub(super) at: UnixMs,
    /// How it ended.
    pub(super) outcome: Option<CommandOutcome>,
    /// The control plane has stored the outcome, since this time.
    pub(super) stored: Option<UnixMs>,
}

/// The folder of all records.
#[derive(Debug, Clone)]
pub(super) struct Records(PathBuf);

impl Records {
    /// The records in this folder, which is there.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    fn path(&self, id: ExecutionId, kind: &str) -> PathBuf {
        self.0.join(format!("{id}.{kind}"))
    }

    /// Writes a record; durable on return.
    pub(super) fn save(&self, record: &Record) -> Result<(), DesiredError> {
        let json = serde_json::to_vec(record).expect("plain data always encodes");
        file::write(&self.path(record.request.id, RECORD), &json)
    }

    /// The record of a command.
    pub(super) fn get(&self, id: ExecutionId) -> Result<Record, DesiredError> {
        read(&self.path(id, RECORD))
    }

    /// Removes a record and its output.
    pub(super) fn remove(&self, id: ExecutionId) -> Result<(), DesiredError> {
        self.remove_output(id)?;
        file::remove(&self.path(id, RECORD))
    }

    /// Removes a command's output.
    pub(super) fn remove_output(&self, id: ExecutionId) -> Result<(), DesiredError> {
        file::remove(&self.path(id, OUTPUT))
    }

    /// A new file for a command's output.
    pub(super) fn create_output(&self, id: ExecutionId) -> Result<File, DesiredError> {
        let path = self.path(id, OUTPUT);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(PRIVATE);
        options.open(&path).map_err(|source| DesiredError::Io { action: "create", path, source })
    }

    /// What is left of a command's output; lines that are damaged end it.
    pub(super) fn output(&self, id: ExecutionId) -> Vec<OutputChunk> {
        let bytes = fs::read(self.path(id, OUTPUT)).unwrap_or_default();
        parse_output(&bytes)
    }

    /// Every record that can be read; others are logged and kept.
    pub(super) fn load(&self) -> Result<Vec<Record>, DesiredError> {
        let failed = |source| DesiredError::Io { action: "list", path: self.0.clone(), source };
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_none_or(|extension| extension != RECORD) {
                continue;
            }
            match read(&path) {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "a command's record is unusable");
                }
            }
        }
        Ok(records)
    }
}

fn read(path: &Path) -> Result<Record, DesiredError> {
    let damaged = |reason: String| DesiredError::Damaged { path: path.to_owned(), reason };
    let bytes = file::read(path)?.ok_or_else(|| damaged("it is gone".to_owned()))?;
    serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))
}

/// The pieces in such a file's bytes, as far as they follow each other.
pub(super) fn parse_output(bytes: &[u8]) -> Vec<OutputChunk> {
    let lines = bytes.split(|byte| *byte == b'\n').map_while(|line| serde_json::from_slice::<OutputChunk>(line).ok());
    lines.zip(0..).map_while(|(chunk, index)| (chunk.index == index).then_some(chunk)).collect()
}
