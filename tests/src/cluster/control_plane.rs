//! The control plane's process, its folder and its command line.

use super::process::{Process, run};
use crate::ports::Port;
use anyhow::{Context, Result, ensure};
use std::{
    io::Write,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

const START_DEADLINE: Duration = Duration::from_secs(30);

/// Which database a cluster uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    /// A file.
    Sqlite,
    /// SQLite in this folder.
    SqliteIn(PathBuf),
    /// The database of this URL, as [`crate::postgres::FreshDatabase`] makes it.
    Postgres(String),
}

/// The control plane.
#[derive(Debug)]
pub struct ControlPlane {
    folder: PathBuf,
    database_url: String,
    http_port: u16,
    node_port: u16,
    replica_port: u16,
    node_addresses: Vec<String>,
    /// Added to the environment of what is started from now on.
    pub environment: Vec<(String, String)>,
    process: Option<Process>,
    /// How far off its clock is from the next start on, for example `+40d`.
    pub clock: Option<String>,
    /// Given away after the process has ended.
    _ports: [Port; 3],
}

/// A binary of the workspace, built beside this one.
pub fn program(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap_or_default();
    // target/debug/dev or target/debug/deps/test-…
    let folder = here.ancestors().skip(1).find(|folder| folder.join(name).is_file());
    folder.unwrap_or(Path::new("")).join(name)
}

