//! Fault points from the outside: a folder in which a test arms one and reads which were reached.

use anyhow::Result;
use std::{collections::BTreeSet, fs, path::Path};
use tempfile::TempDir;

/// The folder that `HOODY_FAULT_FOLDER` names.
#[derive(Debug)]
pub struct Faults(TempDir);

impl Faults {
    /// Nothing armed.
    pub fn new() -> Result<Self> {
        Ok(Self(tempfile::Builder::new().prefix("hoody-faults-").tempdir()?))
    }

    /// What a program needs in its environment.
    pub fn environment(&self) -> (String, String) {
        ("HOODY_FAULT_FOLDER".to_owned(), self.0.path().display().to_string())
    }

    /// From now on the point kills, whichever process reaches it.
    pub fn arm(&self, point: &str) -> Result<()> {
        self.put(point)
    }

    /// No point kills.
    pub fn disarm(&self) -> Result<()> {
        self.put("")
    }

    /// Points that were reached since they were last forgotten.
    pub fn reached(&self) -> BTreeSet<String> {
        let text = fs::read_to_string(self.0.path().join("reached")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Forgets which points were reached.
    pub fn forget(&self) -> Result<()> {
        Ok(fs::write(self.0.path().join("reached"), "")?)
    }

    /// Whole or not at all: a program may read at any moment.
    fn put(&self, point: &str) -> Result<()> {
        let (beside, armed): (_, &Path) = (self.0.path().join("armed.new"), &self.0.path().join("armed"));
        fs::write(&beside, point)?;
        Ok(fs::rename(beside, armed)?)
    }
}
