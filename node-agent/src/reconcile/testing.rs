//! A kernel in memory behind the capability traits, and agents that live and die over it in virtual
//! time. The kernel checks the order of steps itself: what breaks it is a violation that every test asks for.

use super::{Capabilities, Reconciler, Settings, View};
use crate::{
    desired::{allocation::Allocation, journal::Journal, record::Records},
    network::AddressPool,
    ramdisk::Wanted,
    runtime::{Bundle, Process},
};
use hoody_protocol::{
    bounded::{List, Text},
    container::{ContainerSpec, Desired, Limits, State, StatusReport},
    egress::Upstream,
    firewall::{Action, FirewallRule, FirewallSpec, Match, Ports},
    id::{ContainerId, OperationId, ProjectId, RuleId, SnapshotId, TransferId, UserId},
    image::{ImageConfig, ImageSpec},
    link::{CommandReply, Report, ReportEntry},
    operation::{OperationKind, OperationOutcome, OperationRequest},
    share::ShareMount,
    snapshot::Origin,
    version::SpecVersion,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::sync::{Notify, watch};

// The traits over it, with the demands that the real ones make on order.
mod network;
mod runtime;
mod storage;

/// The container of most tests.
pub(super) const ID: ContainerId = ContainerId::from_bytes([7; 12]);
/// Its limits.
pub(super) const LIMITS: Limits =
    Limits { cpu_millis: 500, memory_bytes: 64 << 20, disk_bytes: 64 << 20, pids: 64, network_mbit: Some(100) };
/// Virtual time after which a wait has failed.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What a slow call takes.
const SLOW: Duration = Duration::from_millis(300);

/// What a call to the kernel does instead of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Fail,
    Hang,
    /// The work, and then some time before the call returns.
    Slow,
    /// A panic of the caller.
    Panic,
}

/// Where the agent dies: at this call, before or after its effect.
#[derive(Debug, Clone, Copy)]
pub(super) struct CrashAt {
    pub(super) call: usize,
    pub(super) after_effect: bool,
}

/// What strangers take away from a running container, or from the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Damage {
    Link,
    Rules,
    Bundle,
    Base,
    Monitor,
}

/// All of them.
pub(super) const DAMAGES: [Damage; 5] = [Damage::Link, Damage::Rules, Damage::Bundle, Damage::Base, Damage::Monitor];

/// What the kernel holds.
#[derive(Debug, Default)]
pub(super) struct World {
    /// Every step in order.
    pub(super) calls: Vec<&'static str>,
    /// Steps that fail or hang, and how often still.
    pub(super) faults: HashMap<&'static str, (Fault, usize)>,
    pub(super) crash: Option<CrashAt>,
    pub(super) crashed: bool,
    /// Containers whose first process ignores its stop signal.
    pub(super) stubborn: bool,
    /// First processes are exiting: alive, but without their namespaces.
    pub(super) exiting: bool,
    pub(super) roots: HashMap<ContainerId, u64>,
    /// What tells one state of a root file system from another.
    pub(super) contents: HashMap<ContainerId, u32>,
    /// The content that each snapshot keeps.
    pub(super) snapshots: BTreeMap<(ContainerId, SnapshotId), u32>,
    /// What is transferred does not fit.
    pub(super) too_large: bool,
    /// The content that each transfer brought.
    pub(super) received: BTreeMap<(ContainerId, TransferId), u32>,
    /// The content that was before a restoration.
    pub(super) aside: HashMap<ContainerId, u32>,
    pub(super) ssh_keys: HashMap<ContainerId, Option<String>>,
    pub(super) mounts: HashSet<ContainerId>,
    /// Shares that are mounted in containers.
    pub(super) shares: HashMap<ContainerId, Vec<ShareMount>>,
    /// Containers whose shared folders are not there.
    pub(super) lost_sources: HashSet<ContainerId>,
    /// Containers that run without a folder for shares.
    pub(super) without_folder: HashSet<ContainerId>,
    /// Containers whose root takes no mounts from the host.
    pub(super) without_places: HashSet<ContainerId>,
    pub(super) ramdisks: HashMap<ContainerId, Wanted>,
    pub(super) processes: HashMap<ContainerId, Process>,
    pub(super) bundles: HashMap<ContainerId, Bundle>,
    /// Containers whose conmon is gone.
    pub(super) unmonitored: HashSet<ContainerId>,
    pub(super) links: HashMap<ContainerId, Ipv4Addr>,
    pub(super) rules: HashMap<ContainerId, FirewallSpec>,
    /// What the policies let leave.
    pub(super) egress: HashMap<ContainerId, crate::firewall::Egress>,
    /// Names that are kept resolved, and how.
    pub(super) names: HashMap<ContainerId, (BTreeSet<String>, crate::names::Path)>,
    /// Upstreams that the relay was told.
    pub(super) relayed: HashMap<ContainerId, Upstream>,
    /// The base chains stand.
    pub(super) prepared: bool,
    /// Chains that this life of the agent put there.
    pub(super) applied: HashSet<ContainerId>,
    pub(super) limits: HashMap<ContainerId, Limits>,
    /// Network rates of links.
    pub(super) rates: HashMap<ContainerId, Option<u32>>,
    /// Processes ended for lack of memory.
    pub(super) oom_kills: u64,
    /// First processes started.
    pub(super) starts: usize,
    pub(super) violations: Vec<String>,
    /// What strangers took since the agent last looked whether it is there: it cannot know.
    unseen: HashSet<Damage>,
    pids: i32,
}

