//! A round trip of any value of every message.

#![allow(clippy::unwrap_used, reason = "a panic is the message of a test")]

use hoody_protocol::{
    blob::{BlobReply, BlobRequest},
    bounded::{Bytes, List, Map, Text},
    codec::{self, HEADER_BYTES},
    command::{
        Account, CommandControl, CommandOutcome, CommandRequest, CommandUpdate, Ending, Order, OutputChunk,
        OutputStream, schema::Value,
    },
    container::{Cause, ContainerSpec, Desired, Limits, State, StatusReport},
    egress::{Credentials, EgressSpec, EgressStatus, Upstream, UpstreamKind},
    enrol::{EnrolReply, EnrolRequest, RenewRequest},
    exec::{
        Command, Connect, ExecRequest, Exit, ProcessEnd, ProcessInput, ProcessOutput, TerminalEnd, TerminalInfo,
        TerminalList, TerminalQuery, TerminalRequest, TerminalSize,
    },
    export::{ExportOffer, ExportOrder},
    firewall::{Action, FirewallRule, FirewallSpec, Match, PortRange, Ports, RuleCounter},
    id::{
        ContainerId, ExecutionId, ExportId, OperationId, ProjectId, RuleId, ServerId, ShareId, SnapshotId, TerminalId,
        TransferId, UserId,
    },
    image::{Compression, Digest, ImageConfig, ImageSpec, Layer},
    inspection::{Inspection, InspectionQuery, InspectionReply, ProcessInfo, ServiceInfo, SocketInfo, SocketOwner},
    link::{
        CommandReply, Heartbeat, Hello, HelloReply, InventoryEntry, NodeFacts, Refusal, RenewalOrder, Report,
        ReportAck, ReportBatch, ReportEntry, SpecQuery, SpecReply,
    },
    logs::{LogBatch, LogMore, LogPosition, LogRecord, LogRequest},
    operation::{OperationKind, OperationOutcome, OperationRequest},
    replica::{Age, KnownQuery, KnownReply, Moved, RelayPurpose, RelayReply, RelayRequest},
    share::{RamdiskScope, ShareFailure, ShareMount, ShareProblem},
    snapshot::{HeldSnapshot, MovedSnapshot, Origin, SnapshotQuery, SnapshotReply},
    stats::{ContainerStats, NetworkStats, NodeStats, RamdiskStats, StatsBatch},
    stream_digest::StreamDigest,
    tag::{self, Message},
    transfer::{
        DivergenceQuery, DivergenceReply, ReceiveOrder, RetainOrder, SendOrder, TransferData, TransferOffer,
        TransferProgress, TransferReply, TransferRequest,
    },
    version::{ProtocolRange, SpecVersion},
};
use ipnet::{IpNet, Ipv4Net};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    net::IpAddr,
};

/// Values of each message.
const VALUES: usize = 300;

/// Makes random values; many are at the edge of their type.
struct Any(RefCell<StdRng>);

impl Any {
    fn number(&self) -> u64 {
        let mut random = self.0.borrow_mut();
        let bits = random.random_range(0..=64);
        if bits == 0 { 0 } else { random.next_u64() >> (64 - bits) }
    }

    fn below(&self, end: usize) -> usize {
        self.0.borrow_mut().random_range(0..end)
    }

    fn yes(&self) -> bool {
        self.below(2) == 1
    }

    fn one<T: Clone>(&self, values: &[T]) -> T {
        values[self.below(values.len())].clone()
    }

    fn option<T>(&self, value: impl FnOnce() -> T) -> Option<T> {
        self.yes().then(value)
    }

    fn text<const MAX: usize>(&self) -> Text<MAX> {
        let characters = ['a', '0', '\0', '\n', '"', 'ß', '\u{10ffff}'];
        Text::truncated((0..self.below(40)).map(|_| self.one(&characters)).collect::<String>())
    }

    fn list<T, const MAX: usize>(&self, mut item: impl FnMut() -> T) -> List<T, MAX> {
        (0..self.below(5)).map(|_| item()).collect::<Vec<_>>().try_into().unwrap_or_default()
    }

