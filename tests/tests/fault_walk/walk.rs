//! The walk: a cluster, a container beside the walk that serves requests all the time, and one that is
//! brought to where a verb begins, again and again.

use super::verb::{NAME, Shape, Tenant, Verb};
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{Cluster, Plan, Process, Server, run},
    faults::Faults,
    probe, traces,
    traffic::Traffic,
    wait,
};
use nix::libc::SIGKILL;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    time::{Duration, Instant},
};

/// For any one step of the walk.
const DEADLINE: Duration = Duration::from_secs(60);
/// For the server to hold what it should, once the API says that it does.
const SETTLE: Duration = Duration::from_secs(30);
/// How long a request that has been answered may still have effects that reach a point.
const LATE: Duration = Duration::from_secs(10);
const PORT: u16 = 8000;

type Snapshot = Vec<(String, Vec<String>)>;

/// Which program dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    Agent,
    ControlPlane,
}

struct Walk {
    cluster: Cluster,
    tenant: Tenant,
    program: Program,
    faults: Faults,
    bystander: String,
    /// Bytes of the agent's log before its last start.
    log_before: usize,
    /// What the server holds with the container in each shape.
    references: BTreeMap<Shape, Snapshot>,
}

/// Kills `program` at every point of its registry that one of `verbs` reaches.
pub(super) async fn walk(program: Program, verbs: &[Verb]) -> Result<()> {
    let mut walk = Walk::start(program).await?;
    let outcome = walk.all(verbs).await;
    outcome.with_context(|| walk.cluster.log_tails())
}

impl Walk {
    async fn start(program: Program) -> Result<Self> {
        let faults = Faults::new()?;
        faults.disarm()?;
        let mut cluster = Cluster::start(Plan::default()).await?;
        match program {
            Program::Agent => cluster.servers[0].environment.push(faults.environment()),
            Program::ControlPlane => cluster.control_plane.environment.push(faults.environment()),
        }
        let (api, admin) = (cluster.tenant.clone(), cluster.admin.clone());
        let project = api.project("walk").await?;
        let bystander = api.container(&project, "busybox", serde_json::json!({ "name": "bystander" })).await?;
        api.operate(&bystander, "start").await?;
        api.wait_status(&bystander, "running").await?;
        let tenant = Tenant { api, admin, project, server: cluster.servers[0].id.clone() };
        let mut this = Self { cluster, tenant, program, faults, bystander, log_before: 0, references: BTreeMap::new() };
        this.stop_program()?;
        this.start_program().await?;
        Ok(this)
    }

    async fn all(&mut self, verbs: &[Verb]) -> Result<()> {
        let web = probe::web(self.server(), &self.bystander, PORT, "beside")?;
        probe::answers(&web, true).await?;
        let traffic = Traffic::start(&web);
        let begun = Instant::now();
        let found = self.discover().await?;
        let found_after = begun.elapsed();
        let mut kills = 0;
        // For whoever mends one point.
        let only = std::env::var("HOODY_WALK_ONLY").ok();
        for verb in verbs {
            for point in &found.iter().find(|(of, _)| of == verb).context("a verb was not tried")?.1 {
                if only.as_ref().is_some_and(|only| only != point) {
                    continue;
                }
                self.kill(*verb, point).await.with_context(|| format!("{verb:?}, killed at {point}"))?;
                kills += 1;
            }
        }
        self.prepare(Shape::Absent).await?;
        self.check_outcomes()?;
        let seen = traffic.finish()?;
        let what = self.program;
        println!("{what:?}: {kills} kills in {:?} (points found in {found_after:?}); {seen:?}", begun.elapsed());
        Ok(())
    }

