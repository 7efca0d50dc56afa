//! What `runc` alone, and `podman` with it, take for the same root file system.

use anyhow::{Context, Result, ensure};
use hoody_tests::{cluster::Cluster, image};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// A bundle with the agent's configuration of a container, on a plain copy of its root.
pub(super) struct Bare {
    folder: PathBuf,
}

impl Bare {
    pub(super) fn prepare(cluster: &Cluster, container: &str) -> Result<Self> {
        let server = &cluster.servers[0];
        let folder = cluster.folder().join("bare");
        let root = folder.join("rootfs");
        std::fs::create_dir_all(&root)?;
        let archive = image::archive("busybox")?;
        checked(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&root))?;
        let config = server.run_dir().join(format!("runtime/containers/{container}/config.json"));
        let mut config: Value = serde_json::from_slice(&std::fs::read(&config).context(config.display().to_string())?)?;
        let first = config["linux"]["uidMappings"][0]["hostID"].as_u64().context("an id mapping")?;
        checked(Command::new("chown").args(["-R", &format!("{first}:{first}")]).arg(&root))?;
        config["root"]["path"] = json!(root);
        config["process"]["args"] = json!(["/bin/true"]);
        config["linux"]["cgroupsPath"] = json!(format!("/{}/bare", server.name));
        // What the agent prepares beside the root file system is not there for a bare run.
        let own = server.run_dir();
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.retain(|mount| !mount["source"].as_str().is_some_and(|source| Path::new(source).starts_with(&own)));
        }
        std::fs::write(folder.join("config.json"), config.to_string())?;
        config["linux"]["seccomp"] = Value::Null;
        std::fs::write(folder.join("without-seccomp.json"), config.to_string())?;
        // runc enters the root file system as the container's root.
        for folder in [cluster.folder(), &folder] {
            checked(Command::new("chmod").arg("0711").arg(folder))?;
        }
        Ok(Self { folder })
    }

    /// `runc run` of a program that ends at once, with this configuration.
    pub(super) fn run(&self, config: &str, round: usize) -> Result<Duration> {
        self.run_with(Command::new("runc"), config, round)
    }

    /// The same with another runtime.
    pub(super) fn run_with(&self, mut runtime: Command, config: &str, round: usize) -> Result<Duration> {
        let own = self.folder.join("own");
        std::fs::create_dir_all(&own)?;
        std::fs::copy(self.folder.join(config), own.join("config.json"))?;
        let begun = Instant::now();
        checked(
            runtime
                .args(["--root".as_ref(), self.folder.join("state").as_os_str()])
                .args(["run", "--bundle"])
                .arg(&own)
                .arg(format!("bare-{round}")),
        )?;
        Ok(begun.elapsed())
    }
}

/// podman with runc and a storage of its own; removed with all containers when dropped.
pub(super) struct Podman {
    folder: PathBuf,
}

impl Podman {
    /// `None` where podman is not installed.
    pub(super) fn prepare(folder: &Path) -> Result<Option<Self>> {
        let installed = Command::new("podman").arg("--version").output().is_ok_and(|output| output.status.success());
        if !installed {
            return Ok(None);
        }
        let this = Self { folder: folder.join("podman") };
        checked(this.command().arg("import").arg(image::archive("busybox")?).arg("bench"))?;
        Ok(Some(this))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command
            .args(["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none"])
            .arg("--root")
            .arg(self.folder.join("storage"))
            .arg("--runroot")
            .arg(self.folder.join("run"));
        command
    }

    /// `podman run -d` until it answers. Without network, which the node has none of its own for.
    pub(super) fn run(&self, round: usize) -> Result<Duration> {
        let name = format!("round-{round}");
        let begun = Instant::now();
        checked(self.command().args(["run", "-d", "--network", "none", "--name", &name, "bench", "sleep", "600"]))?;
        let taken = begun.elapsed();
        checked(self.command().args(["rm", "-f", "-t", "0", &name]))?;
        Ok(taken)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // What it mounted would keep the folder from being removed.
        let _ = checked(self.command().args(["rm", "-a", "-f", "-t", "0"]));
        let _ = checked(Command::new("umount").arg(self.folder.join("storage/overlay")));
    }
}

pub(super) fn checked(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
