//! One simulated agent: enrolment, and a session from the hello to the end of its connection.

use super::fleet::Shared;
use anyhow::{Context, Result, bail};
use hoody_protocol::{
    bounded::{Bytes, List, Text},
    container::{ContainerSpec, Desired, State, StatusReport},
    enrol::{EnrolReply, EnrolRequest},
    id::{ContainerId, ServerId},
    join_token::JoinToken,
    link::{
        CommandReply, Heartbeat, Hello, HelloReply, InventoryEntry, NodeFacts, Report, ReportAck, ReportBatch,
        ReportEntry,
    },
    operation::{OperationOutcome, OperationRequest},
    stats::{ContainerStats, NetworkStats, NodeStats, StatsBatch},
    stream,
    time::now_ms,
    transport::{self, CertificateDer, Close, Identity, NODE, SERVER_NAME},
    version::{self, SpecVersion},
};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::mpsc;

/// The time the answer to a hello has, as for a real agent.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// The time an enrolment has.
const ENROL_DEADLINE: Duration = Duration::from_secs(30);
/// Reports that wait for their acknowledgement.
const REPORTS: usize = 64;
const AGENT_VERSION: &str = "simulated";

/// What an agent holds of one container.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// The newest specification.
    pub version: SpecVersion,
    /// Position in the container's order.
    pub sequence: u64,
}

/// An enrolled agent with what it holds.
#[derive(Debug)]
pub struct Identified {
    /// Its server.
    pub server: ServerId,
    config: quinn::ClientConfig,
    containers: Mutex<BTreeMap<ContainerId, Held>>,
}

/// How a session ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// No connection came about: refused by the listener, or no answer.
    NotConnected,
    /// The hello was refused, or not answered in time.
    NotAccepted,
    /// It was up, and is not any more; to be dialled again within this time, as the control plane said.
    Down(Duration),
}

/// Enrols a new agent with a join token, as `hoody-agent join` does.
pub async fn enrol(endpoint: &Endpoint, address: SocketAddr, token: &str) -> Result<Identified> {
    let token: JoinToken = token.parse()?;
    let key = transport::generate_node_key()?;
    let config = transport::enrol_client_config(token.authority)?;
    let request = EnrolRequest {
        secret: token.secret.clone(),
        csr: transport::signing_request(&key)?.try_into()?,
        agent_version: Text::truncated(AGENT_VERSION),
    };
    let connection = endpoint.connect_with(config, address, SERVER_NAME)?.await.context("connect to enrol")?;
    let reply = stream::ask(&connection, &request, ENROL_DEADLINE).await?;
    Close::Done.close(&connection);
    let EnrolReply::Issued { server, chain, authorities } = reply else { bail!("enrolment was refused: {reply:?}") };
    let identity = Identity::of_node(certificates(chain), &key);
    let config = transport::client_config(Some(&identity), &certificates(authorities), NODE)?;
    Ok(Identified { server, config, containers: Mutex::default() })
}

fn certificates<const N: usize, const M: usize>(list: List<Bytes<N>, M>) -> Vec<CertificateDer<'static>> {
    list.into_inner().into_iter().map(|der| CertificateDer::from(der.into_inner())).collect()
}

impl Identified {
    /// Makes the agent hold a container, as if it had been sent before.
    pub fn hold(&self, container: ContainerId, held: Held) {
        self.held(|containers| containers.insert(container, held));
    }

