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
    fs::File,
    io::{Read, Seek, SeekFrom},
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
    log_before: u64,
    /// What the server holds with the container in each shape.
    references: BTreeMap<Shape, Snapshot>,
    /// What the last check has found; nothing was asked since.
    shape: Option<Shape>,
    /// Numbers the requests.
    asked: u32,
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
        let server = cluster.servers[0].id.clone();
        let tenant = Tenant { api, admin, project, server, bystander: bystander.clone() };
        let mut this = Self {
            cluster,
            tenant,
            program,
            faults,
            bystander,
            log_before: 0,
            references: BTreeMap::new(),
            shape: None,
            asked: 0,
        };
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
                if only.as_ref().is_some_and(|only| only != point) || !verb.is_walked_at(point) {
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
        let empty = self.look("").await?;
        self.references.insert(Shape::Absent, empty);
        for verb in Verb::ALL {
            self.prepare(verb.before()).await.with_context(|| format!("before {verb:?}"))?;
            if verb == Verb::Create {
                self.forget_images()?;
            }
            self.shape = None;
            self.faults.forget()?;
            match verb {
                Verb::Return => {
                    self.stop_program()?;
                    self.start_program().await?;
                }
                verb => self.ask(verb).await?,
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
        if verb == Verb::Create && point.starts_with("image.") {
            self.forget_images()?;
        }
        self.shape = None;
        let key = self.key();
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
                let key = key.clone();
                Some(tokio::spawn(async move { verb.ask(&tenant, &key).await }))
            }
        };
        self.wait_for_death(request.as_ref()).await?;
        self.faults.disarm()?;
        self.start_program().await?;
        if let Some(request) = request {
            match request.await? {
                // Offline for the moment, or an operation that the control plane gave up: its row says so.
                Ok(answer) if self.program == Program::Agent => {
                    ensure!(answer.status < 500 || verb.is_operation(), "{}: {}", answer.status, answer.body);
                }
                Ok(_) => {}
                Err(error) if self.program == Program::Agent => return Err(error),
                // The client does not know and asks again; it gets the outcome of what was committed, or it is done now.
                Err(_) => {
                    let written = verb.repeats() && {
                        let id = self.subject().await?;
                        self.tenant.operations(&id).await?.0 > operations
                    };
                    if !written && !verb.is_accepted(&self.tenant).await? {
                        let again = verb.ask(&self.tenant, &key).await?;
                        ensure!(again.status < 300 || verb.is_operation(), "again: {}: {}", again.status, again.body);
                        ensure!(again.status != 409, "again: {}", again.body);
                    }
                }
            }
        }
        let mut after = verb.after();
        if verb.is_operation() {
            // One operation, and it ends: one that was committed and not yet sent is begun only now.
            let id = self.subject().await?;
            let ended = wait::until("the outcome of the operation", DEADLINE, async || {
                let (total, open) = self.tenant.operations(&id).await?;
                ensure!(total == operations + 1, "{total} operations after {operations}");
                Ok(open.is_empty().then_some(()))
            });
            ended.await?;
            if !self.tenant.last_was_done(&id).await? {
                after = verb.before();
            }
        }
        self.check(after).await.context("after")?;
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
        if self.shape == Some(shape) {
            return Ok(());
        }
        let before = self.shape.take();
        let id = self.tenant.subject().await?;
        if shape == Shape::Absent {
            if id.is_some() {
                self.ask(Verb::Delete).await?;
            }
            return self.check(Shape::Absent).await;
        }
        if id.is_none() {
            self.ask(Verb::Create).await?;
        }
        let id = self.subject().await?;
        let path = format!("/api/v1/containers/{id}");
        let row = self.tenant.api.get(&path).await?.data()?;
        let is = |word: &str| row["status"] == word;
        match shape {
            Shape::Stopped if !is("stopped") => self.ask(Verb::ForceStop).await?,
            Shape::Running | Shape::Proxied | Shape::Shared | Shape::Kept if is("paused") => {
                self.ask(Verb::Resume).await?
            }
            Shape::Running | Shape::Paused | Shape::Proxied | Shape::Shared | Shape::Kept if is("stopped") => {
                self.ask(Verb::Start).await?;
            }
            _ => {}
        }
        if shape == Shape::Paused && !is("paused") {
            self.ask(Verb::Pause).await?;
        }
        // Nobody knows before the first check.
        if before.is_none_or(|before| before == Shape::Ruled) {
            self.tenant.api.post(&format!("{path}/firewall/reset"), serde_json::json!({})).await?.data()?;
        }
        if before.is_none_or(|before| before == Shape::Proxied) {
            self.ask(Verb::Direct).await?;
        }
        if before.is_none_or(|before| before == Shape::Shared) {
            self.ask(Verb::Unshare).await?;
        }
        if shape == Shape::Shared {
            self.ask(Verb::Share).await?;
        }
        if shape == Shape::Proxied {
            self.ask(Verb::Proxy).await?;
        }
        let kept = row["snapshot_count"] != 0;
        match (shape, kept) {
            (Shape::Kept, false) => self.ask(Verb::Keep).await?,
            (Shape::Kept, true) | (_, false) => {}
            (_, true) => self.ask(Verb::Forget).await?,
        }
        self.check(shape).await
    }

    /// The image is fetched and unpacked again when it is next needed, which must not be now.
    fn forget_images(&self) -> Result<()> {
        for image in std::fs::read_dir(self.server().pool().join("images"))? {
            run(Command::new("btrfs").args(["-q", "subvolume", "delete"]).arg(image?.path()))?;
        }
        Ok(())
    }

    /// Asks for what must succeed.
    async fn ask(&mut self, verb: Verb) -> Result<()> {
        let key = self.key();
        verb.ask(&self.tenant, &key).await?.data().map(|_| ())
    }

    /// An idempotency key that was not used before.
    fn key(&mut self) -> String {
        self.asked += 1;
        format!("walk {}", self.asked)
    }

    /// Waits until the API says that the container has the shape, every owner on the server has settled, and the
    /// server holds what belongs to the shape, no more and no less.
    async fn check(&mut self, shape: Shape) -> Result<()> {
        // What comes next may be an operation, which is refused while the server is offline.
        self.cluster.wait_online(self.server(), true).await?;
        let name = format!("the container is {}", shape.status());
        let id = self
            .until(&name, DEADLINE, async |this| {
                let Some(id) = this.tenant.subject().await? else {
                    return Ok((shape == Shape::Absent).then(String::new));
                };
                let row = this.tenant.api.get(&format!("/api/v1/containers/{id}")).await?.data()?;
                Ok((row["status"] == shape.status()).then_some(id))
            })
            .await?;
        self.until("the agent has settled", DEADLINE, async |this| this.has_settled(&id)).await?;
        if let Some(reference) = self.references.get(&shape).cloned() {
            let mut last = None;
            let same = self.until("the server holds what it should", SETTLE, async |this| {
                let now = this.look(&id).await?;
                let same = now == reference;
                last = Some(now);
                Ok(same.then_some(()))
            });
            same.await.with_context(|| difference(&reference, last.as_ref()))?;
        } else {
            let snapshot = self.look(&id).await?;
            self.references.insert(shape, snapshot);
        }
        self.shape = Some(shape);
        Ok(())
    }

    /// Waits for what `look` gives; fails at once where the program has ended.
    async fn until<T>(
        &mut self,
        what: &str,
        deadline: Duration,
        mut look: impl AsyncFnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        wait::until(what, deadline, async || {
            self.process()?.check()?;
            look(self).await
        })
        .await
    }

    /// True once the link is up, everything is reported, and every container was looked at since the last start
    /// of the agent.
    fn has_settled(&self, id: &str) -> Result<Option<()>> {
        let server = self.server();
        // It may just be starting.
        let Ok(status) = server.status_now() else { return Ok(None) };
        if status["link"]["state"] != "up" || status["unacknowledged"] != 0 {
            return Ok(None);
        }
        let mut log = File::open(server.log())?;
        log.seek(SeekFrom::Start(self.log_before))?;
        let mut text = Vec::new();
        log.read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let looked = |id: &str| {
            let reports = |line: &str| line.contains(" state ") && line.contains(id) && line.contains("converged=true");
            id.is_empty() || text.lines().any(reports)
        };
        Ok((looked(&self.bystander) && looked(id)).then_some(()))
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
            // The web server beside answers each request in a process of its own.
            all.dedup_by(|one, other| one == other && one.starts_with("busybox httpd"));
            // What a container wrote is kept for its whole life, whether it runs or not.
            all.retain(|line| kind != "files" || id.is_empty() || !line.contains(&format!("/logs/{NAME}.log")));
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
                self.log_before = std::fs::metadata(self.server().log())?.len();
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
        "files" if line.contains("/snapshots/") => vec![without_ids(line)],
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