impl World {
    /// What a copy of this would have in it now; `None`: it is not there.
    pub(super) fn content_of(&self, origin: Origin) -> Option<u32> {
        match origin.snapshot {
            Some(snapshot) => self.snapshots.get(&(origin.container, snapshot)).copied(),
            None => {
                self.roots.get(&origin.container).map(|_| self.contents.get(&origin.container).copied().unwrap_or(0))
            }
        }
    }

    pub(super) fn is_alive(&self, id: ContainerId) -> bool {
        matches!(self.processes.get(&id), Some(Process::Running { .. } | Process::Paused { .. }))
    }

    pub(super) fn count(&self, step: &str) -> usize {
        self.calls.iter().filter(|call| **call == step).count()
    }

    /// Stop signals and kills.
    pub(super) fn signals(&self) -> (usize, usize) {
        (self.count("stop"), self.count("kill"))
    }

    /// Asserts that nothing of any container is left, and that no step came out of order.
    #[track_caller]
    pub(super) fn assert_empty(&self) {
        assert!(self.roots.is_empty() && self.mounts.is_empty(), "storage left: {self:?}");
        assert!(self.snapshots.is_empty() && self.aside.is_empty(), "snapshots left: {self:?}");
        assert!(self.processes.is_empty(), "processes left: {self:?}");
        assert!(self.links.is_empty() && self.rules.is_empty(), "network left: {self:?}");
        assert!(self.violations.is_empty(), "{:?}", self.violations);
    }

    /// As [`Self::demand`]; what strangers took since the agent looked need not be there.
    fn demand_unless(&mut self, taken: Damage, holds: bool, what: &str) {
        self.demand(holds || self.unseen.contains(&taken), what);
    }

    fn demand(&mut self, holds: bool, what: &str) {
        if !holds {
            self.violations.push(format!("{what}, after {:?}", self.calls));
        }
    }
}

/// The kernel, shared by every life of the agent.
#[derive(Debug, Clone)]
pub(super) struct Kernel(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    world: Mutex<World>,
    changed: watch::Sender<()>,
    news: Notify,
}

/// A step that a fault ended.
struct Faulted;

