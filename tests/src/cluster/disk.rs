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
    /// A btrfs pool in `folder`; `own`: as on a disk of its own.
    pub(super) fn pool(folder: &Path, bytes: u64, own: bool) -> Result<Self> {
        let options = "nosuid,nodev,noatime";
        Self::make(folder, "pool", bytes, Command::new("mkfs.btrfs").arg("--quiet"), options, own)
    }

    /// A state folder in `folder`.
    pub(super) fn state(folder: &Path, bytes: u64) -> Result<Self> {
        Self::make(folder, "state", bytes, Command::new("mkfs.ext4").args(["-q", "-m", "0", "-b", "4096"]), "rw", false)
    }

    fn make(folder: &Path, name: &str, bytes: u64, format: &mut Command, options: &str, own: bool) -> Result<Self> {
        let image = folder.join(format!("{name}.img"));
        let mounted = folder.join(name);
        std::fs::create_dir_all(&mounted)?;
        std::fs::File::create(&image)?.set_len(bytes)?;
        run(format.arg(&image))?;
        let mut mount = Command::new("mount");
        if own {
            // What is written to it needs no room and no journal of the file system that it is in.
            run(Command::new("fallocate").args(["--length", &bytes.to_string()]).arg(&image))?;
            let device = run(Command::new("losetup").args(["--direct-io=on", "--find", "--show"]).arg(&image))?;
            let device = device.trim().to_owned();
            let mounting = run(mount.args(["-o", options, &device]).arg(&mounted));
            // It goes when it is no longer mounted.
            run(Command::new("losetup").args(["--detach", &device]))?;
            mounting?;
        } else {
            run(mount.args(["-o", &format!("loop,{options}")]).arg(&image).arg(&mounted))?;
        }
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