    fn map<const KEY: usize, const VALUE: usize, const MAX: usize>(&self) -> Map<Text<KEY>, Text<VALUE>, MAX> {
        let entries = (0..self.below(5)).map(|_| (self.text(), self.text()));
        entries.collect::<std::collections::BTreeMap<_, _>>().try_into().unwrap_or_default()
    }

    fn bytes<const MAX: usize>(&self) -> Bytes<MAX> {
        (0..self.below(60)).map(|_| self.number() as u8).collect::<Vec<_>>().try_into().unwrap_or_default()
    }

    fn id(&self) -> [u8; 12] {
        self.0.borrow_mut().random()
    }

    fn digest(&self) -> Digest {
        Digest::from_bytes(self.0.borrow_mut().random())
    }

    fn float(&self) -> f64 {
        self.one(&[0.0, -0.0, 1.5, f64::MAX, f64::MIN_POSITIVE, f64::INFINITY, self.number() as f64])
    }

    fn version(&self) -> SpecVersion {
        SpecVersion { epoch: self.number(), generation: self.number() }
    }

    fn cause(&self) -> Cause {
        Cause { code: self.text(), message: self.text() }
    }

    fn state(&self) -> State {
        use State::*;
        self.one(&[Creating, Stopped, Starting, Running, Paused, Stopping, Failed, Deleting, Deleted])
    }

    fn ports(&self) -> Ports {
        let range = || {
            let (a, b) = ((self.number() as u16).max(1), (self.number() as u16).max(1));
            PortRange::new(a.min(b), a.max(b)).unwrap()
        };
        Ports { source: self.list(range), destination: self.list(range) }
    }

    fn rule(&self) -> FirewallRule {
        let matches = match self.below(3) {
            0 => Match::Tcp(self.ports()),
            1 => Match::Udp(self.ports()),
            _ => Match::Icmp4 {
                icmp_type: self.option(|| self.number() as u8),
                icmp_code: self.option(|| self.number() as u8),
            },
        };
        let peer = || Ipv4Net::new((self.number() as u32).into(), self.below(33) as u8).unwrap();
        FirewallRule {
            id: RuleId::from_bytes(self.id()),
            enabled: self.yes(),
            action: self.one(&[Action::Allow, Action::Reject, Action::Drop]),
            matches,
            peer: self.option(peer),
            host: self.option(|| self.text()),
            description: self.text(),
        }
    }

    fn spec(&self) -> ContainerSpec {
        let layer = || Layer {
            digest: self.digest(),
            size: self.number(),
            compression: self.one(&[Compression::None, Compression::Gzip, Compression::Zstd]),
            archive_bytes: self.option(|| self.number()),
        };
        let config = ImageConfig {
            command: self.list(|| self.text()),
            env: self.map(),
            workdir: self.text(),
            user: self.text(),
            stop_signal: self.text(),
        };
        let run = self.number();
        ContainerSpec {
            id: ContainerId::from_bytes(self.id()),
            project: ProjectId::from_bytes(self.id()),
            owner: UserId::from_bytes(self.id()),
            version: self.version(),
            sequence: self.number(),
            desired: self.one(&[
                Desired::Running { run },
                Desired::Paused { run },
                Desired::Stopped { force: true },
                Desired::Deleted,
            ]),
            autostart: self.yes(),
            hostname: self.text(),
            image: ImageSpec::new(self.list(layer), config),
            env: self.map(),
            limits: Limits {
                cpu_millis: self.number() as u32,
                memory_bytes: self.number(),
                disk_bytes: self.number(),
                pids: self.number() as u32,
                network_mbit: self.option(|| self.number() as u32),
            },
            dns: self.list(|| (self.number() as u32).into()),
            firewall: FirewallSpec { ingress: self.list(|| self.rule()), egress: self.list(|| self.rule()) },
            egress: self.option(|| self.egress()),
            ssh_public_key: self.option(|| self.text()),
            kvm: self.yes(),
            shares: self.list(|| self.share()),
            ramdisk: self.option(|| self.one(&[RamdiskScope::Container, RamdiskScope::Project])),
            origin: self.option(|| Origin {
                container: ContainerId::from_bytes(self.id()),
                snapshot: self.option(|| SnapshotId::from_bytes(self.id())),
                kept: self.option(|| TransferId::from_bytes(self.id())),
            }),
            transfer: self.option(|| TransferId::from_bytes(self.id())),
            moved: self.yes(),
            snapshots: self.list(|| MovedSnapshot {
                id: SnapshotId::from_bytes(self.id()),
                transfer: TransferId::from_bytes(self.id()),
            }),
        }
    }