    fn held<T>(&self, act: impl FnOnce(&mut BTreeMap<ContainerId, Held>) -> T) -> T {
        // Nothing panics while it is held.
        act(&mut self.containers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Connects, says hello and serves the link to its end.
    pub(super) async fn session(&self, endpoint: &Endpoint, address: SocketAddr, shared: &Shared) -> End {
        let Ok(connecting) = endpoint.connect_with(self.config.clone(), address, SERVER_NAME) else {
            return End::NotConnected;
        };
        let Ok(connection) = connecting.await else { return End::NotConnected };
        let hello = tokio::time::timeout(HELLO_DEADLINE, self.hello(&connection)).await;
        let Ok(Ok(Some((control, pause)))) = hello else {
            Close::Done.close(&connection);
            return End::NotAccepted;
        };
        shared.up();
        let (reports, queue) = mpsc::channel(REPORTS);
        tokio::select! {
            _ = connection.closed() => {}
            _ = heartbeats(control, pause) => {}
            _ = self.measurements(&connection, pause) => {}
            _ = self.commands(&connection, &reports) => {}
            _ = send_reports(&connection, queue) => {}
        }
        let spread = connection.close_reason().map_or(Duration::ZERO, |reason| Close::spread(&reason));
        Close::Done.close(&connection);
        shared.down();
        End::Down(spread)
    }

    async fn hello(&self, connection: &Connection) -> Result<Option<(SendStream, Duration)>> {
        let entry = |(&container, held): (&ContainerId, &Held)| InventoryEntry {
            container,
            version: held.version,
            state: State::Running,
            sequence: held.sequence,
        };
        let inventory: Vec<InventoryEntry> = self.held(|containers| containers.iter().map(entry).collect());
        let hello = Hello {
            protocol: version::SUPPORTED,
            agent_version: Text::truncated(AGENT_VERSION),
            boot_id: Text::truncated("simulated"),
            facts: facts(),
            inventory: inventory.try_into()?,
            journal_lost: 0,
            // One process has all agents, for good.
            instance: Some(Text::truncated(self.server.to_string())),
        };
        let (mut send, mut recv) = connection.open_bi().await?;
        stream::write(&mut send, &hello).await?;
        match stream::read(&mut recv).await? {
            HelloReply::Accepted { heartbeat_ms, .. } => Ok(Some((send, Duration::from_millis(heartbeat_ms)))),
            HelloReply::Refused { .. } => Ok(None),
        }
    }

    async fn measurements(&self, connection: &Connection, pause: Duration) -> Result<()> {
        // Agents that connect together do not go on reporting in step.
        tokio::time::sleep(pause.mul_f64(rand::random())).await;
        let mut ticks = tokio::time::interval(pause);
        loop {
            ticks.tick().await;
            let containers: Vec<ContainerId> = self.held(|containers| containers.keys().copied().collect());
            let stats: Vec<ContainerStats> = containers.into_iter().map(container_stats).collect();
            let batch = StatsBatch { at: now_ms(), node: NodeStats::default(), containers: stats.try_into()? };
            let mut send = connection.open_uni().await?;
            stream::write(&mut send, &batch).await?;
            send.finish()?;
        }
    }

    async fn commands(&self, connection: &Connection, reports: &mpsc::Sender<Report>) -> Result<()> {
        loop {
            let (send, recv) = connection.accept_bi().await?;
            self.command(send, recv, reports).await?;
        }
    }

    async fn command(&self, mut send: SendStream, mut recv: RecvStream, reports: &mpsc::Sender<Report>) -> Result<()> {
        let frame = stream::read_frame(&mut recv).await?;
        let report = if frame.is::<ContainerSpec>() {
            let spec: ContainerSpec = frame.decode()?;
            self.hold(spec.id, Held { version: spec.version, sequence: spec.sequence });
            Report::Status(status(&spec))
        } else {
            let request: OperationRequest = frame.decode()?;
            let (id, container) = (request.id, request.container);
            Report::Outcome(OperationOutcome { id, container, failure: None, bytes: None, at: now_ms() })
        };
        stream::write(&mut send, &CommandReply::Accepted).await?;
        send.finish()?;
        reports.send(report).await?;
        Ok(())
    }
}

async fn heartbeats(mut control: SendStream, pause: Duration) -> Result<()> {
    let mut ticks = tokio::time::interval(pause);
    loop {
        ticks.tick().await;
        stream::write(&mut control, &Heartbeat { now: now_ms(), unacknowledged: 0 }).await?;
    }
}

/// Sends reports one by one, each after the acknowledgement of the one before.
async fn send_reports(connection: &Connection, mut queue: mpsc::Receiver<Report>) -> Result<()> {
    let Some(mut report) = queue.recv().await else { return std::future::pending().await };
    let (mut send, mut recv) = connection.open_bi().await?;
    let mut position = now_ms();
    loop {
        position += 1;
        let entries = vec![ReportEntry { position, report }].try_into()?;
        stream::write(&mut send, &ReportBatch { entries }).await?;
        let _: ReportAck = stream::read(&mut recv).await?;
        let Some(next) = queue.recv().await else { return std::future::pending().await };
        report = next;
    }
}

fn facts() -> NodeFacts {
    NodeFacts {
        hostname: Text::truncated("simulated"),
        architecture: Text::truncated("amd64"),
        kernel: Text::truncated("6.1.0"),
        os: Text::truncated("Debian GNU/Linux 12 (bookworm)"),
        cpu_model: Text::truncated("none"),
        cpu_cores: 64,
        memory_bytes: 256 << 30,
        disk_bytes: 4 << 40,
        kvm: false,
    }
}

fn status(spec: &ContainerSpec) -> StatusReport {
    let state = match spec.desired {
        Desired::Running { .. } => State::Running,
        Desired::Paused { .. } => State::Paused,
        Desired::Stopped { .. } => State::Stopped,
        Desired::Deleted => State::Deleted,
    };
    StatusReport {
        container: spec.id,
        version: spec.version,
        state,
        converged: true,
        cause: None,
        exit_code: None,
        address: Some(Ipv4Addr::new(10, 64, 0, 2)),
        started_at: (state == State::Running).then(now_ms),
        firewall_error: None,
        limits_error: None,
        ssh_key_error: None,
        oom_kills: 0,
        egress: None,
        share_failures: Default::default(),
        at: now_ms(),
    }
}

fn container_stats(container: ContainerId) -> ContainerStats {
    ContainerStats {
        container,
        cpu_usage_ns: Some(now_ms()),
        cpu_percent: Some(1.5),
        memory_bytes: Some(64 << 20),
        memory_peak_bytes: Some(96 << 20),
        swap_bytes: Some(0),
        disk_bytes: Some(128 << 20),
        processes: Some(7),
        network: Some(NetworkStats {
            interface: Text::truncated("eth0"),
            address: Some(Ipv4Addr::new(10, 64, 0, 2)),
            received_bytes: 1 << 20,
            sent_bytes: 1 << 20,
            received_packets: 1 << 10,
            sent_packets: 1 << 10,
            received_errors: 0,
            sent_errors: 0,
            received_dropped: 0,
            sent_dropped: 0,
        }),
        rules: List::default(),
        ramdisk: None,
    }
}