    /// Does every verb once without a fault: which points each reaches, and what the server then holds.
    async fn discover(&mut self) -> Result<Vec<(Verb, BTreeSet<String>)>> {
        let mut found = Vec::new();
        self.references.insert(Shape::Absent, self.look("").await?);
        for verb in Verb::ALL {
            self.prepare(verb.before()).await.with_context(|| format!("before {verb:?}"))?;
            self.faults.forget()?;
            match verb {
                Verb::Return => {
                    self.stop_program()?;
                    self.start_program().await?;
                }
                verb => {
                    verb.ask(&self.tenant).await?.data()?;
                }
            }
            self.check(verb.after()).await.with_context(|| format!("after {verb:?} without a fault"))?;
            found.push((verb, self.faults.reached()));
        }
        let registry = match self.program {
            Program::Agent => hoody_fault::AGENT,
            Program::ControlPlane => hoody_fault::CONTROL_PLANE,
        };
        let reached: BTreeSet<&str> = found.iter().flat_map(|(_, points)| points).map(String::as_str).collect();
        let missing: Vec<_> = registry.iter().filter(|point| !reached.contains(*point)).collect();
        ensure!(missing.is_empty(), "no verb reaches {missing:?}");
        Ok(found)
    }

    /// Kills the program at the point while the verb is done, starts it again, and checks everything.
    async fn kill(&mut self, verb: Verb, point: &str) -> Result<()> {
        self.prepare(verb.before()).await.context("before")?;
        let operations = match self.tenant.subject().await? {
            Some(id) => self.tenant.operations(&id).await?.0,
            None => 0,
        };
        let request = match verb {
            Verb::Return => {
                self.stop_program()?;
                self.faults.arm(point)?;
                self.launch_program()?;
                None
            }
            verb => {
                self.faults.arm(point)?;
                let tenant = self.tenant.clone();
                Some(tokio::spawn(async move { verb.ask(&tenant).await }))
            }
        };
        self.wait_for_death(request.as_ref()).await?;
        self.faults.disarm()?;
        self.start_program().await?;
        if let Some(request) = request {
            match request.await? {
                // Offline for the moment, or an operation that the control plane gave up: its row says so.
                Ok(answer) if self.program == Program::Agent => {
                    ensure!(answer.status < 500 || verb == Verb::Restart, "{}: {}", answer.status, answer.body);
                }
                Ok(_) => {}
                Err(error) if self.program == Program::Agent => return Err(error),
                // The client does not know, looks, and asks again where nothing was accepted.
                Err(_) => {
                    if !verb.is_accepted(&self.tenant, operations).await? {
                        let again = verb.ask(&self.tenant).await?;
                        ensure!(again.status < 500 || verb == Verb::Restart, "again: {}: {}", again.status, again.body);
                    }
                }
            }
        }
        if verb == Verb::Restart {
            // One operation, and it ends: one that was committed and not yet sent is begun only now.
            let id = self.subject().await?;
            let ended = wait::until("the outcome of the restart", DEADLINE, async || {
                let (total, open) = self.tenant.operations(&id).await?;
                ensure!(total == operations + 1, "{total} operations after {operations}");
                Ok(open.is_empty().then_some(()))
            });
            ended.await?;
        }
        self.check(verb.after()).await.context("after")?;
        Ok(())
    }

    async fn wait_for_death(
        &mut self,
        request: Option<&tokio::task::JoinHandle<Result<hoody_tests::api::Answer>>>,
    ) -> Result<()> {
        let mut answered = None;
        wait::until("the death at the point", DEADLINE, async || {
            if let Some(signal) = self.process()?.killed()? {
                ensure!(signal == SIGKILL, "ended by signal {signal}");
                return Ok(Some(()));
            }
            if request.is_some_and(|request| request.is_finished()) {
                let since: &Instant = answered.get_or_insert_with(Instant::now);
                ensure!(since.elapsed() < LATE, "the point was not reached again");
            }
            Ok(None)
        })
        .await
    }

