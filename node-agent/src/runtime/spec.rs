//! Builds the OCI configuration (`config.json`, runtime-spec 1.0) of a container: its own namespaces,
//! user ids mapped to its range, few capabilities, limits.

use super::{Bundle, RuntimeError, first_process::FirstProcess, kvm, layout::Layout, mounts, seccomp, user::User};
use crate::storage::IdRange;
use hoody_protocol::container::Limits;
use oci_spec::{
    OciSpecError,
    runtime::{
        Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxCpuBuilder, LinuxDeviceCgroupBuilder,
        LinuxIdMappingBuilder, LinuxMemoryBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder,
        LinuxResources, LinuxResourcesBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process,
        ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
    },
};
use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

/// Annotation with the number of the signal that asks the first process to end; the runtime keeps it.
pub(super) const STOP_SIGNAL: &str = "hoody.stop-signal";
/// The version of the runtime specification that is written; runc 1.1 speaks it.
const OCI_VERSION: &str = "1.0.2";
/// Length of a processor accounting period, microseconds: the kernel's own default.
pub(super) const CPU_PERIOD_US: u64 = 100_000;
/// The kernel's weight of one whole core (v1 shares; the runtime converts them for v2).
const CPU_SHARES_PER_CORE: u64 = 1024;
/// What the kernel accepts as shares.
const CPU_SHARES_RANGE: (u64, u64) = (2, 262_144);
/// Added to a container's badness, so that the kernel ends it before the node's own services.
const OOM_SCORE_ADJ: i32 = 500;
/// Open files a process may have before it asks for more.
const OPEN_FILES_SOFT: u64 = 65_536;
const OPEN_FILES_HARD: u64 = 1_048_576;
/// Where an environment says nothing.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What root of the container may do within its user namespace. Left out of what is customary:
/// NET_RAW (ping works without, see [`sysctls`]; raw sockets forge packets) and MKNOD (impossible in a
/// user namespace). System images get no more: systemd runs without SYS_ADMIN.
const CAPABILITIES: [Capability; 12] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Setfcap,
    Capability::AuditWrite,
];

/// All that goes into a configuration.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) bundle: &'a Bundle,
    pub(super) first: &'a FirstProcess,
    pub(super) user: &'a User,
    pub(super) layout: &'a Layout,
    /// The node's init program.
    pub(super) init: &'a Path,
    /// Absolute within each hierarchy.
    pub(super) cgroup: PathBuf,
    /// The folder of shares, where there is a place for it.
    pub(super) shares: Option<&'a Path>,
    /// True where the node's kernel has IPv6.
    pub(super) ipv6: bool,
    /// The hard limit of open files that is inherited; it can be lowered, not raised.
    pub(super) open_files_limit: u64,
}

impl Plan<'_> {
    pub(super) fn spec(&self) -> Result<Spec, RuntimeError> {
        let id = self.bundle.id;
        self.build().map_err(|source| RuntimeError::Spec { id, source: Box::new(source) })
    }

    fn build(&self) -> Result<Spec, OciSpecError> {
        let Bundle { ids, limits, kvm, .. } = self.bundle;
        let init = self.first.needs_init.then_some(self.init);
        let mapping = || LinuxIdMappingBuilder::default().container_id(0u32).host_id(ids.first).size(IdRange::LENGTH);
        let namespaces = [
            LinuxNamespaceType::Pid,
            LinuxNamespaceType::Ipc,
            LinuxNamespaceType::Uts,
            LinuxNamespaceType::Mount,
            LinuxNamespaceType::Network,
            LinuxNamespaceType::User,
            LinuxNamespaceType::Cgroup,
        ];
        let namespaces: Result<Vec<_>, _> =
            namespaces.into_iter().map(|kind| LinuxNamespaceBuilder::default().typ(kind).build()).collect();
        let linux = LinuxBuilder::default()
            .uid_mappings(vec![mapping().build()?])
            .gid_mappings(vec![mapping().build()?])
            .namespaces(namespaces?)
            .sysctl(sysctls(self.ipv6))
            .resources(resources(limits, *kvm)?)
            .cgroups_path(self.cgroup.clone())
            .seccomp(seccomp::profile()?)
            .masked_paths(mounts::MASKED.map(String::from).to_vec())
            .readonly_paths(mounts::READ_ONLY.map(String::from).to_vec())
            .build()?;
        SpecBuilder::default()
            .version(OCI_VERSION)
            .root(RootBuilder::default().path(self.bundle.rootfs.clone()).readonly(false).build()?)
            .hostname(self.bundle.hostname.clone())
            .process(self.process()?)
            .mounts(mounts::mounts(self.bundle, self.layout, self.first.systemd, init, self.shares)?)
            .annotations(HashMap::from([(STOP_SIGNAL.to_owned(), self.first.stop_signal.to_string())]))
            .linux(linux)
            .build()
    }

    fn process(&self) -> Result<Process, OciSpecError> {
        let capabilities: HashSet<Capability> = CAPABILITIES.into_iter().collect();
        // Nothing is inheritable or ambient: a user that is not root starts with nothing.
        let capabilities = LinuxCapabilitiesBuilder::default()
            .bounding(capabilities.clone())
            .effective(capabilities.clone())
            .permitted(capabilities)
            .inheritable(HashSet::new())
            .ambient(HashSet::new())
            .build()?;
        let mut user = UserBuilder::default().uid(self.user.uid).gid(self.user.gid);
        if !self.user.groups.is_empty() {
            user = user.additional_gids(self.user.groups.clone());
        }
        let workdir = if self.bundle.workdir.is_empty() { "/" } else { &self.bundle.workdir };
        ProcessBuilder::default()
            .terminal(false)
            .user(user.build()?)
            .args(self.first.args.clone())
            .env(self.environment())
            .cwd(workdir)
            .capabilities(capabilities)
            .rlimits(rlimits(self.open_files_limit)?)
            // sudo and other setuid programs work, within the container's user namespace.
            .no_new_privileges(false)
            .oom_score_adj(OOM_SCORE_ADJ)
            .build()
    }

    fn environment(&self) -> Vec<String> {
        let mut env: Vec<_> = self.bundle.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !self.bundle.env.contains_key("PATH") {
            env.push(DEFAULT_PATH.into());
        }
        if self.first.systemd && !self.bundle.env.contains_key("container") {
            // systemd reads this to know that it runs in a container.
            env.push("container=hoody".into());
        }
        env
    }
}

