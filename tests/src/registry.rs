//! A real registry on loopback (Debian's docker-registry), filled with real tools (umoci, skopeo).

use crate::{
    cluster::{Process, run},
    ports::Port,
    wait,
};
use anyhow::{Context, Result};
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

const START_DEADLINE: Duration = Duration::from_secs(20);

/// The registry and a folder for what is to be pushed.
#[derive(Debug)]
pub struct Registry {
    // Ended before its folder and its port are given away.
    process: Process,
    folder: TempDir,
    port: Port,
}

impl Registry {
    /// Starts an empty one.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("hoody-registry-").tempdir()?;
        let port = Port::take()?;
        let settings = folder.path().join("config.yml");
        let content = folder.path().join("content");
        std::fs::write(
            &settings,
            format!(
                "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
                 storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{}}}\n",
                content.display(),
                port.number()
            ),
        )?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&settings);
        let process = Process::start("the registry", &mut command, &folder.path().join("log"))?;
        let url = format!("http://127.0.0.1:{}/v2/", port.number());
        wait::until("the registry answers", START_DEADLINE, async || {
            let answer = reqwest::get(&url).await;
            Ok(answer.is_ok_and(|answer| answer.status().is_success()).then_some(()))
        })
        .await?;
        Ok(Self { process, folder, port })
    }

    /// `host:port`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// The settings of a control plane that may pull from it.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("HOODY_REGISTRY_ALLOWED_NETWORKS", "127.0.0.1/32".to_owned()), ("HOODY_REGISTRY_PLAIN_HTTP", self.host())]
    }

    /// An empty OCI image layout with one image.
    pub fn layout(&self, name: &str) -> Result<Layout> {
        let path = self.folder.path().join(name);
        run(Command::new("umoci").arg("init").arg("--layout").arg(&path))?;
        let layout = Layout { path };
        run(Command::new("umoci").arg("new").args(["--image", &layout.image()]))?;
        Ok(layout)
    }

    /// Pushes a layout's image; the reference to pull it by.
    pub fn push(&self, layout: &Layout, name: &str, more: &[&str]) -> Result<String> {
        let reference = format!("{}/{name}", self.host());
        let mut copy = Command::new("skopeo");
        copy.args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]).args(more);
        run(copy.arg(format!("oci:{}", layout.image())).arg(format!("docker://{reference}")))?;
        Ok(reference)
    }

    /// Pulls an image as people without the platform do, into a bundle's root file system.
    pub fn unpack(&self, reference: &str) -> Result<PathBuf> {
        let work = tempfile::Builder::new().prefix("peer-").tempdir_in(self.folder.path())?.keep();
        let image = format!("{}:it", work.join("layout").display());
        let mut copy = Command::new("skopeo");
        copy.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
        run(copy.arg(format!("docker://{reference}")).arg(format!("oci:{image}")))?;
        run(Command::new("umoci").args(["unpack", "--image", &image]).arg(work.join("bundle")))?;
        Ok(work.join("bundle/rootfs"))
    }

    /// A folder that goes with the registry.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Fails where the process is gone.
    pub fn check(&mut self) -> Result<()> {
        self.process.check().context("the registry")
    }
}

/// An image on disk that is not pushed yet.
#[derive(Debug)]
pub struct Layout {
    path: PathBuf,
}

impl Layout {
    fn image(&self) -> String {
        format!("{}:it", self.path.display())
    }

    /// Adds a layer: what `change` does to the root file system.
    pub fn layer(&self, change: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let bundle = tempfile::Builder::new().prefix("bundle-").tempdir_in(self.path.parent().context("a folder")?)?;
        let target = bundle.path().join("it");
        run(Command::new("umoci").args(["unpack", "--image", &self.image()]).arg(&target))?;
        change(&target.join("rootfs"))?;
        run(Command::new("umoci").args(["repack", "--image", &self.image()]).arg(&target)).map(drop)
    }

    /// Adds a layer by `umoci insert`, which writes archives without padding and end.
    pub fn insert(&self, arguments: &[&OsStr]) -> Result<()> {
        run(Command::new("umoci").args(["insert", "--image", &self.image()]).args(arguments)).map(drop)
    }

    /// Sets the configuration.
    pub fn configure(&self, options: &[&str]) -> Result<()> {
        run(Command::new("umoci").args(["config", "--image", &self.image()]).args(options)).map(drop)
    }
}
