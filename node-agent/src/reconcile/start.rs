//! From nothing to a running first process. Policy stands before the container's link comes up, and the
//! link before the first process starts.

use super::{
    limits,
    owner::Cell,
    pass::{PassError, Settled, failed, unless_requested},
    stop,
};
use crate::{
    desired::record::{Phase, Record, Run},
    firewall::Policy,
    network::{NetworkError, host_interface},
    runtime::{Bundle, Process},
};
use hoody_protocol::{
    container::{Cause, Desired, State},
    time::now_ms,
};
use std::{collections::BTreeMap, path::Path, time::Duration};

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
    let image = unless_requested(cell, capabilities.images.ensure(&spec.image)).await?;
    let image = image.map_err(failed("image", "image_unavailable", "the image could not be fetched or unpacked"))?;
    let created = capabilities.storage.create(spec.id, &image, spec.limits.disk_bytes).await;
    created.map_err(storage_failed("create the root file system"))?;
    cell.set_progress(|progress| progress.disk_bytes = Some(spec.limits.disk_bytes));
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
    let record = match process {
        Process::Running { pid } | Process::Paused { pid } => {
            if !enforce(cell, &record, pid).await? {
                return Ok(Settled::Again);
            }
            let same = matches!(&record.run, Some(Run { number: begun, phase: Phase::Started { .. }, .. }) if *begun == number);
            if same { record } else { started(cell, &record, number).await? }
        }
        Process::Created { .. } | Process::Exited { .. } | Process::Absent => {
            launch(cell, record, number, &process).await?
        }
    };
    freeze(cell, &record, &process).await?;
    let state = if matches!(record.spec.desired, Desired::Paused { .. }) { State::Paused } else { State::Running };
    cell.report(&record, state, true, None).await;
    Ok(Settled::Stable)
}

async fn launch(cell: &Cell, record: Record, number: u64, process: &Process) -> Result<Record, PassError> {
    let id = record.spec.id;
    // What is left of an earlier run goes before this one is written down: it must not be taken for it. A
    // first process that was made and not started goes too: it may be made from an older specification.
    if *process != Process::Absent {
        stop::clear(cell, &record).await?;
    }
    let capabilities = &cell.context.capabilities;
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
    let pid = create(cell, &record).await?;
    enforce_firewall(cell, &record, false).await?;
    // Always: the link of a process that has just ended can still stand for a moment.
    attach(cell, &record, pid).await?;
    limits::begin(cell, &record, pid).await?;
    cell.set_progress(|progress| progress.oom_kills = 0);
    capabilities.runtime.start(id).await.map_err(runtime_failed("start the first process"))?;
    started(cell, &record, number).await
}

async fn create(cell: &Cell, record: &Record) -> Result<i32, PassError> {
    let capabilities = &cell.context.capabilities;
    let mounted = capabilities.storage.mount(record.spec.id, record.ids).await;
    let root =
        mounted.map_err(failed("mount", "storage_failed", "the container's root file system could not be mounted"))?;
    let bundle = bundle(cell, record, &root);
    capabilities.runtime.create(&bundle).await.map_err(runtime_failed("create"))
}

async fn started(cell: &Cell, record: &Record, number: u64) -> Result<Record, PassError> {
    let boot_id = cell.context.settings.boot_id.clone();
    let at = now_ms();
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

/// Puts rules, link and limits of a running container in force, in this order; what stands is left alone.
/// False where the first process has ended meanwhile.
async fn enforce(cell: &Cell, record: &Record, pid: i32) -> Result<bool, PassError> {
    enforce_firewall(cell, record, true).await?;
    let spec = &record.spec;
    let capabilities = &cell.context.capabilities;
    let attached = capabilities.network.is_attached(spec.id, record.address).await;
    let attached = attached.map_err(network_failed("look at the link"))?;
    if !attached {
        match capabilities.network.attach(spec.id, pid, record.address).await {
            Ok(()) => {}
            Err(NetworkError::OpenNamespace { .. }) if ends(cell, record).await? => return Ok(false),
            Err(error) => return Err(network_failed("attach the link")(error)),
        }
    }
    limits::enforce(cell, record, pid, !attached).await?;
    limits::count_kills(cell, record).await;
    Ok(true)
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
/// does not go on.
async fn enforce_firewall(cell: &Cell, record: &Record, running: bool) -> Result<(), PassError> {
    let spec = &record.spec;
    let firewall = &cell.context.capabilities.firewall;
    let firewall_failed = |step| failed(step, "firewall_failed", "the container's firewall could not be put in force");
    let applied = firewall.is_applied(spec.id).await.map_err(firewall_failed("look at the firewall"))?;
    let enforced = cell.enforced();
    let refused_before = enforced.firewall_error.as_ref().is_some_and(|(version, _)| *version == spec.version);
    if applied && (enforced.firewall.as_ref() == Some(&spec.firewall) || refused_before) {
        return Ok(());
    }
    if !applied {
        firewall.prepare().await.map_err(firewall_failed("prepare the firewall"))?;
    }
    let policy = Policy {
        id: spec.id,
        owner: spec.owner,
        interface: host_interface(spec.id),
        address: record.address,
        rules: spec.firewall.clone(),
    };
    match firewall.apply(&policy).await {
        Ok(()) => {
            cell.set_enforced(|enforced| {
                enforced.firewall = Some(spec.firewall.clone());
                enforced.firewall_error = None;
            });
            Ok(())
        }
        Err(error) if applied || (running && stands_from_before(cell, record).await) => {
            tracing::warn!(container = %spec.id, error = &error as &dyn std::error::Error, "new firewall rules were refused; the old ones stand");
            let cause = Cause::new(
                "firewall_refused",
                "the server refused the firewall rules; the rules before them stay in force",
            );
            cell.set_enforced(|enforced| enforced.firewall_error = Some((spec.version, cause)));
            Ok(())
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
        (Desired::Paused { .. }, _) => runtime.pause(id).await.map_err(runtime_failed("pause")),
        (Desired::Running { .. }, Process::Paused { .. }) => runtime.resume(id).await.map_err(runtime_failed("resume")),
        _ => Ok(()),
    }
}

fn bundle(cell: &Cell, record: &Record, root: &Path) -> Bundle {
    let spec = &record.spec;
    let config = &spec.image.config;
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), DEFAULT_PATH.to_owned()),
        ("HOME".to_owned(), "/root".to_owned()),
        ("TERM".to_owned(), "xterm".to_owned()),
    ]);
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
    }
}
