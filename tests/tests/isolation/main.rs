//! What a container can do to its neighbours, its server and the platform: tried from inside, on the real
//! kernel, by the programs of a hostile tenant (`hostile.c`).

mod image;
mod limits;
mod network;
mod privileges;
mod resources;

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::Api,
    cluster::{Cluster, Plan, Server, run},
    probe::{self, Web},
};
use serde_json::json;
use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const PORT: u16 = 8000;
const DEADLINE: Duration = Duration::from_secs(60);
const MEMORY_MB: u64 = 96;
const DISK_MB: u64 = 64;
/// The platform's limit of processes where nothing else is said.
const PIDS: usize = 512;
/// Where the hostile program is in a container.
const HOSTILE: &str = "/bin/hostile";

struct World {
    cluster: Cluster,
    project: String,
    /// Two containers of one tenant and one of another, each with a web server.
    mine: [(String, Web); 2],
    theirs: (String, Web),
    other: Api,
    /// The hostile program on this machine.
    hostile: PathBuf,
}

impl World {
    fn server(&self) -> &Server {
        &self.cluster.servers[0]
    }

    /// Whether a script in a container succeeds.
    fn succeeds(&self, container: &str, script: &str) -> bool {
        self.server().exec(container, &["sh", "-c", script]).is_ok()
    }

    fn fetches(&self, container: &str, address: SocketAddr) -> bool {
        let url = format!("http://{address}/");
        self.server().exec(container, &["timeout", "1", "wget", "-q", "-O", "-", &url]).is_ok()
    }

    /// What the hostile program prints in a container.
    fn hostile(&self, container: &str, arguments: &[&str]) -> Result<String> {
        self.server().exec(container, &[&[HOSTILE], arguments].concat())
    }

    /// The container's files as they lie on the server.
    fn files(&self, container: &str) -> PathBuf {
        self.server().pool().join("containers").join(container)
    }

    /// Puts the hostile program into a container.
    fn arm(&self, container: &str) -> Result<()> {
        let target = self.files(container).join(HOSTILE.trim_start_matches('/'));
        std::fs::copy(&self.hostile, &target)?;
        Ok(std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o755))?)
    }
}

/// Builds the hostile program.
fn build_hostile() -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/isolation/hostile.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hostile-{}", std::process::id()));
    run(Command::new("cc").args(["-static", "-O1", "-o"]).arg(&program).arg(source)).context("build hostile.c")?;
    Ok(program)
}

/// A running container without a service.
async fn bare(server: &Server, api: &Api, project: &str, name: &str, image: &str) -> Result<String> {
    let specs = json!({ "cpu_cores": 0.25, "memory_mb": MEMORY_MB, "storage_mb": DISK_MB });
    let id = api.container(project, image, json!({ "name": name, "server_id": server.id, "specs": specs })).await?;
    api.operate(&id, "start").await?;
    api.wait_status(&id, "running").await?;
    Ok(id)
}

async fn container(server: &Server, api: &Api, project: &str, name: &str) -> Result<(String, Web)> {
    let id = bare(server, api, project, name, "busybox").await?;
    let web = probe::web(server, &id, PORT, name)?;
    probe::answers(&web, true).await?;
    Ok((id, web))
}

async fn world() -> Result<World> {
    let cluster = Cluster::start(Plan::default()).await?;
    let other = cluster.second_tenant("other").await?;
    let server = &cluster.servers[0];
    let project = cluster.tenant.project("isolation").await?;
    let one = container(server, &cluster.tenant, &project, "one").await?;
    let two = container(server, &cluster.tenant, &project, "two").await?;
    // The server changes hands for a moment, so that another tenant has a container on it too.
    let row = format!("/api/v1/admin/servers/{}", server.id);
    cluster.admin.patch(&row, json!({ "owner": "other" })).await?.data()?;
    let theirs = container(server, &other, &other.project("isolation").await?, "theirs").await?;
    cluster.admin.patch(&row, json!({ "owner": hoody_tests::cluster::TENANT })).await?.data()?;
    let hostile = build_hostile()?;
    let world = World { mine: [one, two], theirs, other, cluster, project, hostile };
    world.arm(&world.mine[0].0)?;
    Ok(world)
}

/// Collects what failed, so that one hole does not hide another.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn note(&mut self, what: &str, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.0.push(format!("{what}: {error:#}"));
        }
    }

    /// After all of it the neighbours and the agent go on.
    fn finish(mut self, world: &World, agent: Option<i32>) -> Result<()> {
        self.note("the second of the tenant", probe::answers_now(&world.mine[1].1, true));
        self.note("the other tenant's", probe::answers_now(&world.theirs.1, true));
        if world.server().status()?["link"]["state"] != "up" || world.server().agent_pid() != agent {
            self.0.push("the agent was affected".to_owned());
        }
        ensure!(self.0.is_empty(), "{}\n{}", self.0.join("\n"), world.cluster.log_tails());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_stays_within_its_bounds() -> Result<()> {
    let world = world().await?;
    let agent = world.server().agent_pid();
    let mut problems = Problems::default();
    problems.note("network", network::reaches_nobody_else(&world));
    problems.note("forged addresses", network::cannot_forge(&world));
    problems.note("privileges", privileges::root_is_nobody(&world));
    problems.note("system calls", privileges::system_calls(&world));
    problems.note("subvolumes", privileges::nested_subvolumes(&world));
    problems.note("shared counts", resources::shared_counts(&world));
    problems.note("disk", resources::disk(&world));
    problems.note("inodes", resources::inodes(&world).await);
    problems.note("processes", resources::processes(&world).await);
    problems.note("memory", resources::memory(&world).await);
    problems.finish(&world, agent)
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_as_hostile_as_tenants_and_limits_change_live() -> Result<()> {
    let world = world().await?;
    let agent = world.server().agent_pid();
    let mut problems = Problems::default();
    problems.note("image", image::hostile_image(&world).await);
    problems.note("log", resources::log(&world).await);
    problems.note("limits", limits::change_live(&world).await);
    problems.note("memory in use", limits::memory_in_use(&world).await);
    problems.note("an ended process", limits::a_child_out_of_memory(&world).await);
    problems.finish(&world, agent)
}