impl Kernel {
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap()
    }

    pub(super) fn fault(&self, step: &'static str, fault: Fault, times: usize) {
        self.world().faults.insert(step, (fault, times));
    }

    /// The first process ends by itself.
    pub(super) fn exit(&self, id: ContainerId, code: i32, oom_killed: bool) {
        self.world().processes.insert(id, Process::Exited { code: Some(code), oom_killed });
        self.0.changed.send_replace(());
    }

    /// The kernel tells its subscribers that the firewall was changed.
    pub(super) fn tell(&self) {
        self.0.news.notify_one();
    }

    pub(super) fn news(&self) -> &Notify {
        &self.0.news
    }

    /// A stranger's deed; what is not there is not taken.
    pub(super) fn damage(&self, id: ContainerId, damage: Damage) {
        let mut world = self.world();
        if damage == Damage::Base {
            world.prepared = false;
        }
        // While one is being started, the order of steps is asked, which strangers do not keep.
        if !world.is_alive(id) {
            return;
        }
        world.unseen.insert(damage);
        match damage {
            Damage::Link => _ = world.links.remove(&id),
            Damage::Rules => _ = world.rules.remove(&id),
            Damage::Bundle => _ = world.bundles.remove(&id),
            Damage::Monitor => _ = world.unmonitored.insert(id),
            Damage::Base => {}
        }
    }

    /// What a reboot leaves: the disk.
    pub(super) fn reboot(&self) {
        let mut world = self.world();
        world.processes.clear();
        world.mounts.clear();
        world.links.clear();
        world.rules.clear();
        world.bundles.clear();
        world.prepared = false;
    }

    /// Returns when the kernel is as asked.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&World) -> bool) {
        let mut changed = self.0.changed.subscribe();
        let wait = async {
            while !holds(&self.world()) {
                changed.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("{what} did not come: {:?}", self.world());
        }
    }

    /// One step: recorded, then failed, hung, cut off by a crash, or done.
    async fn step<T>(&self, name: &'static str, effect: impl FnOnce(&mut World) -> T) -> Result<T, Faulted> {
        let (mut result, hang, slow) = {
            let mut world = self.world();
            world.calls.push(name);
            let crash = world.crash.filter(|crash| crash.call == world.calls.len());
            world.crashed |= crash.is_some();
            let fault = match world.faults.get_mut(name) {
                Some((fault, times)) if *times > 0 => {
                    *times -= 1;
                    Some(*fault)
                }
                _ => None,
            };
            let slow = fault == Some(Fault::Slow);
            if fault == Some(Fault::Panic) {
                drop(world);
                panic!("a fault: {name}");
            }
            let (result, hang) = match (crash, fault) {
                (Some(CrashAt { after_effect: false, .. }), _) | (None, Some(Fault::Hang)) => (Err(Faulted), true),
                (Some(_), _) => (Ok(effect(&mut world)), true),
                (None, Some(Fault::Fail | Fault::Panic)) => (Err(Faulted), false),
                (None, None | Some(Fault::Slow)) => (Ok(effect(&mut world)), false),
            };
            (result, hang, slow)
        };
        self.0.changed.send_replace(());
        if hang {
            std::future::pending::<()>().await;
            result = Err(Faulted);
        }
        if slow {
            tokio::time::sleep(SLOW).await;
        }
        // Everything real takes a moment in which others run.
        tokio::task::yield_now().await;
        result
    }
}

/// A server: its disk and kernel, and what the control plane has of it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) kernel: Kernel,
    pub(super) folder: tempfile::TempDir,
    pub(super) boot: std::cell::Cell<u32>,
    /// Every entry received, over all lives.
    pub(super) received: watch::Sender<Vec<ReportEntry>>,
    /// Whether the control plane takes reports.
    pub(super) reachable: watch::Sender<bool>,
}

/// One life of the agent.
#[derive(Debug)]
pub(super) struct Agent<'a> {
    pub(super) node: &'a Node,
    pub(super) reconciler: Reconciler,
    /// Position of the last entry that had been received before this life; it may be sent again.
    before: u64,
}

impl Node {
    pub(super) fn new() -> Self {
        let kernel =
            Kernel(Arc::new(Shared { world: Mutex::default(), changed: watch::Sender::new(()), news: Notify::new() }));
        // In memory: thousands of lives write here, and what survives a power failure is not asked.
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        std::fs::create_dir(folder.path().join("containers")).unwrap();
        Self {
            kernel,
            folder,
            boot: std::cell::Cell::new(1),
            received: watch::Sender::default(),
            reachable: watch::Sender::new(true),
        }
    }