    fn share(&self) -> ShareMount {
        ShareMount {
            id: ShareId::from_bytes(self.id()),
            source: ContainerId::from_bytes(self.id()),
            path: self.text(),
            name: self.text(),
            place: self.option(|| self.text()),
            readonly: self.yes(),
            until: self.option(|| self.number()),
        }
    }

    fn problem(&self) -> ShareProblem {
        use ShareProblem::*;
        self.one(&[SourceMissing, NotAFolder, SystemPath, RestartRequired, PlaceTaken, Failed])
    }

    fn egress(&self) -> EgressSpec {
        if self.yes() {
            return EgressSpec::Block;
        }
        EgressSpec::Proxy(Upstream {
            kind: self.one(&[UpstreamKind::Socks5, UpstreamKind::Http, UpstreamKind::Https]),
            host: self.text(),
            port: self.number() as u16,
            credentials: self.option(|| Credentials { username: self.text(), password: self.text() }),
            dns: self.list(|| (self.number() as u32).into()),
        })
    }

    fn outcome(&self) -> OperationOutcome {
        OperationOutcome {
            id: OperationId::from_bytes(self.id()),
            container: ContainerId::from_bytes(self.id()),
            failure: self.option(|| self.cause()),
            bytes: self.option(|| self.number()),
            at: self.number(),
        }
    }

    fn order(&self) -> Order {
        if self.yes() {
            let value = || match self.below(3) {
                0 => Value::Text(self.text()),
                1 => Value::Integer(self.number() as i64),
                _ => Value::Flag(self.yes()),
            };
            let parameters = (0..self.below(4)).map(|_| (self.text(), value())).collect::<BTreeMap<_, _>>();
            return Order::BuiltIn { slug: self.text(), parameters: parameters.try_into().unwrap() };
        }
        let account = self.one(&[Account::Nobody, Account::Root]);
        Order::Custom { slug: self.text(), argv: self.list(|| self.text()), account, working_directory: self.text() }
    }

    fn update(&self) -> CommandUpdate {
        match self.below(4) {
            0 => CommandUpdate::Accepted,
            1 => CommandUpdate::Refused(self.cause()),
            2 => CommandUpdate::Output(OutputChunk {
                index: self.number() as u32,
                stream: self.one(&[OutputStream::Stdout, OutputStream::Stderr]),
                text: self.text(),
            }),
            _ => {
                let endings = [Ending::Exited, Ending::TimedOut, Ending::Cancelled, Ending::Interrupted];
                CommandUpdate::Ended(CommandOutcome {
                    id: ExecutionId::from_bytes(self.id()),
                    ending: if self.yes() { Ending::Failed(self.cause()) } else { self.one(&endings) },
                    exit_code: self.option(|| self.number() as i32),
                    truncated: self.yes(),
                    started_at: self.option(|| self.number()),
                    ended_at: self.number(),
                    cause: self.option(|| self.cause()),
                })
            }
        }
    }

