//! The cluster and everything it makes. Dropping it removes all of it, also after a failed test.

mod capabilities;
mod clock;
mod control_plane;
mod disk;
mod process;
mod proxy;
mod server;
mod slot;

pub use control_plane::{ControlPlane, Database, program};
pub use process::{Process, run};
pub use server::Server;

use crate::{api::Api, image};
use anyhow::{Context, Result, ensure};
use slot::Slot;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// The time everything has to come up.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// The administrator of every cluster.
pub const ADMIN: &str = "admin";
/// The tenant of every cluster, who rents its servers.
pub const TENANT: &str = "tenant";

/// What a cluster consists of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Servers.
    pub servers: usize,
    /// The database.
    pub database: Database,
    /// Control planes beside the first, on one PostgreSQL.
    pub replicas: usize,
    /// Servers know one of the control planes each, in turn; else all of them.
    pub spread: bool,
    /// Images of the catalogue.
    pub images: Vec<&'static str>,
    /// Bytes of each server's pool; its file is sparse.
    pub pool_bytes: u64,
    /// Pools are as on disks of their own: their room is allocated, and nothing of them is in memory a second time.
    pub pool_disks: bool,
    /// Bytes of the largest packets between servers and control plane.
    pub packet_bytes: u16,
    /// Bytes of a file system for each server's state folder; `None`: a folder on the machine's.
    pub state_bytes: Option<u64>,
    /// More lines for each agent's settings.
    pub agent_settings: String,
    /// What may be run on the servers themselves: the text of each one's policy.
    pub commands: String,
    /// Added to the environment of each agent's program.
    pub agent_environment: Vec<(String, String)>,
    /// Where everything is kept; `None`: a temporary folder.
    pub folder: Option<PathBuf>,
    /// Where the API listens; `None`: wherever nothing else does.
    pub http_port: Option<u16>,
    /// More settings of the control plane, as environment variables.
    pub settings: Vec<(&'static str, String)>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            servers: 1,
            database: Database::Sqlite,
            replicas: 0,
            spread: false,
            images: vec!["busybox"],
            pool_bytes: 16 << 30,
            pool_disks: false,
            packet_bytes: 1_500,
            state_bytes: None,
            agent_settings: String::new(),
            commands: String::new(),
            agent_environment: Vec::new(),
            folder: None,
            http_port: None,
            settings: Vec::new(),
        }
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    /// The control plane.
    pub control_plane: ControlPlane,
    /// Those beside it.
    pub replicas: Vec<ControlPlane>,
    /// The servers.
    pub servers: Vec<Server>,
    /// The administrator, logged in.
    pub admin: Api,
    /// The tenant, logged in.
    pub tenant: Api,
    /// The tenant's password.
    pub password: String,
    folder: Folder,
    _slot: Slot,
}

#[derive(Debug)]
enum Folder {
    Temporary(tempfile::TempDir),
    Kept(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(folder) => folder,
        }
    }
}

