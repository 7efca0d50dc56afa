//! One connection to the control plane, from the hello to its end.

use super::{
    commands, exec,
    identity::{IdentityStore, NodeIdentity},
    logs, renewal,
};
use crate::{
    commands::Commands, desired::journal::Journal, dial::DialPolicy, exec::Execs, logs::Logs, reconcile::Reconciler,
    stats::Sampler, timing::step, transfer::BulkTransfers,
};
use hoody_protocol::{
    bounded::Text,
    codec::Frame,
    command::CommandRequest,
    container::{Cause, ContainerSpec},
    exec::{ExecRequest, TerminalEnd, TerminalList, TerminalQuery, TerminalRequest},
    export::ExportOrder,
    inspection::InspectionQuery,
    link::{
        CommandReply, Heartbeat, Hello, HelloReply, NodeFacts, Refusal, RenewalOrder, ReportAck, ReportBatch,
        SpecQuery, SpecReply,
    },
    logs::LogRequest,
    operation::OperationRequest,
    snapshot::SnapshotQuery,
    stats::StatsBatch,
    stream::{self, StreamError},
    time::now_ms,
    transfer::{DivergenceQuery, ReceiveOrder, RetainOrder, SendOrder},
    transport::Close,
    version,
};
use quinn::{Connection, RecvStream, SendStream};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Notify, task::JoinSet};

/// The time between hello and its answer.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// The time the control plane has to store a batch of reports.
const ACK_DEADLINE: Duration = Duration::from_secs(30);
/// Pause before reports that were not taken are sent again.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Bounds of the pause between heartbeats, whatever the control plane asks for.
const HEARTBEAT_BOUNDS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));

/// What a session works with.
#[derive(Debug)]
pub struct SessionWork {
    /// Every container.
    pub reconciler: Reconciler,
    /// Reports to send.
    pub journal: Journal,
    /// Commands on the server itself.
    pub commands: Commands,
    /// Measurements.
    pub sampler: Sampler,
    /// Processes and terminals of clients.
    pub execs: Execs,
    /// What containers wrote.
    pub logs: Logs,
    /// Where hosts may be that tenants name.
    pub dial: DialPolicy,
    /// File systems to and from other servers.
    pub transfers: BulkTransfers,
    /// What the server is.
    pub facts: NodeFacts,
    /// The kernel's boot id.
    pub boot_id: String,
    /// This process, see [`Hello::instance`].
    pub instance: String,
}

/// How a session ended.
#[derive(Debug)]
pub(super) enum SessionEnd {
    Refused {
        cause: Cause,
        retry: bool,
    },
    Broken(Box<dyn std::error::Error + Send + Sync>),
    /// The certificate was renewed: connect with the new one.
    Renewed,
    /// The control plane goes down in order: it, or a replica, answers soon.
    Restarting {
        /// Over how long the nodes are to spread their dials.
        spread: Duration,
    },
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for SessionEnd {
    fn from(error: E) -> Self {
        Self::Broken(Box::new(error))
    }
}

/// Runs the session; `up` is called once the control plane accepted the hello.
pub(super) async fn run(
    connection: &Connection,
    work: &Arc<SessionWork>,
    store: &IdentityStore,
    identity: &NodeIdentity,
    up: impl FnOnce(),
) -> SessionEnd {
    let (control, pause) = match hello(connection, work).await {
        Ok(accepted) => accepted,
        Err(end) => return end,
    };
    up();
    let mut tasks = JoinSet::new();
    tasks.spawn(heartbeats(control, work.journal.clone(), pause));
    let renewal = Arc::new(Notify::new());
    tasks.spawn(streams(connection.clone(), work.clone(), renewal.clone()));
    tasks.spawn(reports(connection.clone(), work.journal.clone()));
    tasks.spawn(measurements(connection.clone(), work.clone(), pause));
    tasks.spawn(renewal::run(connection.clone(), store.clone(), identity.clone(), renewal));
    // Containers that failed for want of the control plane, an image for example, try again now.
    work.reconciler.wake_all();
    let end = match tasks.join_next().await {
        Some(Ok(end)) => end,
        Some(Err(panic)) => SessionEnd::Broken(Box::new(panic)),
        None => unreachable!("tasks were just spawned"),
    };
    // The connection's own end says more than the task that noticed it first.
    let end = match connection.close_reason() {
        Some(reason) if Close::of(&reason) == Some(Close::Restarting) => {
            SessionEnd::Restarting { spread: Close::spread(&reason) }
        }
        Some(reason) => reason.into(),
        None => end,
    };
    Close::Done.close(connection);
    end
}

async fn hello(connection: &Connection, work: &SessionWork) -> Result<(SendStream, Duration), SessionEnd> {
    let inventory = work.reconciler.inventory();
    let hello = Hello {
        protocol: version::SUPPORTED,
        agent_version: Text::truncated(env!("CARGO_PKG_VERSION")),
        boot_id: Text::truncated(work.boot_id.clone()),
        instance: Some(Text::truncated(work.instance.clone())),
        facts: work.facts.clone(),
        inventory: inventory.try_into()?,
        journal_lost: work.journal.lost(),
    };
    let exchange = async {
        let (mut send, mut recv) = connection.open_bi().await?;
        stream::write(&mut send, &hello).await?;
        Ok::<_, SessionEnd>((send, stream::read::<HelloReply>(&mut recv).await?))
    };
    let (send, reply) = tokio::time::timeout(HELLO_DEADLINE, exchange).await??;
    match reply {
        HelloReply::Refused { cause, retry } => Err(SessionEnd::Refused { cause, retry }),
        HelloReply::Accepted { heartbeat_ms, allowed_networks, .. } => {
            work.dial.allow(allowed_networks.into_inner());
            work.journal.loss_reported();
            let pause = Duration::from_millis(heartbeat_ms).clamp(HEARTBEAT_BOUNDS.0, HEARTBEAT_BOUNDS.1);
            Ok((send, pause))
        }
    }
}

async fn heartbeats(mut control: SendStream, journal: Journal, pause: Duration) -> SessionEnd {
    loop {
        let heartbeat = Heartbeat { now: now_ms(), unacknowledged: journal.unacknowledged() as u32 };
        if let Err(error) = stream::write(&mut control, &heartbeat).await {
            return error.into();
        }
        tokio::time::sleep(pause).await;
    }
}

/// Answers commands, each on its own stream; QUIC's limit on open streams bounds them.
async fn streams(connection: Connection, work: Arc<SessionWork>, renewal: Arc<Notify>) -> SessionEnd {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept_bi() => match accepted {
                Ok((send, recv)) => {
                    running.spawn(command(send, recv, work.clone(), renewal.clone()));
                }
                Err(error) => return error.into(),
            },
            Some(ended) = running.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a command's task failed");
                }
            }
        }
    }
}