    fn report(&self) -> ReportEntry {
        let status = || StatusReport {
            container: ContainerId::from_bytes(self.id()),
            version: self.version(),
            state: self.state(),
            converged: self.yes(),
            cause: self.option(|| self.cause()),
            exit_code: self.option(|| self.number() as i32),
            address: self.option(|| (self.number() as u32).into()),
            started_at: self.option(|| self.number()),
            firewall_error: self.option(|| self.cause()),
            limits_error: self.option(|| self.cause()),
            ssh_key_error: self.option(|| self.cause()),
            oom_kills: self.number(),
            egress: self.option(|| EgressStatus { working: self.yes(), cause: self.option(|| self.cause()) }),
            share_failures: self.list(|| ShareFailure { id: ShareId::from_bytes(self.id()), problem: self.problem() }),
            at: self.number(),
        };
        let report = if self.yes() { Report::Status(status()) } else { Report::Outcome(self.outcome()) };
        ReportEntry { position: self.number(), report }
    }

    fn hello(&self) -> Hello {
        let entry = || InventoryEntry {
            container: ContainerId::from_bytes(self.id()),
            version: self.version(),
            state: self.state(),
            sequence: self.number(),
        };
        Hello {
            protocol: ProtocolRange { min: self.number() as u16, max: self.number() as u16 },
            agent_version: self.text(),
            boot_id: self.text(),
            facts: NodeFacts {
                hostname: self.text(),
                architecture: self.text(),
                kernel: self.text(),
                os: self.text(),
                cpu_model: self.text(),
                cpu_cores: self.number() as u32,
                memory_bytes: self.number(),
                disk_bytes: self.number(),
                kvm: self.yes(),
            },
            inventory: self.list(entry),
            instance: self.option(|| self.text()),
            journal_lost: self.number() as u32,
        }
    }

    fn inspection(&self) -> Inspection {
        let process = || ProcessInfo {
            pid: self.number() as u32,
            parent: self.number() as u32,
            user: self.text(),
            name: self.text(),
            args: self.text(),
            state: self.text(),
            memory_bytes: self.number(),
            started_at: self.number(),
        };
        let owner =
            || SocketOwner { pid: self.number() as u32, name: self.text(), args: self.text(), path: self.text() };
        let ip = || match self.yes() {
            true => IpAddr::V4((self.number() as u32).into()),
            false => IpAddr::V6(u128::from(self.number()).into()),
        };
        let socket = || SocketInfo {
            protocol: self.text(),
            ip: ip(),
            port: self.number() as u16,
            user: self.text(),
            owner: self.option(owner),
        };
        let service = || ServiceInfo {
            unit: self.text(),
            active: self.text(),
            main_pid: self.option(|| self.number() as u32),
            memory_bytes: self.option(|| self.number()),
            since: self.option(|| self.number()),
            ..ServiceInfo::default()
        };
        Inspection {
            processes: self.list(process),
            process_count: self.number() as u32,
            sockets: self.list(socket),
            services: self.option(|| self.list(service)),
            truncated: self.yes(),
        }
    }

    fn stats(&self) -> StatsBatch {
        let network = || NetworkStats {
            interface: self.text(),
            address: self.option(|| (self.number() as u32).into()),
            received_bytes: self.number(),
            sent_bytes: self.number(),
            received_packets: self.number(),
            sent_packets: self.number(),
            received_errors: self.number(),
            sent_errors: self.number(),
            received_dropped: self.number(),
            sent_dropped: self.number(),
        };
        let counter =
            || RuleCounter { rule: RuleId::from_bytes(self.id()), packets: self.number(), bytes: self.number() };
        let container = || ContainerStats {
            container: ContainerId::from_bytes(self.id()),
            cpu_usage_ns: self.option(|| self.number()),
            cpu_percent: self.option(|| self.float()),
            memory_bytes: self.option(|| self.number()),
            memory_peak_bytes: self.option(|| self.number()),
            swap_bytes: self.option(|| self.number()),
            disk_bytes: self.option(|| self.number()),
            ramdisk: self.option(|| RamdiskStats { used_bytes: self.number(), total_bytes: self.number() }),
            processes: self.option(|| self.number() as u32),
            network: self.option(network),
            rules: self.list(counter),
        };
        let node = NodeStats {
            cores: self.number() as u32,
            cpu_busy_percent: self.float(),
            load: [self.float(), self.float(), self.float()],
            memory_total_bytes: self.number(),
            uptime_s: self.number(),
            pool_device_errors: self.number(),
            ..NodeStats::default()
        };
        StatsBatch { at: self.number(), node, containers: self.list(container) }
    }
}