impl ControlPlane {
    pub(super) fn prepare(
        folder: PathBuf,
        database: Database,
        node_addresses: Vec<Ipv4Addr>,
        http_port: Option<u16>,
    ) -> Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let database_url = match database {
            Database::Sqlite => format!("sqlite://{}/hoody.db", folder.display()),
            Database::SqliteIn(folder) => format!("sqlite://{}/hoody.db", folder.display()),
            Database::Postgres(url) => url,
        };
        let ports = [Port::take()?, Port::take()?, Port::take()?];
        let [free_port, node_port, replica_port] = ports.each_ref().map(Port::number);
        if let Some(wanted) = http_port {
            TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)).context("the API's port")?;
        }
        let http_port = http_port.unwrap_or(free_port);
        // Simulated agents, the only ones of a cluster without servers, are on this machine.
        let node_addresses = if node_addresses.is_empty() { vec![Ipv4Addr::LOCALHOST] } else { node_addresses };
        let node_addresses = node_addresses.iter().map(|address| format!("{address}:{node_port}")).collect();
        Ok(Self {
            folder,
            database_url,
            http_port,
            node_port,
            replica_port,
            node_addresses,
            environment: Vec::new(),
            process: None,
            clock: None,
            _ports: ports,
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program("hoody-control-plane"));
        command
            .env("HOODY_DATA_DIR", &self.folder)
            .env("HOODY_DATABASE_URL", &self.database_url)
            .env("HOODY_HTTP_ADDRESS", format!("127.0.0.1:{}", self.http_port))
            .env("HOODY_NODE_ADDRESS", format!("0.0.0.0:{}", self.node_port))
            .env("HOODY_NODE_PUBLIC_ADDRESSES", self.node_addresses.join(","))
            .env("HOODY_HEARTBEAT_INTERVAL", "1s")
            .env("HOODY_REPLICA_ADDRESS", format!("127.0.0.1:{}", self.replica_port))
            // Tests log in and ask far more often than people.
            .env("HOODY_RATE_LIMIT_AUTHENTICATED", "1000000")
            .env("HOODY_RATE_LIMIT_ANONYMOUS", "1000000")
            .env("HOODY_RATE_LIMIT_LOGIN", "1000000")
            .env("HOODY_RATE_LIMIT_SIGNUP", "1000000");
        command
    }

    /// Another replica of it, which has run: the same database, master key and blobs, ports of its own. Not started
    /// yet. Join tokens from now on lead to both, to this one first.
    pub(super) fn replica(&mut self, folder: PathBuf, node_addresses: Vec<Ipv4Addr>) -> Result<Self> {
        let database = Database::Postgres(self.database_url.clone());
        let mut replica = Self::prepare(folder, database, node_addresses, None)?;
        std::fs::copy(self.folder.join("master.key"), replica.folder.join("master.key")).context("the master key")?;
        std::os::unix::fs::symlink(self.folder.join("blobs"), replica.folder.join("blobs"))?;
        replica.environment = self.environment.clone();
        self.node_addresses.extend(replica.node_addresses.iter().cloned());
        Ok(replica)
    }

    /// Sets a variable of its environment, from the next start on.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.push((name.to_owned(), value.into()));
    }

    /// Where mails are written while no mail server is set.
    pub fn mails(&self) -> PathBuf {
        self.folder.join("mail")
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&mut self) -> Result<()> {
        self.launch()?;
        let url = format!("{}/readyz", self.base_url());
        crate::wait::until("the control plane is ready", START_DEADLINE, async || {
            self.process()?.check()?;
            let answer = reqwest::get(&url).await;
            Ok(answer.is_ok_and(|answer| answer.status().is_success()).then_some(()))
        })
        .await
    }

    /// Starts it.
    pub fn launch(&mut self) -> Result<()> {
        let environment = self.environment.iter().map(|(name, value)| (name, value));
        let mut command = self.command();
        command.envs(environment).arg("serve");
        super::clock::shift(&mut command, self.clock.as_deref())?;
        self.process = Some(Process::start("the control plane", &mut command, &self.log())?);
        Ok(())
    }

    /// Its log file.
    pub fn log(&self) -> PathBuf {
        self.folder.join("control-plane.log")
    }

    /// The running process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("the control plane does not run")
    }

    /// Its process id, where it runs.
    pub fn pid(&self) -> Option<i32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Kills it without warning.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the control plane does not run")?.kill()
    }

    /// Asks it to end and waits.
    pub fn stop(&mut self) -> Result<()> {
        self.process.take().context("the control plane does not run")?.stop()
    }

    /// Where the API is.
    pub fn base_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    /// Its data folder.
    pub fn data_dir(&self) -> &Path {
        &self.folder
    }

    /// The UDP port for nodes.
    pub fn node_port(&self) -> u16 {
        self.node_port
    }

    /// The database.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// Adds an image to the catalogue.
    pub fn import_image(&self, name: &str, archive: &Path) -> Result<()> {
        run(self.command().args(["image", "import", name]).arg(archive)).map(|_| ())
    }

    /// Makes an account.
    pub fn create_user(&self, name: &str, password: &str, admin: bool) -> Result<()> {
        crate::secrets::note(password);
        let mut command = self.command();
        command.args(["admin", "create-user", name, "--email", &format!("{name}@example.com"), "--password-stdin"]);
        if admin {
            command.arg("--admin");
        }
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        child.stdin.take().context("no standard input")?.write_all(password.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "create-user failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// A join token for a new server that `owner` rents.
    pub fn join_token(&self, server: &str, owner: &str) -> Result<String> {
        let printed = run(self.command().args(["admin", "join-token", server, "--create", "--owner", owner]))?;
        Self::token_in(&printed)
    }

    fn token_in(printed: &str) -> Result<String> {
        let token = printed.split_whitespace().find(|word| word.starts_with("hoody-join-1."));
        let token = token.context("no join token was printed")?;
        crate::secrets::note(token);
        Ok(token.to_owned())
    }

    /// The same, which leads to this control plane alone, whatever replicas there are.
    pub(super) fn lonely_join_token(&self, server: &str, owner: &str) -> Result<String> {
        let own = self.node_addresses.first().cloned().unwrap_or_default();
        let arguments = ["admin", "join-token", server, "--create", "--owner", owner];
        Self::token_in(&run(self.command().env("HOODY_NODE_PUBLIC_ADDRESSES", own).args(arguments))?)
    }

    /// Any other command line of the control plane.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        run(self.command().args(arguments))
    }

    /// The same, with more in its environment.
    pub fn cli_with(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Result<String> {
        run(self.command().envs(environment.iter().copied()).args(arguments))
    }

    /// A command line that is killed at a fault point; fails where it ends in another way.
    pub fn cli_killed_at(&self, point: &str, arguments: &[&str]) -> Result<()> {
        self.cli_killed_with(point, &[], arguments)
    }

    /// The same, with more in its environment.
    pub fn cli_killed_with(&self, point: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Result<()> {
        let mut command = self.command();
        let output =
            command.envs(environment.iter().copied()).env("HOODY_FAULT_POINT", point).args(arguments).output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.signal() == Some(9), "{arguments:?} at {point} ended: {}\n{text}", output.status);
        Ok(())
    }
}