async fn command(mut send: SendStream, mut recv: RecvStream, work: Arc<SessionWork>, renewal: Arc<Notify>) {
    let frame = stream::read_frame(&mut recv).await;
    // These go on for as long as somebody is at the other end of the stream.
    if let Ok(frame) = &frame {
        if let Some(Ok(request)) = frame.is::<ExecRequest>().then(|| frame.decode()) {
            return exec::once(send, recv, work.execs.clone(), request).await;
        }
        if let Some(Ok(request)) = frame.is::<TerminalRequest>().then(|| frame.decode()) {
            return exec::terminal(send, recv, work.execs.clone(), request).await;
        }
        if let Some(Ok(request)) = frame.is::<LogRequest>().then(|| frame.decode()) {
            if let Err(error) = logs::serve(send, recv, &work.logs, request).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "a log's stream broke");
            }
            return;
        }
    }
    let answered = async {
        match frame {
            Ok(frame) if frame.is::<CommandRequest>() => match frame.decode() {
                Ok(request) => commands::serve(&mut send, recv, request, &work.commands).await,
                Err(error) => refuse(&mut send, "malformed", &error.to_string()).await,
            },
            Ok(frame) => answer(&mut send, &frame, &work, &renewal).await,
            Err(StreamError::Decode(error)) => refuse(&mut send, "malformed", &error.to_string()).await,
            Err(error) => Err(error),
        }
    };
    if let Err(error) = answered.await {
        tracing::warn!(error = &error as &dyn std::error::Error, "a command stream broke");
        // Resetting tells the other side where the stream still lives; where it does not, nothing is lost.
        let _ = send.reset(stream::MALFORMED);
    }
}