impl Any {
    fn command(&self) -> Command {
        Command { argv: self.list(|| self.text()), env: self.map(), cwd: self.text(), user: self.text() }
    }

    fn exec(&self) -> ExecRequest {
        ExecRequest {
            container: ContainerId::from_bytes(self.id()),
            command: self.command(),
            limit_ms: self.number(),
            output_bytes: self.number(),
        }
    }

    fn size(&self) -> TerminalSize {
        TerminalSize { columns: self.number() as u16, rows: self.number() as u16 }
    }

    fn end(&self) -> ProcessEnd {
        let number = || self.number() as i32;
        ProcessEnd {
            exit: self.one(&[Exit::Code(number()), Exit::Signal(number()), Exit::Unknown]),
            cause: self.option(|| self.cause()),
            output_dropped: self.number(),
            error_dropped: self.number(),
            started_at: self.number(),
            ended_at: self.number(),
        }
    }

    fn terminal(&self) -> TerminalInfo {
        TerminalInfo {
            id: TerminalId::from_bytes(self.id()),
            user: UserId::from_bytes(self.id()),
            program: self.text(),
            connected: self.yes(),
            size: self.size(),
            position: self.number(),
            opened_at: self.number(),
            active_at: self.number(),
        }
    }

    fn log_position(&self) -> LogPosition {
        LogPosition { part: self.number(), offset: self.number() }
    }

    fn log_request(&self) -> LogRequest {
        LogRequest {
            container: ContainerId::from_bytes(self.id()),
            tail: self.option(|| self.number() as u32),
            since: self.option(|| self.number()),
            until: self.option(|| self.number()),
            output: self.yes(),
            error: self.yes(),
            after: self.option(|| self.log_position()),
            follow: self.yes(),
        }
    }

    fn log_record(&self) -> LogRecord {
        LogRecord {
            at: self.number(),
            error: self.yes(),
            partial: self.yes(),
            text: self.bytes(),
            position: self.log_position(),
        }
    }
}

fn round_trip<M: Message + PartialEq + Debug>(seen: &mut BTreeSet<u16>, message: M) {
    let bytes = codec::encode(&message);
    let (frame, rest) = codec::split_frame(&bytes).unwrap().unwrap();
    assert!(rest.is_empty());
    assert_eq!(frame.decode::<M>().unwrap(), message);
    assert_eq!(tag::reencode(&frame).unwrap(), bytes);
    // A body that is cut anywhere is no message.
    let mut cut = frame.clone();
    cut.body.truncate((bytes.len() - HEADER_BYTES).saturating_sub(1));
    assert!(cut.decode::<M>().is_err());
    seen.insert(M::TAG);
}