    /// Brings the container to a shape without a fault.
    async fn prepare(&mut self, shape: Shape) -> Result<()> {
        let id = self.tenant.subject().await?;
        let row = match &id {
            Some(id) => self.tenant.api.get(&format!("/api/v1/containers/{id}")).await?.data()?,
            None => serde_json::json!({ "status": "absent" }),
        };
        let is = |word: &str| row["status"] == word;
        if shape == Shape::Absent {
            if id.is_some() {
                Verb::Delete.ask(&self.tenant).await?.data()?;
            }
            self.check(Shape::Absent).await?;
            // The image is fetched and unpacked again.
            for image in std::fs::read_dir(self.server().pool().join("images"))? {
                run(Command::new("btrfs").args(["-q", "subvolume", "delete"]).arg(image?.path()))?;
            }
            return Ok(());
        }
        if id.is_none() {
            Verb::Create.ask(&self.tenant).await?.data()?;
        }
        match shape {
            Shape::Stopped if is("running") => drop(Verb::ForceStop.ask(&self.tenant).await?.data()?),
            Shape::Running | Shape::Proxied if !is("running") => drop(Verb::Start.ask(&self.tenant).await?.data()?),
            _ => {}
        }
        let id = self.subject().await?;
        self.tenant
            .api
            .post(&format!("/api/v1/containers/{id}/firewall/reset"), serde_json::json!({}))
            .await?
            .data()?;
        let network = if shape == Shape::Proxied { Verb::Proxy } else { Verb::Direct };
        network.ask(&self.tenant).await?.data()?;
        self.check(shape).await
    }

    /// Waits until the API says that the container has the shape, every owner on the server has settled, and the
    /// server holds what belongs to the shape, no more and no less.
    async fn check(&mut self, shape: Shape) -> Result<()> {
        let mut last = None;
        let id = match shape {
            Shape::Absent => {
                let gone = wait::until("the container is gone", DEADLINE, async || {
                    Ok(self.tenant.subject().await?.is_none().then_some(()))
                });
                gone.await?;
                String::new()
            }
            shape => {
                let id = self.subject().await?;
                self.tenant.api.wait_status(&id, shape.status()).await?;
                id
            }
        };
        self.settled(&id).await?;
        let Some(reference) = self.references.get(&shape) else {
            let snapshot = self.look(&id).await?;
            self.references.insert(shape, snapshot);
            return Ok(());
        };
        let same = wait::until("the server holds what it should", SETTLE, async || {
            let now = self.look(&id).await?;
            let same = now == *reference;
            last = Some(now);
            Ok(same.then_some(()))
        });
        same.await.with_context(|| difference(reference, last.as_ref()))
    }

    /// Waits until the link is up, everything is reported, and every container was looked at since the last
    /// start of the agent.
    async fn settled(&self, id: &str) -> Result<()> {
        let server = self.server();
        wait::until("the agent has settled", DEADLINE, async || {
            // It may just be starting.
            let Ok(status) = server.status() else { return Ok(None) };
            let log = std::fs::read(server.log())?;
            let log = String::from_utf8_lossy(&log[self.log_before.min(log.len())..]).into_owned();
            let looked = |id: &str| {
                let reports =
                    |line: &str| line.contains(" state ") && line.contains(id) && line.contains("converged=true");
                id.is_empty() || log.lines().any(reports)
            };
            let up = status["link"]["state"] == "up" && status["unacknowledged"] == 0;
            Ok((up && looked(&self.bystander) && looked(id)).then_some(()))
        })
        .await
    }

    /// What the server holds, without what differs between two containers.
    async fn look(&self, id: &str) -> Result<Snapshot> {
        let mut snapshot = traces::snapshot(self.server())?;
        let address = if id.is_empty() { None } else { Some(probe::address(self.server(), id)?.to_string()) };
        for (kind, lines) in &mut snapshot {
            let named = |line: &String| match &address {
                Some(address) => {
                    // The address of its listeners is its own within the loopback network.
                    let listener = address.split_once('.').map_or(String::new(), |(_, rest)| format!("127.{rest}"));
                    let line = line.replace(id, NAME).replace(&id[12..], NAME).replace(address, "ADDRESS");
                    line.replace(&listener, "LISTENER")
                }
                None => line.clone(),
            };
            let mut all: Vec<String> = lines.iter().flat_map(|line| elements(kind, &named(line))).collect();
            all.sort();
            *lines = all;
        }
        Ok(snapshot)
    }