impl Cluster {
    /// Starts everything and waits until every server is online.
    pub async fn start(plan: Plan) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "not root: clusters need network namespaces, mounts and cgroups; run as root"
        );
        let slot = Slot::take()?;
        let folder = match plan.folder.clone() {
            Some(path) => {
                std::fs::create_dir_all(&path)?;
                Folder::Kept(path)
            }
            None => Folder::Temporary(tempfile::Builder::new().prefix("hoody-cluster-").tempdir()?),
        };
        let addresses: Vec<_> = (1..=plan.servers).map(|number| slot.uplink_host(number)).collect();
        let mut control_plane = ControlPlane::prepare(
            folder.path().join("control-plane"),
            plan.database.clone(),
            addresses.clone(),
            plan.http_port,
        )?;
        for (name, value) in &plan.settings {
            control_plane.set(name, value);
        }
        for name in &plan.images {
            control_plane.import_image(name, &image::archive(name)?)?;
        }
        let password = random_password()?;
        control_plane.create_user(ADMIN, &password, true)?;
        control_plane.create_user(TENANT, &password, false)?;
        control_plane.start().await?;
        let mut replicas = Vec::new();
        for number in 1..=plan.replicas {
            let mut replica =
                control_plane.replica(folder.path().join(format!("replica-{number}")), addresses.clone())?;
            replica.start().await?;
            replicas.push(replica);
        }
        let mut servers = Vec::new();
        for number in 1..=plan.servers {
            let mut server = Server::make(&slot, number, folder.path(), &plan)?;
            let planes: Vec<&ControlPlane> = std::iter::once(&control_plane).chain(&replicas).collect();
            let token = match plan.spread {
                true => planes[(number - 1) % planes.len()].lonely_join_token(&server.name, TENANT)?,
                false => control_plane.join_token(&server.name, TENANT)?,
            };
            server.join(&token)?;
            server.start()?;
            servers.push(server);
        }
        let admin = Api::login(control_plane.base_url(), ADMIN, &password).await?;
        let tenant = Api::login(control_plane.base_url(), TENANT, &password).await?;
        let mut this = Self { control_plane, replicas, servers, admin, tenant, password, folder, _slot: slot };
        let found = this.find_servers().await;
        found.with_context(|| this.log_tails())?;
        Ok(this)
    }

    /// Another tenant with the same password, logged in; without servers.
    pub async fn second_tenant(&self, name: &str) -> Result<Api> {
        self.control_plane.create_user(name, &self.password, false)?;
        Api::login(self.control_plane.base_url(), name, &self.password).await
    }

    /// A tenant that signs up and answers the mail in `mails`; without servers.
    pub async fn sign_up(&self, username: &str, password: &str, mails: &Path) -> Result<Api> {
        let api = Api::anonymous(self.control_plane.base_url())?;
        let email = format!("{username}@example.com");
        let body = serde_json::json!({ "email": email, "username": username, "password": password });
        api.post("/api/v1/auth/signup", body).await?.data()?;
        let token = crate::smtp::take_token(mails, &email).await?;
        let data = api.post("/api/v1/auth/verify-email", serde_json::json!({ "token": token })).await?.data()?;
        Ok(api.with_token(Some(data["token"].as_str().context("verification gave no token")?)))
    }

    /// Fails where a log of the cluster holds a secret that this process used.
    pub fn check_logs(&self) -> Result<()> {
        crate::secrets::check_logs(self.folder())
    }

    /// What the API says about a server.
    pub async fn server_row(&self, server: &Server) -> Result<serde_json::Value> {
        self.admin.get(&format!("/api/v1/admin/servers/{}", server.id)).await?.data()
    }

    /// The ends of all logs, for messages.
    pub fn log_tails(&self) -> String {
        let planes = self.replicas.iter().chain([&self.control_plane]).map(ControlPlane::log);
        let logs = self.servers.iter().flat_map(|server| [server.log(), server.proxy_log()]);
        let logs = logs.filter(|log| log.exists()).chain(planes);
        logs.map(|log| process::log_end(&log)).collect::<Vec<_>>().join("\n")
    }

    /// The cluster's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until every server is online and learns its id.
    async fn find_servers(&mut self) -> Result<()> {
        for server in &mut self.servers {
            let admin = &self.admin;
            let name = &server.name;
            let found = crate::wait::until("the server is online", START_DEADLINE, async || {
                let all = admin.get("/api/v1/admin/servers").await?.data()?;
                let list = all["servers"].as_array().context("no list of servers")?.clone();
                Ok(list.into_iter().find(|row| row["name"] == name.as_str() && row["online"] == true))
            });
            server.id = found.await?["id"].as_str().context("a server without id")?.to_owned();
        }
        Ok(())
    }

    /// Waits until the server is online (or offline), as the API sees it.
    pub async fn wait_online(&self, server: &Server, online: bool) -> Result<()> {
        let path = format!("/api/v1/admin/servers/{}", server.id);
        crate::wait::until("the server's link", START_DEADLINE, async || {
            let row = self.admin.get(&path).await?.data()?;
            Ok((row["online"] == online).then_some(()))
        })
        .await
    }
}

fn random_password() -> Result<String> {
    let bytes = std::fs::read("/proc/sys/kernel/random/uuid")?;
    Ok(format!("Test-{}", String::from_utf8(bytes)?.trim()))
}