#[test]
fn every_message_survives_a_round_trip() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let any = Any(RefCell::new(StdRng::seed_from_u64(seed)));
    let mut seen = BTreeSet::new();
    for _ in 0..VALUES {
        let server = ServerId::from_bytes(any.id());
        let seen = &mut seen;
        round_trip(seen, EnrolRequest { secret: any.text(), csr: any.bytes(), agent_version: any.text() });
        let (chain, authorities) = (any.list(|| any.bytes()), any.list(|| any.bytes()));
        round_trip(seen, EnrolReply::Issued { server, chain, authorities });
        round_trip(seen, EnrolReply::Refused(any.cause()));
        round_trip(seen, RenewRequest { csr: any.bytes() });
        round_trip(seen, any.hello());
        let (protocol, now, heartbeat_ms) = (any.number() as u16, any.number(), any.number());
        let allowed_networks = any.list(|| IpNet::V4(Ipv4Net::new_assert((any.number() as u32).into(), 32)));
        round_trip(seen, HelloReply::Accepted { protocol, server, now, heartbeat_ms, allowed_networks });
        round_trip(seen, HelloReply::Refused { cause: any.cause(), retry: any.yes() });
        round_trip(seen, Heartbeat { now: any.number(), unacknowledged: any.number() as u32 });
        round_trip(seen, any.spec());
        let (id, container) = (OperationId::from_bytes(any.id()), ContainerId::from_bytes(any.id()));
        let (sequence, begin_within_ms) = (any.number(), any.number());
        let snapshot = SnapshotId::from_bytes(any.id());
        let kind = any.one(&[
            OperationKind::Restart,
            OperationKind::CreateSnapshot { snapshot },
            OperationKind::RestoreSnapshot { snapshot },
            OperationKind::DeleteSnapshot { snapshot },
            OperationKind::Sync {
                transfer: TransferId::from_bytes(any.id()),
                snapshot,
                origin: any.option(|| ContainerId::from_bytes(any.id())),
            },
        ]);
        round_trip(seen, OperationRequest { id, container, sequence, begin_within_ms, kind });
        round_trip(seen, CommandReply::Accepted);
        round_trip(seen, CommandReply::Superseded { held: any.version() });
        round_trip(seen, CommandReply::Done(any.outcome()));
        round_trip(seen, CommandReply::Refused(any.cause()));
        round_trip(seen, SpecQuery { container });
        round_trip(seen, SpecReply { spec: any.option(|| any.spec()) });
        round_trip(seen, RenewalOrder {});
        round_trip(seen, ReportBatch { entries: any.list(|| any.report()) });
        round_trip(seen, ReportAck { position: any.number() });
        round_trip(seen, any.stats());
        round_trip(seen, BlobRequest { digest: any.digest(), offset: any.number() });
        round_trip(seen, BlobReply::Found { size: any.number() });
        round_trip(seen, BlobReply::Refused(any.cause()));
        round_trip(seen, any.exec());
        for how in [Connect::New(any.command()), Connect::Again { after: any.option(|| any.number()) }] {
            let (terminal, user) = (TerminalId::from_bytes(any.id()), UserId::from_bytes(any.id()));
            round_trip(seen, TerminalRequest { terminal, container, user, size: any.size(), how });
        }
        round_trip(seen, ProcessInput::Data(any.bytes()));
        round_trip(seen, ProcessInput::End);
        round_trip(seen, ProcessInput::Resize(any.size()));
        round_trip(seen, ProcessInput::Credit(any.number() as u32));
        round_trip(seen, ProcessOutput::Started);
        round_trip(seen, ProcessOutput::Connected { position: any.number(), input: any.number() });
        round_trip(seen, ProcessOutput::Output(any.bytes()));
        round_trip(seen, ProcessOutput::Error(any.bytes()));
        round_trip(seen, ProcessOutput::Credit(any.number() as u32));
        round_trip(seen, ProcessOutput::Ended(any.end()));
        round_trip(seen, ProcessOutput::Failed(any.cause()));
        round_trip(seen, TerminalQuery { container });
        round_trip(seen, TerminalList { terminals: any.list(|| any.terminal()) });
        round_trip(seen, TerminalEnd { container, terminal: TerminalId::from_bytes(any.id()) });
        round_trip(seen, any.log_request());
        round_trip(seen, LogMore { bytes: any.number() as u32 });
        let records = any.list(|| any.log_record());
        round_trip(seen, LogBatch { records, lost: any.yes(), end: any.yes() });
        let (id, order, from) = (ExecutionId::from_bytes(any.id()), any.order(), any.number() as u32);
        let (timeout_ms, begin_within_ms) = (any.number(), any.number());
        round_trip(seen, CommandRequest { id, order, timeout_ms, begin_within_ms, from });
        round_trip(seen, any.one(&[CommandControl::Cancel, CommandControl::Stored]));
        round_trip(seen, any.update());
        round_trip(seen, InspectionQuery { container });
        round_trip(seen, InspectionReply::NotRunning);
        round_trip(seen, InspectionReply::Failed(any.cause()));
        round_trip(seen, InspectionReply::Running(Box::new(any.inspection())));
        round_trip(seen, SnapshotQuery { container });
        let held = || HeldSnapshot { id: snapshot, exclusive_bytes: any.option(|| any.number()) };
        round_trip(seen, SnapshotReply::Held(any.list(held)));
        round_trip(seen, SnapshotReply::Failed(any.cause()));
        let (transfer, offset) = (TransferId::from_bytes(any.id()), any.number());
        round_trip(seen, TransferRequest { transfer, offset });
        round_trip(seen, TransferOffer { transfer, offset, total: any.option(|| any.number()) });
        let snapshot = any.option(|| SnapshotId::from_bytes(any.id()));
        let base = any.option(|| TransferId::from_bytes(any.id()));
        let keep = any.list(|| TransferId::from_bytes(any.id()));
        let origin = any.option(|| Origin { container: ContainerId::from_bytes(any.id()), snapshot, kept: None });
        round_trip(
            seen,
            ReceiveOrder {
                transfer,
                container,
                base,
                origin,
                keep: keep.clone(),
                room_bytes: any.option(|| any.number()),
                held: any.yes(),
                snapshots: any.list(|| TransferId::from_bytes(any.id())),
            },
        );
        round_trip(seen, RetainOrder { container, keep: keep.clone() });
        round_trip(seen, SendOrder { transfer, container, snapshot, base, offset, keep });
        round_trip(seen, DivergenceQuery { container, base: transfer });
        round_trip(seen, DivergenceReply::Same);
        round_trip(seen, DivergenceReply::Diverged);
        round_trip(seen, DivergenceReply::Failed(any.cause()));
        round_trip(seen, TransferReply::Begin { offset });
        round_trip(seen, TransferReply::Refused { cause: any.cause(), retry: any.yes() });
        round_trip(seen, TransferData::Piece(any.bytes()));
        let own_bytes = any.option(|| any.number());
        round_trip(
            seen,
            TransferData::End { bytes: any.number(), digest: StreamDigest::of(&any.number().to_be_bytes()), own_bytes },
        );
        round_trip(seen, TransferData::Failed(any.cause()));
        round_trip(seen, TransferProgress::Taken(any.number()));
        round_trip(seen, TransferProgress::Kept);
        round_trip(seen, TransferProgress::Failed(any.cause()));
        let export = ExportId::from_bytes(any.id());
        round_trip(seen, ExportOrder { export, container, document: any.bytes() });
        round_trip(seen, ExportOffer { export });
        let server = ServerId::from_bytes(any.id());
        let purposes = [
            RelayPurpose::Question,
            RelayPurpose::Conversation,
            RelayPurpose::Transfer(transfer),
            RelayPurpose::Export(export),
        ];
        round_trip(seen, RelayRequest { server, purpose: any.one(&purposes) });
        let replies = [RelayReply::Opened, RelayReply::NotLinked, RelayReply::TooMany, RelayReply::Late];
        round_trip(seen, any.one(&replies));
        let servers = any.list(|| ServerId::from_bytes(any.id()));
        let containers = any.list(|| ContainerId::from_bytes(any.id()));
        round_trip(seen, KnownQuery { servers, containers, transfers: any.list(|| TransferId::from_bytes(any.id())) });
        let (batch, age) = (any.stats(), Age { taken_at: any.number(), age_ms: any.number() });
        round_trip(seen, KnownReply::Server { server, stats: batch.node, age });
        for stats in batch.containers.into_inner() {
            round_trip(seen, KnownReply::Container { stats: Box::new(stats), age });
        }
        let (total, rate, eta_s) =
            (any.option(|| any.number()), any.option(|| any.float()), any.option(|| any.float()));
        round_trip(seen, KnownReply::Transfer { transfer, moved: Moved { bytes: offset, total, rate, eta_s } });
        round_trip(seen, Refusal { cause: any.cause() });
    }
    assert_eq!(seen, tag::ALL.iter().map(|(tag, _)| *tag).collect(), "a message without a value here");
}
