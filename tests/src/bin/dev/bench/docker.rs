//! What `docker run -d` takes for the same root file system: an engine of its own, on a socket and in folders
//! of its own, without networks; gone with everything it made when dropped.

use super::bare::checked;
use anyhow::Result;
use hoody_tests::{cluster::Process, image, wait};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

const START_DEADLINE: Duration = Duration::from_secs(60);

pub(super) struct Docker {
    folder: PathBuf,
    _engine: Process,
}

impl Docker {
    /// `None` where the engine is not installed.
    pub(super) async fn start(folder: &Path) -> Result<Option<Self>> {
        if !Command::new("dockerd").arg("--version").output().is_ok_and(|output| output.status.success()) {
            return Ok(None);
        }
        let folder = folder.join("docker");
        std::fs::create_dir_all(&folder)?;
        let settings = folder.join("daemon.json");
        std::fs::write(&settings, "{}")?;
        let log = folder.join("engine.log");
        let mut command = Command::new("dockerd");
        command
            .args(["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"])
            .args(["--storage-driver", "overlay2", "--exec-opt", "native.cgroupdriver=cgroupfs"])
            .arg("--config-file")
            .arg(settings)
            .arg("--data-root")
            .arg(folder.join("data"))
            .arg("--exec-root")
            .arg(folder.join("exec"))
            .arg("--pidfile")
            .arg(folder.join("pid"))
            .arg("--host")
            .arg(socket(&folder));
        let mut engine = Process::start("dockerd", &mut command, &log)?;
        wait::until("dockerd answers", START_DEADLINE, async || {
            engine.check()?;
            Ok(checked(client(&folder).arg("version")).is_ok().then_some(()))
        })
        .await?;
        let this = Self { folder, _engine: engine };
        checked(this.command().arg("import").arg(image::archive("busybox")?).arg("bench"))?;
        Ok(Some(this))
    }

    fn command(&self) -> Command {
        client(&self.folder)
    }

    /// `docker run -d` until it answers, with a container of another name each time.
    pub(super) fn run(&self, round: usize) -> Result<Duration> {
        let name = format!("round-{round}");
        let begun = Instant::now();
        checked(self.command().args(["run", "-d", "--network", "none", "--name", &name, "bench", "sleep", "600"]))?;
        let taken = begun.elapsed();
        checked(self.command().args(["rm", "-f", &name]))?;
        Ok(taken)
    }
}

fn socket(folder: &Path) -> String {
    format!("unix://{}", folder.join("socket").display())
}

fn client(folder: &Path) -> Command {
    let mut command = Command::new("docker");
    command.args(["--host", &socket(folder)]);
    command
}
