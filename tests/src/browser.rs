//! A real browser (Debian's Chromium) and a real OpenID provider on loopback, both driven by Node
//! (`tests/browser/`).

use crate::{
    cluster::{ControlPlane, Process},
    ports::Port,
    secrets, wait,
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    io::Write,
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

const DEADLINE: Duration = Duration::from_secs(60);
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/browser");
/// The platform's secret at the provider.
const SECRET: &str = "oidc-provider-client-secret";

/// A running provider, which is both GitHub and Google; ended when dropped.
#[derive(Debug)]
pub struct Provider {
    /// For browsers, in the clear.
    port: Port,
    /// For the platform.
    tls_port: Port,
    /// What signed its certificate, PEM.
    certificate: PathBuf,
    _process: Process,
}

impl Provider {
    /// Starts a provider that knows the control plane at `public_url`. `certificate` and `key` are PEM, for
    /// `localhost`.
    pub async fn start(folder: &Path, public_url: &str, certificate: &str, key: &str) -> Result<Self> {
        secrets::note(SECRET);
        let [certificate_file, key_file] = ["provider.pem", "provider-key.pem"].map(|name| folder.join(name));
        std::fs::write(&certificate_file, certificate)?;
        std::fs::write(&key_file, key)?;
        let (port, tls_port) = (Port::take()?, Port::take()?);
        let mut command = Command::new("node");
        command.current_dir(FOLDER).args([
            "provider.mjs",
            &port.number().to_string(),
            &tls_port.number().to_string(),
            public_url,
            SECRET,
        ]);
        command.arg(&certificate_file).arg(&key_file);
        let mut process = Process::start("the OpenID provider", &mut command, &folder.join("provider.log"))?;
        wait::until("the OpenID provider listens", DEADLINE, async || {
            process.check().context("are its packages there? scripts/setup.sh installs them")?;
            let ports = [&port, &tls_port];
            let is_up = ports.iter().all(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, port.number())).is_ok());
            Ok(is_up.then_some(()))
        })
        .await?;
        Ok(Self { port, tls_port, certificate: certificate_file, _process: process })
    }

    /// Makes a control plane, from its next start on, take this provider for GitHub and Google.
    pub fn use_for(&self, control_plane: &mut ControlPlane) {
        let (pages, base) = (
            format!("http://127.0.0.1:{}", self.port.number()),
            format!("https://localhost:{}", self.tls_port.number()),
        );
        for name in ["GITHUB", "GOOGLE"] {
            let user = if name == "GITHUB" { "user" } else { "me" };
            control_plane.set(&format!("HOODY_{name}_CLIENT_ID"), "hoody");
            control_plane.set(&format!("HOODY_{name}_CLIENT_SECRET"), SECRET);
            control_plane.set(&format!("HOODY_{name}_AUTHORIZE_URL"), format!("{pages}/auth"));
            control_plane.set(&format!("HOODY_{name}_TOKEN_URL"), format!("{base}/token"));
            control_plane.set(&format!("HOODY_{name}_USER_URL"), format!("{base}/{user}"));
        }
        control_plane.set("HOODY_GITHUB_EMAILS_URL", format!("{base}/user/emails"));
        control_plane.set("HOODY_GITHUB_STARRED_URL", format!("{base}/user/starred"));
        control_plane.set("HOODY_GITHUB_STAR_REPOSITORY", "hoody/hoody");
        control_plane.set("HOODY_OAUTH_CERTIFICATE", self.certificate.display().to_string());
    }
}

/// Walks a new browser through `walk.mjs`, which says what a walk is made of.
pub async fn walk(walk: &Value) -> Result<Value> {
    let input = walk.to_string();
    let output = tokio::task::spawn_blocking(move || {
        let mut command = Command::new("node");
        command.current_dir(FOLDER).arg("walk.mjs").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start node")?;
        child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
        child.wait_with_output().context("wait for node")
    });
    let output = output.await??;
    ensure!(output.status.success(), "{walk}: {}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(answer["problems"] == serde_json::json!([]), "the page has errors: {answer}");
    Ok(answer)
}
