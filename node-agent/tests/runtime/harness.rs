//! A node of its own for each test: state folders, cgroup parent, ids and a small root file system.
//! All of it goes when the test ends, however it ends.

use hoody_agent::{
    runtime::{Bundle, OciRuntime, Process, Runtime, RuntimeConfig},
    storage::IdRange,
};
use hoody_protocol::{container::Limits, id::ContainerId};
use std::{
    collections::BTreeMap,
    os::unix::fs::{PermissionsExt, lchown, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

/// Any single condition that a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const APPLETS: [&str; 26] = [
    "sh", "cat", "ls", "id", "echo", "sleep", "env", "hostname", "mount", "umount", "true", "false", "stat", "touch",
    "mkdir", "kill", "ps", "grep", "dd", "pwd", "chown", "mknod", "wc", "test", "ping", "ip",
];

pub(crate) struct Node {
    folder: tempfile::TempDir,
    pub(crate) config: RuntimeConfig,
    pub(crate) runtime: OciRuntime,
    pub(crate) ids: IdRange,
}

impl Node {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("hoody-runtime-").tempdir().unwrap();
        // The runtime's first stage passes through as the container's root.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let name = folder.path().file_name().unwrap().to_str().unwrap().to_owned();
        let mut config = RuntimeConfig {
            monitor: env!("CARGO_BIN_EXE_hoody-agent").into(),
            ..RuntimeConfig::new(folder.path().join("run"), folder.path().join("log"), format!("/{name}"))
        };
        if let Some(program) = other_runtime() {
            config.program = program;
        }
        let runtime = OciRuntime::new(config.clone()).unwrap();
        let ids = IdRange { first: (rand::random_range(16..30_000u32)) << 16 };
        Self { folder, config, runtime, ids }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A busybox root file system, owned by the container's ids.
    pub(crate) fn root(&self) -> PathBuf {
        let root = self.path("root");
        if !root.exists() {
            for name in ["bin", "etc", "tmp", "proc", "sys", "dev", "sbin"] {
                std::fs::create_dir_all(root.join(name)).unwrap();
            }
            std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
            std::fs::copy(probe(), root.join("bin/probe")).unwrap();
            for applet in APPLETS {
                symlink("busybox", root.join("bin").join(applet)).unwrap();
            }
            std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/sh\n").unwrap();
            std::fs::write(root.join("etc/group"), "root:x:0:\nweb:x:34:\nssl:x:110:web\n").unwrap();
            own(&root, self.ids);
            std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
        }
        root
    }

    pub(crate) fn bundle(&self, command: &[&str]) -> Bundle {
        self.bundle_in(self.root(), command)
    }

    pub(crate) fn bundle_in(&self, rootfs: PathBuf, command: &[&str]) -> Bundle {
        Bundle {
            id: ContainerId::generate(),
            rootfs,
            ids: self.ids,
            hostname: "probe-1".into(),
            command: command.iter().map(|&text| text.into()).collect(),
            env: BTreeMap::new(),
            workdir: String::new(),
            user: String::new(),
            stop_signal: String::new(),
            limits: Limits {
                cpu_millis: 1000,
                memory_bytes: 256 << 20,
                disk_bytes: 1 << 30,
                pids: 256,
                network_mbit: None,
            },
            dns: vec!["192.0.2.53".parse().unwrap()],
            kvm: false,
            shares: None,
            ramdisk: None,
        }
    }

    /// Creates and starts.
    pub(crate) async fn run(&self, bundle: &Bundle) -> i32 {
        let pid = self.runtime.create(bundle).await.unwrap();
        self.runtime.start(bundle.id).await.unwrap();
        pid
    }

    /// Runs a command to its end as the container's only job; its exit code and output.
    pub(crate) async fn output(&self, command: &[&str]) -> (Option<i32>, String) {
        let bundle = self.bundle(command);
        self.output_of(&bundle).await
    }

    pub(crate) async fn output_of(&self, bundle: &Bundle) -> (Option<i32>, String) {
        self.run(bundle).await;
        let ended = tokio::time::timeout(PATIENCE, self.runtime.wait(bundle.id)).await;
        ended.expect("the command ends").unwrap();
        let Process::Exited { code, .. } = self.runtime.state(bundle.id).await.unwrap() else {
            panic!("ended, but not exited")
        };
        let text = self.log(bundle.id);
        self.runtime.delete(bundle.id).await.unwrap();
        self.runtime.forget(bundle.id).await.unwrap();
        (code, text)
    }

    /// What the container wrote, without conmon's time stamps.
    pub(crate) fn log(&self, id: ContainerId) -> String {
        let text = std::fs::read_to_string(self.config.log_dir.join(format!("{id}.log"))).unwrap_or_default();
        let content = |line: &str| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned() + "\n";
        text.lines().map(content).collect()
    }

    pub(crate) fn cgroup(&self, hierarchy: &str, id: ContainerId) -> PathBuf {
        let parent = self.config.cgroup_parent.strip_prefix("/").unwrap();
        let root = Path::new("/sys/fs/cgroup");
        // Where there is nothing but v2, it is all there is.
        let hierarchy = if root.join("unified").exists() { hierarchy } else { "" };
        root.join(hierarchy).join(parent).join(id.to_string())
    }

    /// Everything on this machine that belongs to this node: files, mounts, cgroups, processes.
    pub(crate) fn traces(&self) -> Vec<String> {
        let mut found = Vec::new();
        // What was written is kept until the container is forgotten.
        for folder in ["run/containers", "run/runtime"] {
            for entry in std::fs::read_dir(self.path(folder)).unwrap() {
                found.push(format!("file {}", entry.unwrap().path().display()));
            }
        }
        let folder = self.folder.path().to_str().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        found.extend(mounts.lines().filter(|line| line.contains(folder)).map(|line| format!("mount {line}")));
        for parent in self.cgroup_parents() {
            let Ok(entries) = std::fs::read_dir(&parent) else { continue };
            let groups = entries.map(Result::unwrap).filter(|entry| entry.file_type().unwrap().is_dir());
            found.extend(groups.map(|entry| format!("cgroup {}", entry.path().display())));
        }
        for entry in std::fs::read_dir("/proc").unwrap() {
            let path = entry.unwrap().path();
            let Ok(pid) = path.file_name().unwrap().to_str().unwrap().parse::<u32>() else { continue };
            let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap_or_default();
            let ours = read("cgroup").contains(self.config.cgroup_parent.to_str().unwrap())
                || (read("cmdline").contains(folder) && pid != std::process::id());
            // A zombie of the machine's init is on its way out; one of this process would be our leak.
            let stat = read("stat");
            let mut fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
            let (state, parent) = (fields.next(), fields.next());
            let reaped_by_init = state == Some("Z") && parent != Some(&std::process::id().to_string());
            if ours && !stat.is_empty() && !reaped_by_init {
                found.push(format!("process {pid} {}", read("cmdline").replace('\0', " ")));
            }
        }
        found
    }

    fn cgroup_parents(&self) -> Vec<PathBuf> {
        let parent = self.config.cgroup_parent.strip_prefix("/").unwrap();
        let roots = std::fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
        roots.chain([PathBuf::from("/sys/fs/cgroup")]).map(|root| root.join(parent)).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let runtime = self.runtime.clone();
        let cleared = std::thread::spawn(move || {
            let reactor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            reactor.block_on(async {
                for id in runtime.inventory().await.unwrap() {
                    runtime.delete(id).await.unwrap();
                }
            });
        });
        let cleared = cleared.join();
        for parent in self.cgroup_parents() {
            let _ = std::fs::remove_dir(&parent);
        }
        if let Err(panic) = cleared
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// The OCI runtime that the suite is run with in place of the default: `HOODY_TEST_RUNTIME`.
pub(crate) fn other_runtime() -> Option<PathBuf> {
    std::env::var_os("HOODY_TEST_RUNTIME").map(PathBuf::from)
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Gives a tree to the container's ids, as the storage's idmapped mount does.
pub(crate) fn own(root: &Path, ids: IdRange) {
    lchown(root, Some(ids.first), Some(ids.first)).unwrap();
    for entry in std::fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => own(&entry.path(), ids),
            false => lchown(entry.path(), Some(ids.first), Some(ids.first)).unwrap(),
        }
    }
}

/// The static program that tests the kernel's answers from inside.
fn probe() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runtime/probe.c");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("probe-{}", std::process::id()));
        let done = Command::new("cc").args(["-static", "-O1", "-o"]).arg(&program).arg(source).status().unwrap();
        assert!(done.success(), "a C compiler builds the probe");
        program
    })
}