/// Limits, and no device beyond the harmless ones that the runtime adds (null, zero, full, random,
/// urandom, tty, ptmx), but KVM's where it was granted.
fn resources(limits: &Limits, kvm: bool) -> Result<LinuxResources, OciSpecError> {
    let mut resources = self::limits(limits)?;
    let mut devices = vec![LinuxDeviceCgroupBuilder::default().allow(false).access("rwm".to_string()).build()?];
    if kvm {
        devices.push(kvm::rule()?);
    }
    resources.set_devices(Some(devices));
    Ok(resources)
}

/// The limits alone, as the runtime's `update` takes them.
pub(super) fn limits(limits: &Limits) -> Result<LinuxResources, OciSpecError> {
    let millis = u64::from(limits.cpu_millis);
    let quota = millis * CPU_PERIOD_US / 1000;
    let (least, most) = CPU_SHARES_RANGE;
    let shares = (millis * CPU_SHARES_PER_CORE / 1000).clamp(least, most);
    let memory = i64::try_from(limits.memory_bytes).unwrap_or(i64::MAX);
    LinuxResourcesBuilder::default()
        // `swap` is memory and swap together, so there is none beyond the memory limit.
        .memory(LinuxMemoryBuilder::default().limit(memory).swap(memory).build()?)
        .cpu(LinuxCpuBuilder::default().period(CPU_PERIOD_US).quota(quota as i64).shares(shares).build()?)
        .pids(LinuxPidsBuilder::default().limit(i64::from(limits.pids)).build()?)
        .build()
}

/// Set in the container's own network namespace, where nobody else is concerned: any group may ping
/// (echo sockets need no capability then), any user may serve a low port. IPv6 is off until the
/// firewall covers it.
fn sysctls(ipv6: bool) -> HashMap<String, String> {
    let mut sysctls = vec![("net.ipv4.ping_group_range", "0 65535"), ("net.ipv4.ip_unprivileged_port_start", "0")];
    if ipv6 {
        sysctls.push(("net.ipv6.conf.all.disable_ipv6", "1"));
        sysctls.push(("net.ipv6.conf.default.disable_ipv6", "1"));
    }
    sysctls.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// Only lowers: raising a hard limit needs a privilege that the agent may lack.
fn rlimits(inherited: u64) -> Result<Vec<PosixRlimit>, OciSpecError> {
    let hard = inherited.min(OPEN_FILES_HARD);
    let files = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile);
    Ok(vec![files.hard(hard).soft(hard.min(OPEN_FILES_SOFT)).build()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_what_the_kernel_takes() {
        let limits =
            Limits { cpu_millis: 1500, memory_bytes: 256 << 20, disk_bytes: 1 << 30, pids: 100, network_mbit: None };
        let json = serde_json::to_value(resources(&limits, false).unwrap()).unwrap();
        assert_eq!(json["cpu"]["quota"], 150_000);
        assert_eq!(json["cpu"]["period"], 100_000);
        assert_eq!(json["cpu"]["shares"], 1536);
        assert_eq!(json["memory"]["limit"], 256 << 20);
        assert_eq!(json["memory"]["swap"], 256 << 20);
        assert_eq!(json["pids"]["limit"], 100);
        assert_eq!((&json["devices"][0]["allow"], &json["devices"][1]), (&false.into(), &serde_json::Value::Null));
    }

    #[test]
    fn the_least_processor_time_is_what_the_kernel_accepts() {
        let limits = Limits {
            cpu_millis: Limits::MIN_CPU_MILLIS,
            memory_bytes: 1 << 24,
            disk_bytes: 1 << 24,
            pids: 8,
            network_mbit: None,
        };
        let json = serde_json::to_value(resources(&limits, true).unwrap()).unwrap();
        assert_eq!((&json["devices"][1]["minor"], &json["devices"][1]["access"]), (&232.into(), &"rw".into()));
        assert_eq!(json["cpu"]["quota"], 1000, "the kernel refuses less than a millisecond");
    }

    #[test]
    fn open_files_are_never_raised() {
        let json = serde_json::to_value(rlimits(20_000).unwrap()).unwrap();
        assert_eq!((json[0]["hard"].as_u64(), json[0]["soft"].as_u64()), (Some(20_000), Some(20_000)));
        let json = serde_json::to_value(rlimits(1 << 30).unwrap()).unwrap();
        assert_eq!((json[0]["hard"].as_u64(), json[0]["soft"].as_u64()), (Some(OPEN_FILES_HARD), Some(65_536)));
    }
}