    /// Runs an agent until `script` ends or the kernel's crash point is reached (`None`); everything of the
    /// agent is then dropped where it is, as SIGKILL would.
    pub(super) fn life<T>(&self, script: impl AsyncFnOnce(Agent<'_>) -> T) -> Option<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        self.kernel.world().applied.clear();
        self.kernel.world().crashed = false;
        let ended = runtime.block_on(async {
            let agent = self.start();
            let crashed = self.kernel.until("the crash", |world| world.crashed);
            tokio::select! {
                biased;
                () = crashed, if self.kernel.world().crash.is_some() => None,
                value = script(agent) => Some(value),
            }
        });
        self.kernel.world().crash = None;
        ended
    }

    /// One life in which nothing is to crash.
    pub(super) fn run<T>(&self, script: impl AsyncFnOnce(Agent<'_>) -> T) -> T {
        let value = self.life(script).unwrap();
        assert!(self.kernel.world().violations.is_empty(), "{:?}", self.kernel.world().violations);
        value
    }

    pub(super) fn records(&self) -> Records {
        Records::new(self.folder.path().join("containers"))
    }

    fn start(&self) -> Agent<'_> {
        let kernel = &self.kernel;
        let settings = Settings {
            boot_id: format!("boot-{}", self.boot.get()),
            dns: vec![Ipv4Addr::new(9, 9, 9, 9)],
            stop_timeout: Duration::from_secs(10),
            drift_interval: Duration::from_secs(10),
            retry_first: Duration::from_secs(1),
            retry_longest: Duration::from_secs(60),
        };
        let capabilities = Capabilities {
            images: Arc::new(kernel.clone()),
            storage: Arc::new(kernel.clone()),
            shares: Arc::new(kernel.clone()),
            ramdisks: Arc::new(kernel.clone()),
            runtime: Arc::new(kernel.clone()),
            network: Arc::new(kernel.clone()),
            firewall: Arc::new(kernel.clone()),
            egress: Arc::new(kernel.clone()),
            names: Arc::new(kernel.clone()),
            transfers: Arc::new(kernel.clone()),
        };
        let allocation = Allocation::new(AddressPool::new("10.9.0.0/24".parse().unwrap()).unwrap(), 1 << 20);
        let journal = Journal::open(&self.folder.path().join("journal")).unwrap();
        tokio::spawn(receive(journal.clone(), self.received.clone(), self.reachable.subscribe()));
        let reconciler = Reconciler::start(settings, capabilities, self.records(), allocation, journal).unwrap();
        Agent { node: self, reconciler, before: self.received.borrow().last().map_or(0, |entry| entry.position) }
    }
}

/// The control plane: takes reports in order and acknowledges them.
async fn receive(journal: Journal, received: watch::Sender<Vec<ReportEntry>>, mut reachable: watch::Receiver<bool>) {
    let mut position = 0;
    loop {
        reachable.wait_for(|reachable| *reachable).await.unwrap();
        let entries = journal.next_after(position).await;
        position = entries.last().unwrap().position;
        received.send_modify(|all| all.extend(entries));
        reachable.wait_for(|reachable| *reachable).await.unwrap();
        journal.acknowledge(position).await;
    }
}

impl Agent<'_> {
    pub(super) async fn apply(&self, spec: &ContainerSpec) {
        let reply = self.reconciler.apply(spec.clone()).await;
        assert!(matches!(reply, CommandReply::Accepted | CommandReply::Superseded { .. }), "{reply:?}");
    }

    /// Applies a specification and waits until it is reported as reached.
    pub(super) async fn reach(&self, spec: &ContainerSpec) -> StatusReport {
        self.apply(spec).await;
        self.converged(spec.version).await
    }

    pub(super) async fn converged(&self, version: SpecVersion) -> StatusReport {
        self.status(&format!("{version}"), |status| status.version == version && status.converged).await
    }

    /// Waits for a status report of this life.
    pub(super) async fn status(&self, what: &str, holds: impl Fn(&StatusReport) -> bool) -> StatusReport {
        self.report(what, |report| match report {
            Report::Status(status) if holds(status) => Some(status.clone()),
            _ => None,
        })
        .await
    }

    /// Waits for an operation's outcome, received in any life.
    pub(super) async fn outcome(&self, id: OperationId) -> OperationOutcome {
        let known = outcomes(self.node, id).pop();
        match known {
            Some(outcome) => outcome,
            None => {
                self.report("the outcome", |report| match report {
                    Report::Outcome(outcome) if outcome.id == id => Some(outcome.clone()),
                    _ => None,
                })
                .await
            }
        }
    }

