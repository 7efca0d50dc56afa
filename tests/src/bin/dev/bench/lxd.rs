//! LXD with its own folder and btrfs pool, and two containers of the busybox image; gone with everything it made when
//! dropped.

use super::bare::checked;
use anyhow::{Result, ensure};
use hoody_tests::{cluster::Process, image, wait};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

const START_DEADLINE: Duration = Duration::from_secs(60);

/// The image has no init, which LXD would run.
const COMMAND: &str = "raw.lxc=lxc.init.cmd = /bin/sleep 1000000";
/// Mounts that stay, at most.
const MAX_MOUNTS: usize = 32;

pub(super) struct Lxd {
    folder: PathBuf,
    daemon: Process,
}

impl Drop for Lxd {
    /// Where a command fails, what it would have removed goes with what is done afterwards.
    fn drop(&mut self) {
        for name in ["runs", "rests"] {
            // What is not there need not go.
            let _ = client(&self.folder).args(["delete", "--force", name]).output();
        }
        let _ = client(&self.folder).args(["image", "delete", "bench"]).output();
        let _ = client(&self.folder).args(["profile", "device", "remove", "default", "root"]).output();
        let _ = client(&self.folder).args(["storage", "delete", "bench"]).output();
        if let Err(error) = self.daemon.stop() {
            eprintln!("{error:#}");
        }
        // The daemon leaves its pool mounted where somebody looked into it at the wrong moment; the loop device goes
        // with the mount.
        for _ in 0..MAX_MOUNTS {
            let mounts = hoody_tests::traces::mounts(&self.folder.display().to_string()).unwrap_or_default();
            let Some(last) = mounts.iter().rfind(|point| point.starts_with(&self.folder)) else { break };
            let _ = Command::new("umount").arg("-l").arg(last).output();
        }
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            // Of the library below it, and empty.
            let _ = std::fs::remove_dir(hierarchy.path().join("lxc.pivot"));
        }
    }
}

impl Lxd {
    /// An error where it is not installed, or does not work here.
    pub(super) async fn start(folder: &Path) -> Result<Self> {
        ensure!(Command::new("lxd").arg("--version").output().is_ok_and(|out| out.status.success()), "not installed");
        let folder = folder.join("lxd");
        std::fs::create_dir_all(&folder)?;
        let log = folder.join("daemon.log");
        let mut command = Command::new("lxd");
        command.args(["--group", "root", "--logfile"]).arg(folder.join("lxd.log")).env("LXD_DIR", &folder);
        let mut daemon = Process::start("lxd", &mut command, &log)?;
        wait::until("lxd answers", START_DEADLINE, async || {
            daemon.check()?;
            Ok(checked(client(&folder).args(["query", "/1.0"])).is_ok().then_some(()))
        })
        .await?;
        let this = Self { folder, daemon };
        this.run(&["storage", "create", "bench", "btrfs", "size=2GiB"])?;
        this.run(&["profile", "device", "add", "default", "root", "disk", "path=/", "pool=bench"])?;
        let metadata = this.folder.join("metadata.tar");
        std::fs::write(
            this.folder.join("metadata.yaml"),
            format!("architecture: {}\ncreation_date: 1\n", std::env::consts::ARCH),
        )?;
        checked(Command::new("tar").arg("-cf").arg(&metadata).arg("-C").arg(&this.folder).arg("metadata.yaml"))?;
        let archive = image::archive("busybox")?;
        checked(client(&this.folder).args(["image", "import"]).arg(&metadata).arg(archive).args(["--alias", "bench"]))?;
        for name in ["runs", "rests"] {
            this.run(&["init", "bench", name, "--config", COMMAND])?;
        }
        this.run(&["start", "runs"])?;
        Ok(this)
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        checked(client(&self.folder).args(arguments))
    }

    /// What one command takes until it returns.
    pub(super) fn timed(&self, arguments: &[&str]) -> Result<Duration> {
        let begun = Instant::now();
        self.run(arguments)?;
        Ok(begun.elapsed())
    }
}

fn client(folder: &Path) -> Command {
    let mut command = Command::new("lxc");
    command.env("LXD_DIR", folder).env("LXD_CONF", folder.join("client"));
    command
}
