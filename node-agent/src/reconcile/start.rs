//! From nothing to a running first process. Policy stands before the container's link comes up, and the
//! link before the first process starts.

use super::{
    egress, limits, names,
    owner::Cell,
    pass::{PassError, Settled, failed, unless_requested},
    shares, ssh_key, stop,
};
use crate::{
    desired::record::{Phase, Record, Run},
    firewall::Policy,
    network::{NetworkError, host_interface},
    runtime::{Bundle, Process},
    storage::StorageError,
    timing::step,
    transfer::Incoming,
};
use hoody_protocol::{
    container::{Cause, ContainerSpec, Desired, State},
    snapshot::MovedSnapshot,
    time::now_ms,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

/// What a program finds where neither image nor owner says otherwise.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a first process without namespaces has to be gone.
const EXIT_LIMIT: Duration = Duration::from_secs(5);

/// What the runtime says of the container.
pub(super) async fn process(cell: &Cell, record: &Record) -> Result<Process, PassError> {
    let runtime = &cell.context.capabilities.runtime;
    runtime.state(record.spec.id).await.map_err(runtime_failed("look at the first process"))
}

fn runtime_failed(step: &'static str) -> impl FnOnce(crate::runtime::RuntimeError) -> PassError {
    failed(step, "runtime_failed", "the container's processes could not be managed")
}

/// Makes the root file system where it is missing. Fetching the image gives way to requests.
pub(super) async fn ensure_root(cell: &Cell, record: &Record) -> Result<(), PassError> {
    let spec = &record.spec;
    let capabilities = &cell.context.capabilities;
    let storage_failed = |step| failed(step, "storage_failed", "the container's root file system could not be made");
    if capabilities.storage.exists(spec.id).await.map_err(storage_failed("look at the root file system"))? {
        return Ok(());
    }
    cell.report(record, State::Creating, false, None).await;
    if let Some(origin) = spec.origin {
        let copied = async {
            let kept = match origin.kept {
                Some(transfer) => Some(capabilities.transfers.keep(spec.id, transfer, origin).await?),
                None => None,
            };
            capabilities.storage.copy(spec.id, origin, kept.as_deref(), spec.limits.disk_bytes).await
        };
        step("agent: copy", copied).await.map_err(failed(
            "copy the root file system",
            "copy_failed",
            "the container could not be copied: its origin is not there",
        ))?;
        hoody_fault::point!("root.copied");
        cell.set_progress(|progress| progress.disk_bytes = Some(spec.limits.disk_bytes));
        return Ok(());
    }
    if let Some(transfer) = spec.transfer {
        let received =
            unless_requested(cell, capabilities.transfers.receive(&Incoming::of(spec, transfer, None))).await?;
        let received =
            received.map_err(failed("transfer", "transfer_failed", "the file system could not be received"))?;
        // First: where the root file system is, they are too.
        receive_snapshots(cell, spec).await.map_err(storage_failed("take over the snapshots"))?;
        let made = capabilities.storage.receive(spec.id, &received, spec.limits.disk_bytes, spec.moved).await;
        made.map_err(storage_failed("create the root file system"))?;
        hoody_fault::point!("root.received");
        cell.set_progress(|progress| progress.disk_bytes = Some(spec.limits.disk_bytes));
        return Ok(());
    }
    let image = unless_requested(cell, step("agent: image", capabilities.images.ensure(&spec.image))).await?;
    let image = image.map_err(failed("image", "image_unavailable", "the image could not be fetched or unpacked"))?;
    hoody_fault::point!("image.ready");
    let created = step("agent: snapshot", capabilities.storage.create(spec.id, &image, spec.limits.disk_bytes)).await;
    created.map_err(storage_failed("create the root file system"))?;
    hoody_fault::point!("root.created");
    cell.set_progress(|progress| progress.disk_bytes = Some(spec.limits.disk_bytes));
    Ok(())
}

/// Makes what moved here with the container its snapshots.
async fn receive_snapshots(cell: &Cell, spec: &ContainerSpec) -> Result<(), StorageError> {
    let (capabilities, id) = (&cell.context.capabilities, spec.id);
    for MovedSnapshot { id: snapshot, transfer } in spec.snapshots.iter().copied() {
        let received = capabilities.transfers.held(id, transfer).await?;
        let received = received.ok_or(StorageError::NoTransfer { id, transfer })?;
        capabilities.storage.receive_snapshot(id, snapshot, &received).await?;
    }
    Ok(())
}

/// Brings the first process up, or adopts the one that runs, and puts rules, limits and freezing in
/// force.
pub(super) async fn ensure_running(
    cell: &Cell,
    record: Record,
    number: u64,
    process: Process,
) -> Result<Settled, PassError> {
    let mut cause = None;
    let mut written = true;
    let record = match process {
        Process::Running { pid } | Process::Paused { pid } => {
            match enforce(cell, &record, pid).await? {
                Enforced::Ended => return Ok(Settled::Again),
                Enforced::Untouched => {}
                Enforced::Noticed(noticed) => cause = Some(noticed),
            }
            let same = matches!(&record.run, Some(Run { number: begun, phase: Phase::Started { .. }, .. }) if *begun == number);
            if same { record } else { started(cell, &record, number).await? }
        }
        Process::Created { .. } | Process::Exited { .. } | Process::Absent => {
            written = false;
            launch(cell, record, number, &process).await?
        }
    };
    freeze(cell, &record, &process).await?;
    let state = if matches!(record.spec.desired, Desired::Paused { .. }) { State::Paused } else { State::Running };
    // Side by side: a report without the record is what a crash after the start leaves too. The next pass then
    // finds the process and writes it down.
    let (saved, ()) = tokio::join!(
        async { if written { Ok(()) } else { started(cell, &record, number).await.map(drop) } },
        cell.report(&record, state, true, cause)
    );
    saved.map(|()| Settled::Stable)
}

/// Gives the record as it is to be written down: the process runs, and only this knows it.
async fn launch(cell: &Cell, record: Record, number: u64, process: &Process) -> Result<Record, PassError> {
    let id = record.spec.id;
    // What is left of an earlier run goes before this one is written down: it must not be taken for it. A
    // first process that was made and not started goes too: it may be made from an older specification.
    if *process != Process::Absent {
        stop::clear(cell, &record).await?;
    }
    let capabilities = &cell.context.capabilities;
    let expected = capabilities.runtime.expect();
    let boot_id = cell.context.settings.boot_id.clone();
    let record = match &record.run {
        Some(Run { number: begun, phase: Phase::Starting, boot_id: begun_in })
            if *begun == number && *begun_in == boot_id =>
        {
            record
        }
        _ => {
            // Written down first: whatever is made from here on is looked for after a crash.
            let change = |record: &mut Record| record.run = Some(Run { number, boot_id, phase: Phase::Starting });
            cell.advance(&record, change).await?
        }
    };
    cell.report(&record, State::Starting, false, None).await;
    limits::ensure_disk(cell, &record).await?;
    // Side by side: the rules need nothing of the processes, and stand before the link. Both come to an end
    // before an error of either does, so that nothing is left half-done behind the pass's back.
    let (pid, ruled, ()) = tokio::join!(
        create(cell, &record),
        step("agent: rules", enforce_firewall(cell, &record, false)),
        ssh_key::place(cell, &record)
    );
    drop(expected);
    let pid = pid?;
    hoody_fault::point!("process.created");
    ruled?;
    egress::relay(cell, &record).await;
    names::resolve(cell, &record).await;
    // Always: the link of a process that has just ended can still stand for a moment.
    step("agent: link", attach(cell, &record, pid)).await?;
    hoody_fault::point!("link.attached");
    step("agent: rate", limits::begin(cell, &record, pid)).await?;
    cell.set_progress(|progress| progress.oom_kills = 0);
    hoody_fault::point!("process.starting");
    step("agent: start", capabilities.runtime.start(id)).await.map_err(runtime_failed("start the first process"))?;
    hoody_fault::point!("process.started");
    let run = Run { number, boot_id: cell.context.settings.boot_id.clone(), phase: Phase::Started { at: now_ms() } };
    Ok(Record { run: Some(run), ..record })
}

async fn mount(cell: &Cell, record: &Record) -> Result<PathBuf, PassError> {
    let mounted = cell.context.capabilities.storage.mount(record.spec.id, record.ids).await;
    mounted.map_err(failed("mount", "storage_failed", "the container's root file system could not be mounted"))
}

async fn create(cell: &Cell, record: &Record) -> Result<i32, PassError> {
    let root = step("agent: mount", mount(cell, record)).await?;
    hoody_fault::point!("mount.mounted");
    let folders = Folders {
        shares: step("agent: shares", shares::prepare(cell, record)).await?,
        ramdisk: shares::ramdisk(cell, record).await?,
    };
    let bundle = bundle(cell, record, &root, Some(folders));
    step("agent: create", cell.context.capabilities.runtime.create(&bundle)).await.map_err(runtime_failed("create"))
}

async fn started(cell: &Cell, record: &Record, number: u64) -> Result<Record, PassError> {
    let boot_id = cell.context.settings.boot_id.clone();
    let at = match &record.run {
        Some(Run { phase: Phase::Started { at }, boot_id: begun_in, .. }) if *begun_in == boot_id => *at,
        _ => now_ms(),
    };
    let change = |record: &mut Record| {
        // A process adopted after the agent's restart keeps the time it was started at.
        let at = match &record.run {
            Some(Run { phase: Phase::Started { at }, boot_id: begun_in, .. }) if *begun_in == boot_id => *at,
            _ => at,
        };
        record.run = Some(Run { number, boot_id, phase: Phase::Started { at } });
    };
    cell.advance(record, change).await
}

/// What [`enforce`] found.
enum Enforced {
    /// The first process has ended meanwhile.
    Ended,
    /// Everything stood, or was put in force for the first time.
    Untouched,
    /// Something was damaged: it is repaired, or the cause says that it cannot be.
    Noticed(Cause),
}

/// Puts rules, link and limits of a running container in force, in this order; what stands is left alone.
async fn enforce(cell: &Cell, record: &Record, pid: i32) -> Result<Enforced, PassError> {
    let mut repaired = Vec::new();
    if enforce_firewall(cell, record, true).await? {
        repaired.push("firewall");
    }
    egress::relay(cell, record).await;
    names::resolve(cell, record).await;
    let spec = &record.spec;
    let capabilities = &cell.context.capabilities;
    let anew = match link(cell, record, pid).await {
        Ok(anew) => anew,
        Err(NetworkError::OpenNamespace { .. }) if ends(cell, record).await? => return Ok(Enforced::Ended),
        Err(error) => return Err(network_failed("repair the link")(error)),
    };
    if anew {
        repaired.push("network link");
    }
    if limits::enforce(cell, record, pid, anew).await? {
        repaired.push("network rate");
    }
    limits::count_kills(cell, record).await;
    ssh_key::keep(cell, record).await;
    if shares::keep(cell, record, pid).await? {
        repaired.push("shares");
    }
    let mended = capabilities.runtime.mend(&bundle(cell, record, &mount(cell, record).await?, None)).await;
    let mended = mended.map_err(runtime_failed("mend the files"))?;
    if mended.files {
        repaired.push("configuration");
    }
    if mended.disk_rates {
        repaired.push("disk rates");
    }
    if !mended.monitored {
        let message = "the container's monitor is gone: output and exit code are not kept until it is restarted";
        return Ok(Enforced::Noticed(Cause::new("monitor_lost", message)));
    }
    if repaired.is_empty() {
        return Ok(Enforced::Untouched);
    }
    let message = format!("changed from outside on the server, and repaired: {}", repaired.join(", "));
    tracing::warn!(container = %spec.id, ?repaired, "a running container was damaged and is repaired");
    Ok(Enforced::Noticed(Cause::new("repaired", message)))
}

/// Makes the link of a running container anew where it is not as it should be; true where it was not.
async fn link(cell: &Cell, record: &Record, pid: i32) -> Result<bool, NetworkError> {
    let (network, id) = (&cell.context.capabilities.network, record.spec.id);
    let stands = network.is_attached(id, pid, record.address).await?;
    if !stands {
        network.attach(id, pid, record.address).await?;
    }
    Ok(!stands)
}

/// True where the first process ends within moments. A process that exits gives up its namespaces before
/// it counts as ended: as the first of its PID namespace it waits for all the others to be gone.
async fn ends(cell: &Cell, record: &Record) -> Result<bool, PassError> {
    let ended = cell.context.capabilities.runtime.wait(record.spec.id);
    let ended = unless_requested(cell, tokio::time::timeout(EXIT_LIMIT, ended)).await?;
    Ok(matches!(ended, Ok(Ok(()))))
}

async fn attach(cell: &Cell, record: &Record, pid: i32) -> Result<(), PassError> {
    let attached = cell.context.capabilities.network.attach(record.spec.id, pid, record.address).await;
    attached.map_err(network_failed("attach the link"))
}

fn network_failed(step: &'static str) -> impl FnOnce(NetworkError) -> PassError {
    failed(step, "network_failed", "the container's network could not be set up")
}

/// Replaces the rules where they are not in force. Where rules of this container stand and the new ones
/// are refused, the old ones stay in force and the refusal is reported; without old ones the container
/// does not go on. True where rules that this process had put in force were damaged and stand again.
async fn enforce_firewall(cell: &Cell, record: &Record, running: bool) -> Result<bool, PassError> {
    let spec = &record.spec;
    let firewall = &cell.context.capabilities.firewall;
    let firewall_failed = |step| failed(step, "firewall_failed", "the container's firewall could not be put in force");
    let applied = firewall.is_applied(spec.id).await.map_err(firewall_failed("look at the firewall"))?;
    let enforced = cell.enforced();
    let refused_before = enforced.firewall_error.as_ref().is_some_and(|(version, _)| *version == spec.version);
    let wanted = (spec.firewall.clone(), egress::policy(record));
    if applied && (enforced.firewall.as_ref() == Some(&wanted) || refused_before) {
        return Ok(false);
    }
    if !applied {
        firewall.prepare().await.map_err(firewall_failed("prepare the firewall"))?;
    }
    let policy = Policy {
        id: spec.id,
        owner: spec.owner,
        interface: host_interface(spec.id),
        address: record.address,
        rules: wanted.0.clone(),
        egress: wanted.1,
    };
    match firewall.apply(&policy).await {
        Ok(()) => {
            hoody_fault::point!("firewall.applied");
            cell.set_enforced(|enforced| {
                enforced.firewall = Some(wanted);
                enforced.firewall_error = None;
            });
            Ok(!applied && enforced.firewall.is_some())
        }
        Err(error) if applied || (running && stands_from_before(cell, record).await) => {
            tracing::warn!(container = %spec.id, error = &error as &dyn std::error::Error, "new firewall rules were refused; the old ones stand");
            let cause = Cause::new(
                "firewall_refused",
                "the server refused the firewall rules; the rules before them stay in force",
            );
            cell.set_enforced(|enforced| enforced.firewall_error = Some((spec.version, cause)));
            Ok(false)
        }
        Err(error) => Err(firewall_failed("apply the firewall")(error)),
    }
}

/// True where chains of the container stand that an earlier life of the agent put there.
async fn stands_from_before(cell: &Cell, record: &Record) -> bool {
    let known = cell.enforced().firewall.is_some();
    !known && cell.context.capabilities.firewall.inventory().await.is_ok_and(|held| held.contains(&record.spec.id))
}

async fn freeze(cell: &Cell, record: &Record, process: &Process) -> Result<(), PassError> {
    let runtime = &cell.context.capabilities.runtime;
    let id = record.spec.id;
    match (record.spec.desired, process) {
        (Desired::Paused { .. }, Process::Paused { .. }) => Ok(()),
        (Desired::Paused { .. }, _) => {
            runtime.pause(id).await.map_err(runtime_failed("pause"))?;
            hoody_fault::point!("process.frozen");
            Ok(())
        }
        (Desired::Running { .. }, Process::Paused { .. }) => {
            runtime.resume(id).await.map_err(runtime_failed("resume"))?;
            hoody_fault::point!("process.thawed");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What appears in a container beside its root file system.
struct Folders {
    shares: PathBuf,
    ramdisk: Option<PathBuf>,
}

fn bundle(cell: &Cell, record: &Record, root: &Path, folders: Option<Folders>) -> Bundle {
    let spec = &record.spec;
    let config = &spec.image.config;
    // No HOME: the runtime takes it from the container's own /etc/passwd, for each process that of its user.
    let mut env =
        BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned()), ("TERM".to_owned(), "xterm".to_owned())]);
    env.extend(config.env.iter().map(|(key, value)| (key.to_string(), value.to_string())));
    env.extend(spec.env.iter().map(|(key, value)| (key.to_string(), value.to_string())));
    env.insert("HOODY_CONTAINER_ID".to_owned(), spec.id.to_string());
    env.insert("HOODY_PROJECT_ID".to_owned(), spec.project.to_string());
    let dns = if spec.dns.is_empty() { cell.context.settings.dns.clone() } else { spec.dns.to_vec() };
    Bundle {
        id: spec.id,
        rootfs: root.to_owned(),
        ids: record.ids,
        hostname: spec.hostname.to_string(),
        command: config.command.iter().map(ToString::to_string).collect(),
        env,
        workdir: config.workdir.to_string(),
        user: config.user.to_string(),
        stop_signal: config.stop_signal.to_string(),
        limits: spec.limits,
        dns,
        kvm: spec.kvm,
        ramdisk: folders.as_ref().and_then(|folders| folders.ramdisk.clone()),
        shares: folders.map(|folders| folders.shares),
    }
}
