//! File systems of a server on sparse files of their own, so that they can be small and become full.

use super::process::run;
use anyhow::Result;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) mounted: PathBuf,
}

impl Disk {
    /// A btrfs pool in `folder`.
    pub(super) fn pool(folder: &Path, bytes: u64) -> Result<Self> {
        Self::make(folder, "pool", bytes, Command::new("mkfs.btrfs").arg("--quiet"), "loop,nosuid,nodev,noatime")
    }

    /// A state folder in `folder`.
    pub(super) fn state(folder: &Path, bytes: u64) -> Result<Self> {
        Self::make(folder, "state", bytes, Command::new("mkfs.ext4").args(["-q", "-m", "0", "-b", "4096"]), "loop")
    }

    fn make(folder: &Path, name: &str, bytes: u64, format: &mut Command, options: &str) -> Result<Self> {
        let image = folder.join(format!("{name}.img"));
        let mounted = folder.join(name);
        std::fs::create_dir_all(&mounted)?;
        std::fs::File::create(&image)?.set_len(bytes)?;
        run(format.arg(&image))?;
        run(Command::new("mount").args(["-o", options]).arg(&image).arg(&mounted))?;
        Ok(Self { mounted })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, so that a leak that a test has just found does not leave the disk behind as well.
        if let Err(error) = run(Command::new("umount").arg("--lazy").arg(&self.mounted)) {
            eprintln!("{error:#}");
        }
    }
}