    /// No operation was journaled twice.
    fn check_outcomes(&self) -> Result<()> {
        let log = std::fs::read_to_string(self.server().log())?;
        let mut ended = BTreeSet::new();
        for line in log.lines().filter(|line| line.contains("an operation ended")) {
            let operation = line.split_whitespace().find(|word| word.contains("operation=")).context("no id")?;
            ensure!(ended.insert(operation.to_owned()), "two outcomes: {line}");
        }
        Ok(())
    }

    async fn subject(&self) -> Result<String> {
        self.tenant.subject().await?.context("the container is not there")
    }

    fn server(&self) -> &Server {
        &self.cluster.servers[0]
    }

    fn process(&mut self) -> Result<&mut Process> {
        match self.program {
            Program::Agent => self.cluster.servers[0].agent(),
            Program::ControlPlane => self.cluster.control_plane.process(),
        }
    }

    fn stop_program(&mut self) -> Result<()> {
        match self.program {
            Program::Agent => self.cluster.servers[0].stop_agent(),
            Program::ControlPlane => self.cluster.control_plane.stop(),
        }
    }

    fn launch_program(&mut self) -> Result<()> {
        match self.program {
            Program::Agent => {
                self.log_before = std::fs::metadata(self.server().log())?.len() as usize;
                self.cluster.servers[0].start()
            }
            Program::ControlPlane => self.cluster.control_plane.launch(),
        }
    }

    async fn start_program(&mut self) -> Result<()> {
        match self.program {
            Program::Agent => self.launch_program(),
            Program::ControlPlane => self.cluster.control_plane.start().await,
        }
    }
}

/// What a line says, without hardware addresses, which come from the id; elements of a set apart, whose order says
/// nothing.
fn elements(kind: &str, line: &str) -> Vec<String> {
    match kind {
        "links" => vec![line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")],
        "neighbours" => vec![line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")],
        // Addresses with connections at this moment come and go with the traffic beside.
        "rules" if line.contains("ct count over") && !line.contains("add @") => Vec::new(),
        "rules" => {
            let line = without_ids(line);
            let inner = line.trim_start_matches("elements = {").trim_end_matches(['}', ',', ' ']);
            inner.split(", ").map(|element| element.trim().to_owned()).collect()
        }
        _ => vec![line.to_owned()],
    }
}

/// The line with a mark for every identifier and digest in it: those of rules are new each time.
fn without_ids(line: &str) -> String {
    let is_id = |word: &str| word.len() >= 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = line.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    words
        .map(|word| {
            let end = word.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(word.len());
            if is_id(&word[..end]) { format!("ID{}", &word[end..]) } else { word.to_owned() }
        })
        .collect()
}

/// What is there too much, and what is missing.
fn difference(reference: &Snapshot, now: Option<&Snapshot>) -> String {
    let Some(now) = now else { return "the server was never looked at".to_owned() };
    let mut text = String::new();
    for ((kind, expected), (_, found)) in reference.iter().zip(now) {
        for line in found.iter().filter(|line| !expected.contains(line)) {
            text += &format!("\nleaked {kind}: {line}");
        }
        for line in expected.iter().filter(|line| !found.contains(line)) {
            text += &format!("\nmissing {kind}: {line}");
        }
        if text.is_empty() && found.len() != expected.len() {
            text += &format!("\n{kind}: {} instead of {}: {found:?}", found.len(), expected.len());
        }
    }
    text
}
