//! Makes a container up to the point where its first process waits. Every step may be the last one of
//! this agent process; the next call finds out how far the last came and goes on or begins anew.

use super::{
    Bundle, OciRuntime, RuntimeError,
    cgroup::Group,
    conmon,
    error::io,
    etc,
    first_process::FirstProcess,
    kvm,
    pidfd::ProcessId,
    record::{self, Made, Record},
    rootfs::Rootfs,
    spec::Plan,
    user,
    view::{Phase, View},
};
use hoody_protocol::{container::Limits, id::ContainerId, share::MOUNT_POINT};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    time::Duration,
};

/// How long the runtime has to say what it knows of a container.
const STATE_LIMIT: Duration = Duration::from_secs(10);

/// What the runtime says of a container (runtime-spec, "State").
#[derive(Debug, Deserialize)]
pub(super) struct RuntimeState {
    pub(super) status: String,
    #[serde(default)]
    pub(super) pid: i32,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
}

impl OciRuntime {
    pub(super) async fn create_container(&self, bundle: &Bundle) -> Result<i32, RuntimeError> {
        let id = bundle.id;
        if let View::Live { made, phase, .. } = self.look(id)?
            // Without conmon the exit code would be lost; nothing runs yet, so it is made anew.
            && (phase != Phase::Created || made.is_monitored()?)
        {
            return Ok(made.first.pid);
        }
        if let Some(made) = self.adopt(id).await? {
            self.limit_io(id, &bundle.limits)?;
            return Ok(made.first.pid);
        }
        if self.has_remains(id)? {
            self.delete_container(id).await?;
        }
        match self.make(bundle).await {
            Ok(made) => Ok(made.first.pid),
            Err(error) => {
                // The first failure is the one to report; what stays is cleared by the next call.
                if let Err(second) = self.delete_container(id).await {
                    tracing::warn!(container = %id, error = &second as &dyn std::error::Error, "clear after failure");
                }
                Err(error)
            }
        }
    }

    /// Puts share and rates of the disk in force.
    pub(super) fn limit_io(&self, id: ContainerId, limits: &Limits) -> Result<(), RuntimeError> {
        self.cgroups.weigh_io(id, limits)?;
        self.cgroups.throttle_io(id, &self.config.disk_rates).map(drop)
    }

    async fn make(&self, bundle: &Bundle) -> Result<Made, RuntimeError> {
        let id = bundle.id;
        let _ready = self.joins.ready();
        let (spec, mut record) = self.plan(bundle)?;
        for folder in [self.layout.bundle(id), self.layout.exit_dir(id)] {
            make_folder(&folder, super::layout::FOLDER_MODE)?;
        }
        record.save(&self.layout.record(id))?;
        hoody_fault::point!("bundle.recorded");
        etc::write(bundle, &self.layout.etc(id))?;
        if bundle.kvm {
            kvm::make(bundle, &self.layout.devices(id))?;
        }
        let text = serde_json::to_vec(&spec)
            .map_err(|error| RuntimeError::Corrupt { path: self.layout.config(id), reason: error.to_string() })?;
        record::replace(&self.layout.config(id), &text)?;
        hoody_fault::point!("bundle.written");
        let made = conmon::launch(id, &self.config, &self.layout, &self.cgroups).await?;
        hoody_fault::point!("conmon.reported");
        self.limit_io(id, &bundle.limits)?;
        self.finish(id, &mut record, made)
    }

    /// The last steps, in this order: a record with processes means that nothing is missing.
    fn finish(&self, id: ContainerId, record: &mut Record, made: Made) -> Result<Made, RuntimeError> {
        if record.systemd {
            self.cgroups.delegate(id, record.ids)?;
        }
        record.made = Some(made);
        record.save(&self.layout.record(id))?;
        Ok(made)
    }

    /// What the runtime program says of the container; `None` where it does not.
    pub(super) async fn runtime_state(&self, id: ContainerId) -> Option<RuntimeState> {
        let args = vec!["state".into(), id.to_string().into()];
        let text = self.call(id, "state", args, Vec::new(), STATE_LIMIT).await.ok()?;
        serde_json::from_slice(&text).ok()
    }

    pub(super) fn plan(&self, bundle: &Bundle) -> Result<(oci_spec::runtime::Spec, Record), RuntimeError> {
        validate(bundle)?;
        let root = Rootfs::open(&bundle.rootfs)?;
        let first = FirstProcess::choose(bundle, &root)?;
        if first.needs_init {
            conmon::find_program(&self.config.init)?;
        }
        let user = user::lookup(bundle.id, &root, &bundle.user)?;
        let plan = Plan {
            bundle,
            first: &first,
            user: &user,
            layout: &self.layout,
            init: &self.config.init,
            cgroup: self.cgroups.oci_path(bundle.id),
            // What a tenant put in its place must not keep the container from starting: its shares are reported.
            shares: match root.takes_folder(MOUNT_POINT)? {
                true => bundle.shares.as_deref(),
                false => None,
            },
            ipv6: self.ipv6,
            open_files_limit: self.open_files_limit,
        };
        let record = Record {
            boot_id: record::boot_id()?,
            ids: bundle.ids,
            stop_signal: first.stop_signal,
            systemd: first.systemd,
            made: None,
            started: false,
        };
        Ok((plan.spec()?, record))
    }

    /// Takes over a container that the runtime made, but whose processes an agent did not live to
    /// record. Only a whole one: its first process waits and its conmon lives.
    async fn adopt(&self, id: ContainerId) -> Result<Option<Made>, RuntimeError> {
        let Ok(Some(mut record)) = Record::load(&self.layout.record(id)) else { return Ok(None) };
        if record.made.is_some() || !self.layout.runtime_state(id).exists() {
            return Ok(None);
        }
        let Some(conmon) = conmon::find(id, &self.layout, &self.cgroups)? else { return Ok(None) };
        // A runtime that is still at work, or knows nothing, leaves remains to clear.
        let Some(state) = self.runtime_state(id).await else { return Ok(None) };
        if state.status != "created" || !self.cgroups.holds(Group::Container(id), state.pid)? {
            return Ok(None);
        }
        let Some(first) = ProcessId::of(state.pid)? else { return Ok(None) };
        self.finish(id, &mut record, Made { first, conmon: Some(conmon) }).map(Some)
    }
}

/// The control plane validated all this; a node does not take its word.
fn validate(bundle: &Bundle) -> Result<(), RuntimeError> {
    let refuse = |reason: &str| Err(RuntimeError::Bundle { id: bundle.id, reason: reason.into() });
    if !etc::is_hostname(&bundle.hostname) {
        return refuse("the host name is not a DNS label");
    }
    if !bundle.limits.is_valid() {
        return refuse("a limit is below its minimum");
    }
    if !bundle.rootfs.is_absolute() || bundle.ids.first == 0 || bundle.ids.first.checked_add(1 << 16).is_none() {
        return refuse("root file system or ids cannot be used");
    }
    if !bundle.workdir.is_empty() && (!bundle.workdir.starts_with('/') || bundle.workdir.contains('\0')) {
        return refuse("the working directory is not an absolute path");
    }
    let sound = |name: &str, value: &str| !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
    if !bundle.env.iter().all(|(name, value)| sound(name, value)) {
        return refuse("an environment variable cannot be set");
    }
    Ok(())
}

/// Makes a folder with exactly this mode, whatever the umask.
pub(super) fn make_folder(path: &Path, mode: u32) -> Result<(), RuntimeError> {
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(io("create", path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(io("chmod", path))
}