    async fn report<T>(&self, what: &str, find: impl Fn(&Report) -> Option<T>) -> T {
        let mut received = self.node.received.subscribe();
        let find = |all: &Vec<ReportEntry>| {
            all.iter().filter(|entry| entry.position > self.before).find_map(|entry| find(&entry.report))
        };
        let found = tokio::time::timeout(PATIENCE, received.wait_for(|all| find(all).is_some())).await;
        match found {
            Ok(all) => find(&all.unwrap()).unwrap(),
            Err(_) => panic!(
                "{what} was not reported; received {:#?}\nkernel {:?}",
                self.node.received.borrow(),
                self.node.kernel.world()
            ),
        }
    }

    /// Waits until what is published of the container is as asked.
    pub(super) async fn view(&self, holds: impl Fn(&View) -> bool) -> View {
        let mut view = self.reconciler.handle(ID).expect("the container is held").view;
        let found = tokio::time::timeout(PATIENCE, view.wait_for(holds)).await.expect("the view did not come");
        found.expect("the owner has ended").clone()
    }

    pub(super) async fn in_state(&self, state: State) -> View {
        self.view(|view| view.state == state).await
    }

    /// Waits until the agent has forgotten the container.
    pub(super) async fn forgotten(&self) {
        let forgotten = async {
            let Some(mut handle) = self.reconciler.handle(ID) else { return };
            // An error is the end of the owner.
            while handle.view.changed().await.is_ok() {}
            while self.reconciler.handle(ID).is_some() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, forgotten).await.expect("the container was not forgotten");
        assert!(self.node.records().load().unwrap().is_empty());
    }
}

/// Outcomes of an operation that the control plane has: one for each journal entry, however often sent.
pub(super) fn outcomes(node: &Node, id: OperationId) -> Vec<OperationOutcome> {
    let mut positions = HashSet::new();
    let received = node.received.borrow();
    let of = received.iter().filter_map(|entry| match &entry.report {
        Report::Outcome(outcome) if outcome.id == id && positions.insert(entry.position) => Some(outcome.clone()),
        _ => None,
    });
    of.collect()
}

/// Every state that was reported, in order.
pub(super) fn states(node: &Node) -> Vec<State> {
    let received = node.received.borrow();
    let states = received.iter().filter_map(|entry| match &entry.report {
        Report::Status(status) => Some(status.state),
        Report::Outcome(_) => None,
    });
    states.collect()
}

/// A specification; `generation` is its sequence too.
pub(super) fn spec(generation: u64, desired: Desired) -> ContainerSpec {
    ContainerSpec {
        id: ID,
        project: ProjectId::from_bytes([1; 12]),
        owner: UserId::from_bytes([2; 12]),
        version: SpecVersion { epoch: 1, generation },
        sequence: generation,
        desired,
        autostart: true,
        hostname: Text::truncated("web"),
        image: ImageSpec::new(List::default(), ImageConfig::default()),
        env: Default::default(),
        limits: LIMITS,
        dns: List::default(),
        firewall: FirewallSpec::default(),
        egress: None,
        ssh_public_key: None,
        kvm: false,
        shares: Default::default(),
        ramdisk: None,
        origin: None,
        transfer: None,
        moved: false,
        snapshots: Default::default(),
    }
}

pub(super) fn running(generation: u64, run: u64) -> ContainerSpec {
    spec(generation, Desired::Running { run })
}

pub(super) fn stopped(generation: u64, force: bool) -> ContainerSpec {
    spec(generation, Desired::Stopped { force })
}

/// Rules that differ from none.
pub(super) fn dropping() -> FirewallSpec {
    let rule = FirewallRule {
        id: RuleId::from_bytes([3; 12]),
        enabled: true,
        action: Action::Drop,
        matches: Match::Tcp(Ports::default()),
        peer: None,
        host: None,
        description: Text::truncated(""),
    };
    FirewallSpec { ingress: vec![rule].try_into().unwrap(), egress: List::default() }
}

pub(super) fn restart(number: u8, sequence: u64) -> OperationRequest {
    operation(number, sequence, OperationKind::Restart)
}

/// The snapshot of most tests.
pub(super) const SNAPSHOT: SnapshotId = SnapshotId::from_bytes([9; 12]);

pub(super) fn operation(number: u8, sequence: u64, kind: OperationKind) -> OperationRequest {
    let id = OperationId::from_bytes([number; 12]);
    OperationRequest { id, container: ID, sequence, begin_within_ms: 60_000, kind }
}
