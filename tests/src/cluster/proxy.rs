//! The relay program of a server, as its unit runs it: an ordinary user without capabilities.

use super::process::Process;
use anyhow::{Context, Result};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

/// `nobody` of Debian.
const USER: u32 = 65_534;

/// The program, its folder and its log.
#[derive(Debug)]
pub(super) struct Proxy {
    name: String,
    /// Gone with this value.
    run_dir: PathBuf,
    log: PathBuf,
    process: Option<Process>,
    /// The file of authorities in place of the system's.
    authorities: Option<PathBuf>,
}

impl Proxy {
    /// Makes what it needs to be started.
    pub(super) fn make(name: &str, folder: &Path) -> Result<Self> {
        let run_dir = PathBuf::from(format!("/run/{name}-proxy"));
        fs::create_dir_all(&run_dir)?;
        chown(&run_dir, Some(USER), Some(USER))?;
        fs::set_permissions(&run_dir, fs::Permissions::from_mode(0o700))?;
        let this =
            Self { name: name.to_owned(), log: folder.join("proxy.log"), process: None, authorities: None, run_dir };
        // Tests want to see an upstream come back soon.
        let settings = format!("socket = {:?}\nretry_ms = 200\nretry_max_ms = 1000\n", this.socket());
        fs::write(this.config(), settings)?;
        Ok(this)
    }

    /// Its control socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.log.clone()
    }

    pub(super) fn pid(&self) -> Option<i32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Starts it by `wrapper`, which is setpriv(1) in the server's network.
    pub(super) fn start(&mut self, mut wrapper: Command) -> Result<()> {
        let user = USER.to_string();
        wrapper.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--inh-caps", "-all"]);
        wrapper.args(["--bounding-set", "-all", "--no-new-privs", "--"]);
        wrapper.arg(self.program()?).arg("--config").arg(self.config());
        if let Some(authorities) = &self.authorities {
            wrapper.env("SSL_CERT_FILE", authorities);
        }
        self.process = Some(Process::start(&format!("the relay of {}", self.name), &mut wrapper, &self.log)?);
        Ok(())
    }

    /// From its next start on it trusts this authority alone.
    pub(super) fn trust(&mut self, authority: &Path) -> Result<()> {
        let copy = self.run_dir.join("authorities.pem");
        fs::copy(authority, &copy)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o644))?;
        self.authorities = Some(copy);
        Ok(())
    }

    pub(super) fn kill(&mut self) -> Result<()> {
        self.process.take().context("the relay does not run")?.kill()
    }

    /// Ends it, where it runs.
    pub(super) fn end(&mut self) {
        drop(self.process.take());
    }

    fn config(&self) -> PathBuf {
        self.run_dir.join("proxy.toml")
    }

    /// The program where its user can reach it: folders above the build's may be closed to it.
    fn program(&self) -> Result<PathBuf> {
        let copy = self.run_dir.join("hoody-proxy");
        if !copy.exists() {
            let built = super::control_plane::program("hoody-proxy");
            if fs::hard_link(&built, &copy).is_err() {
                fs::copy(&built, &copy).with_context(|| format!("copy {}", built.display()))?;
            }
        }
        Ok(copy)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end();
        // Nothing of it is needed any more.
        let _ = fs::remove_dir_all(&self.run_dir);
    }
}
