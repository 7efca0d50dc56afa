//! A btrfs pool on a sparse file, mounted where nobody but root looks.

use super::process::run;
use anyhow::Result;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Bytes of the sparse file.
const BYTES: u64 = 16 << 30;

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) mounted: PathBuf,
}

impl Pool {
    /// Makes and mounts a pool in `folder`.
    pub(super) fn make(folder: &Path) -> Result<Self> {
        let image = folder.join("pool.img");
        let mounted = folder.join("pool");
        std::fs::create_dir_all(&mounted)?;
        std::fs::File::create(&image)?.set_len(BYTES)?;
        run(Command::new("mkfs.btrfs").arg("--quiet").arg(&image))?;
        run(Command::new("mount").args(["-o", "loop,nosuid,nodev,noatime"]).arg(&image).arg(&mounted))?;
        Ok(Self { mounted })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Lazily, so that a leak that a test has just found does not leave the pool behind as well.
        if let Err(error) = run(Command::new("umount").arg("--lazy").arg(&self.mounted)) {
            eprintln!("{error:#}");
        }
    }
}