async fn answer(send: &mut SendStream, frame: &Frame, work: &SessionWork, renewal: &Notify) -> Result<(), StreamError> {
    hoody_fault::point!("command.received");
    let reconciler = &work.reconciler;
    let reply: CommandReply = if frame.is::<ContainerSpec>() {
        match frame.decode() {
            Ok(spec) => reconciler.apply(spec).await,
            Err(error) => return refuse(send, "malformed", &error.to_string()).await,
        }
    } else if frame.is::<OperationRequest>() {
        match frame.decode() {
            Ok(request) => reconciler.operate(request).await,
            Err(error) => return refuse(send, "malformed", &error.to_string()).await,
        }
    } else if frame.is::<SendOrder>() {
        match frame.decode() {
            Ok(order) => work.transfers.send(order).await,
            Err(error) => return refuse(send, "malformed", &error.to_string()).await,
        }
    } else if frame.is::<ExportOrder>() {
        match frame.decode() {
            Ok(order) => work.transfers.export(order).await,
            Err(error) => return refuse(send, "malformed", &error.to_string()).await,
        }
    } else if frame.is::<ReceiveOrder>() {
        match frame.decode::<ReceiveOrder>() {
            Ok(order) => {
                let spec = reconciler.held(order.container).await;
                work.transfers.order(order, spec).await
            }
            Err(error) => return refuse(send, "malformed", &error.to_string()).await,
        }
    } else if frame.is::<RetainOrder>() {
        match frame.decode() {
            Ok(order) => work.transfers.let_go(order).await,
            Err(error) => return refuse(send, "malformed", &error.to_string()).await,
        }
    } else if frame.is::<DivergenceQuery>() {
        return match frame.decode() {
            Ok(query) => stream::write(send, &work.transfers.diverged(query).await).await,
            Err(error) => refuse(send, "malformed", &error.to_string()).await,
        };
    } else if frame.is::<SpecQuery>() {
        return match frame.decode::<SpecQuery>() {
            Ok(query) => stream::write(send, &SpecReply { spec: reconciler.held(query.container).await }).await,
            Err(error) => refuse(send, "malformed", &error.to_string()).await,
        };
    } else if frame.is::<TerminalQuery>() {
        return match frame.decode::<TerminalQuery>() {
            Ok(query) => {
                let terminals = work.execs.terminals(query.container).try_into().unwrap_or_default();
                stream::write(send, &TerminalList { terminals }).await
            }
            Err(error) => refuse(send, "malformed", &error.to_string()).await,
        };
    } else if frame.is::<TerminalEnd>() {
        match frame.decode::<TerminalEnd>() {
            Ok(end) if work.execs.end_terminal(end.container, end.terminal) => CommandReply::Accepted,
            Ok(_) => CommandReply::Refused(Cause::new("no_terminal", "there is no such terminal")),
            Err(error) => return refuse(send, "malformed", &error.to_string()).await,
        }
    } else if frame.is::<ExecRequest>() || frame.is::<TerminalRequest>() || frame.is::<LogRequest>() {
        // Those that can be decoded went another way.
        return refuse(send, "malformed", "the request cannot be decoded").await;
    } else if frame.is::<InspectionQuery>() {
        return match frame.decode::<InspectionQuery>() {
            Ok(query) => stream::write(send, &reconciler.inspect(query.container).await).await,
            Err(error) => refuse(send, "malformed", &error.to_string()).await,
        };
    } else if frame.is::<SnapshotQuery>() {
        return match frame.decode::<SnapshotQuery>() {
            Ok(query) => stream::write(send, &reconciler.snapshots(query.container).await).await,
            Err(error) => refuse(send, "malformed", &error.to_string()).await,
        };
    } else if frame.is::<RenewalOrder>() {
        stream::write(send, &CommandReply::Accepted).await?;
        // Answered first: the renewal ends the session.
        renewal.notify_one();
        return Ok(());
    } else {
        return refuse(send, "unexpected", &format!("message tag {} is not a command", frame.tag)).await;
    };
    hoody_fault::point!("command.answering");
    stream::write(send, &reply).await?;
    hoody_fault::point!("command.answered");
    Ok(())
}

async fn refuse(send: &mut SendStream, code: &str, message: &str) -> Result<(), StreamError> {
    tracing::warn!(code, message, "refused a command");
    stream::write(send, &Refusal { cause: Cause::new(code, message) }).await
}

/// The control plane acknowledged what it was not sent.
#[derive(Debug, thiserror::Error)]
#[error("position {acked} was acknowledged, the last one sent was {last}")]
struct InvalidAck {
    acked: u64,
    last: u64,
}

/// Sends the journal in order, one batch at a time; each is kept until it is acknowledged.
async fn reports(connection: Connection, journal: Journal) -> SessionEnd {
    let exchange = async {
        let (mut send, mut recv) = connection.open_bi().await?;
        let mut position = 0;
        loop {
            let entries = journal.next_after(position).await;
            let last = entries.last().map_or(position, |entry| entry.position);
            hoody_fault::point!("reports.sending");
            stream::write(&mut send, &ReportBatch { entries: entries.try_into()? }).await?;
            let answer =
                step("agent: report acknowledged", tokio::time::timeout(ACK_DEADLINE, stream::read_frame(&mut recv)));
            let answer = answer.await??;
            if answer.is::<Refusal>() {
                // Not stored, for want of its database perhaps: the batch is kept and sent again.
                let cause = answer.decode::<Refusal>()?.cause;
                tracing::warn!(code = %cause.code, message = %cause.message, "reports were not taken");
                tokio::time::sleep(REFUSED_PAUSE).await;
                continue;
            }
            let acked: ReportAck = answer.decode()?;
            if !(position + 1..=last).contains(&acked.position) {
                return Err(SessionEnd::Broken(Box::new(InvalidAck { acked: acked.position, last })));
            }
            position = acked.position;
            hoody_fault::point!("reports.acknowledged");
            journal.acknowledge(position).await;
        }
    };
    let ended: Result<std::convert::Infallible, SessionEnd> = exchange.await;
    match ended {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

async fn measurements(connection: Connection, work: Arc<SessionWork>, pause: Duration) -> SessionEnd {
    loop {
        for batch in work.sampler.sample(&work.reconciler.running()).await {
            if let Err(error) = push(&connection, &batch).await {
                return error;
            }
        }
        tokio::time::sleep(pause).await;
    }
}

async fn push(connection: &Connection, batch: &StatsBatch) -> Result<(), SessionEnd> {
    let mut send = connection.open_uni().await?;
    stream::write(&mut send, batch).await?;
    send.finish()?;
    Ok(())
}
