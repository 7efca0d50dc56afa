//! A node for tests without a link: it takes from the store what a link would send, and stores what a
//! node would report, through the same functions as the real one. It obeys at once, unless told otherwise.

use super::Nodes;
use crate::store::{
    Store, container,
    dispatch::{self, Item},
    report::{self, Applied},
};
use hoody_protocol::{
    container::{Cause, ContainerSpec, Desired, State, StatusReport},
    egress::EgressStatus,
    firewall::FirewallSpec,
    id::{ContainerId, ServerId},
    operation::OperationOutcome,
    share::{ShareFailure, ShareProblem},
    time::now_ms,
};
use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::task::JoinHandle;

/// How often the store is looked at.
const PERIOD: Duration = Duration::from_millis(3);

/// What the node does wrong.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Takes nothing.
    pub deaf: bool,
    /// Takes specifications and operations, and answers none.
    pub silent: bool,
    /// Fails every specification and operation.
    pub fails: Option<Cause>,
    /// Cannot put firewall rules in force.
    pub firewall: Option<Cause>,
    /// Finds an upstream proxy that does not work.
    pub egress: Option<Cause>,
    /// Cannot put limits in force.
    pub limits: Option<Cause>,
    /// Cannot mount any share.
    pub share: Option<ShareProblem>,
    /// Processes ended for lack of memory.
    pub oom_kills: u64,
}

/// The node; it ends with this handle.
#[derive(Debug)]
pub struct SimulatedNode {
    /// What it does wrong; held while it looks and acts.
    faults: Arc<tokio::sync::Mutex<Faults>>,
    /// The rules in force, by container.
    pub firewall: Arc<Mutex<HashMap<ContainerId, FirewallSpec>>>,
    /// Operations it has carried out.
    pub operations: Arc<Mutex<u32>>,
    task: JoinHandle<()>,
}

impl Drop for SimulatedNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SimulatedNode {
    /// Starts the node of `server`.
    pub fn start(store: &Store, nodes: &Nodes, server: ServerId) -> Self {
        let (faults, firewall, operations) =
            <(Arc<tokio::sync::Mutex<Faults>>, Arc<Mutex<_>>, Arc<Mutex<u32>>)>::default();
        let mut node = Node {
            store: store.clone(),
            nodes: nodes.clone(),
            server,
            faults: faults.clone(),
            firewall: firewall.clone(),
            operations: operations.clone(),
            position: 0,
        };
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(PERIOD);
            loop {
                ticks.tick().await;
                node.pass().await;
            }
        });
        Self { faults, firewall, operations, task }
    }

    /// Changes what it does wrong; nothing is done in the old way after the return.
    pub async fn set(&self, faults: Faults) {
        *self.faults.lock().await = faults;
    }
}

struct Node {
    store: Store,
    nodes: Nodes,
    server: ServerId,
    faults: Arc<tokio::sync::Mutex<Faults>>,
    firewall: Arc<Mutex<HashMap<ContainerId, FirewallSpec>>>,
    operations: Arc<Mutex<u32>>,
    position: u64,
}

impl Node {
    async fn pass(&mut self) {
        let faults = self.faults.clone().lock_owned().await;
        if faults.deaf {
            return;
        }
        let containers = dispatch::containers_with_work(&self.store, self.server).await.expect("work");
        for container in containers {
            for item in dispatch::items(&self.store, self.server, container).await.expect("items") {
                match item {
                    Item::Spec { spec, .. } => self.take_spec(&spec, &faults).await,
                    Item::Operation(operation) => self.take_operation(operation, &faults).await,
                }
            }
            self.nodes.changes.announce(container);
        }
    }

    async fn take_spec(&mut self, spec: &ContainerSpec, faults: &Faults) {
        let mut tx = self.store.begin().await.expect("begin");
        dispatch::acknowledge(&mut tx, self.server, spec.id, spec.version).await.expect("acknowledge");
        if !faults.silent {
            if faults.firewall.is_none() {
                self.firewall.lock().expect("firewall").insert(spec.id, spec.firewall.clone());
            }
            self.position += 1;
            let report = report_of(spec, faults);
            let now = now_ms() as i64;
            let applied = report::apply(&mut tx, self.server, self.position, &report, now).await;
            if applied.expect("apply") == Applied::Gone {
                container::purge(&mut tx, spec.id).await.expect("purge");
            }
        }
        tx.commit().await.expect("commit");
    }

    async fn take_operation(&mut self, operation: dispatch::OpenOperation, faults: &Faults) {
        let now = now_ms() as i64;
        if !operation.dispatched
            && !dispatch::mark_dispatched(&self.store, operation.request.id, now).await.expect("mark")
        {
            return;
        }
        if faults.silent {
            return;
        }
        *self.operations.lock().expect("operations") += 1;
        let outcome = OperationOutcome {
            id: operation.request.id,
            container: operation.request.container,
            failure: faults.fails.clone(),
            bytes: Some(4096),
            at: now_ms(),
        };
        let mut tx = self.store.begin().await.expect("begin");
        dispatch::record_outcome(&mut tx, self.server, &outcome, now).await.expect("outcome");
        tx.commit().await.expect("commit");
    }
}

fn report_of(spec: &ContainerSpec, faults: &Faults) -> StatusReport {
    let state = match spec.desired {
        Desired::Running { .. } => State::Running,
        Desired::Paused { .. } => State::Paused,
        Desired::Stopped { .. } => State::Stopped,
        Desired::Deleted => State::Deleted,
    };
    let fails = faults.fails.is_some();
    StatusReport {
        container: spec.id,
        version: spec.version,
        state: if fails { State::Failed } else { state },
        converged: !fails,
        cause: faults.fails.clone(),
        exit_code: None,
        address: Some(Ipv4Addr::new(10, 77, 0, 2)),
        started_at: (state == State::Running).then(now_ms),
        firewall_error: faults.firewall.clone(),
        limits_error: faults.limits.clone(),
        ssh_key_error: None,
        oom_kills: faults.oom_kills,
        egress: spec
            .egress
            .as_ref()
            .filter(|_| state == State::Running)
            .map(|_| EgressStatus { working: faults.egress.is_none(), cause: faults.egress.clone() }),
        share_failures: faults
            .share
            .map(|problem| spec.shares.iter().map(|share| ShareFailure { id: share.id, problem }).collect::<Vec<_>>())
            .and_then(|failures| failures.try_into().ok())
            .unwrap_or_default(),
        at: now_ms(),
    }
}
