//! A real mail server for tests (aiosmtpd, `smtp.py`), and mails as files, wherever they come from.

use crate::{
    cluster::{ControlPlane, Process},
    ports::Port,
    secrets, wait,
};
use anyhow::{Context, Result};
use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const DEADLINE: Duration = Duration::from_secs(30);
/// The one user that the server knows.
const USER: &str = "hoody";
/// The user's password.
const PASSWORD: &str = "mail-server-password";
/// Debian's own interpreter, for which the package is installed.
const PYTHON: &str = "/usr/bin/python3";

/// How the server wants to be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// TLS after STARTTLS, or no mail.
    Starttls,
    /// TLS from the first byte.
    Implicit,
}

/// A running mail server; ended when dropped.
#[derive(Debug)]
pub struct MailServer {
    folder: PathBuf,
    port: Port,
    tls: Tls,
    _process: Process,
}

impl MailServer {
    /// Starts a server on loopback that keeps everything in `folder`. `certificate` and `key` are PEM.
    pub async fn start(folder: &Path, tls: Tls, certificate: &str, key: &str) -> Result<Self> {
        fs::create_dir_all(folder.join("mail"))?;
        fs::write(folder.join("certificate.pem"), certificate)?;
        fs::write(folder.join("key.pem"), key)?;
        secrets::note(PASSWORD);
        let port = Port::take()?;
        let mode = if tls == Tls::Starttls { "starttls" } else { "implicit" };
        let mut command = Command::new(PYTHON);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/smtp.py"));
        command.arg(folder).args([&port.number().to_string(), mode, USER, PASSWORD]);
        let mut process = Process::start("the mail server", &mut command, &folder.join("smtp.log"))?;
        wait::until("the mail server listens", DEADLINE, async || {
            process.check().context("is python3-aiosmtpd installed? scripts/setup.sh does it")?;
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port.number())).is_ok().then_some(()))
        })
        .await?;
        Ok(Self { folder: folder.to_owned(), port, tls, _process: process })
    }

    /// Makes a control plane, from its next start on, send its mail here.
    pub fn use_for(&self, control_plane: &mut ControlPlane) {
        let certificate = self.folder.join("certificate.pem");
        for (name, value) in [
            ("HOODY_SMTP_HOST", "localhost".to_owned()),
            ("HOODY_SMTP_PORT", self.port.number().to_string()),
            ("HOODY_SMTP_TLS", if self.tls == Tls::Starttls { "starttls" } else { "implicit" }.to_owned()),
            ("HOODY_SMTP_USERNAME", USER.to_owned()),
            ("HOODY_SMTP_PASSWORD", PASSWORD.to_owned()),
            ("HOODY_SMTP_CERTIFICATE", certificate.display().to_string()),
        ] {
            control_plane.set(name, value);
        }
    }

    /// Where the mails are.
    pub fn mails(&self) -> PathBuf {
        self.folder.join("mail")
    }
}

/// Waits for a mail to `address` in a folder of `.eml` files, takes it, and gives the token in it.
pub async fn take_token(folder: &Path, address: &str) -> Result<String> {
    let is_token = |line: &&str| line.len() == 64 && line.bytes().all(|byte| byte.is_ascii_hexdigit());
    let token = wait::until(&format!("a mail to {address}"), DEADLINE, async || {
        let Ok(entries) = fs::read_dir(folder) else { return Ok(None) };
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "eml") {
                continue;
            }
            let text = fs::read_to_string(&path)?;
            if text.lines().any(|line| line.trim() == format!("To: {address}")) {
                fs::remove_file(&path)?;
                let token = text.lines().map(str::trim).find(is_token);
                return Ok(Some(token.context("the mail has no token")?.to_owned()));
            }
        }
        Ok(None)
    })
    .await?;
    secrets::note(&token);
    Ok(token)
}
