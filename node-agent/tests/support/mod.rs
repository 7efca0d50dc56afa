//! A throwaway btrfs pool on a sparse file, and a way to run programs as a container's user.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "a module of tests, each of which uses a part")]

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;

/// Bytes of the sparse file.
pub const POOL_BYTES: u64 = 2 << 30;

/// A mounted pool; unmounted and removed when dropped, also after a failed test.
#[derive(Debug)]
pub struct ScratchPool {
    folder: TempDir,
}

impl ScratchPool {
    /// Makes the file system and mounts it as production does.
    pub fn new() -> Self {
        Self::with_options("nosuid,nodev")
    }

    pub fn with_options(options: &str) -> Self {
        let scratch = Self { folder: tempfile::Builder::new().prefix("hoody-pool-").tempdir().unwrap() };
        // Containers' root has to reach the mounts below.
        run("chmod", [OsStr::new("0711"), scratch.folder.path().as_os_str()]);
        let disk = scratch.path("disk");
        File::create(&disk).unwrap().set_len(POOL_BYTES).unwrap();
        run("mkfs.btrfs", [OsStr::new("--quiet"), disk.as_os_str()]);
        fs::create_dir(scratch.pool()).unwrap();
        fs::create_dir(scratch.mounts()).unwrap();
        let options = format!("loop,{options}");
        run("mount", [OsStr::new("-o"), OsStr::new(&options), disk.as_os_str(), scratch.pool().as_os_str()]);
        scratch
    }

    pub fn pool(&self) -> PathBuf {
        self.path("pool")
    }

    pub fn mounts(&self) -> PathBuf {
        self.path("mounts")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for ScratchPool {
    fn drop(&mut self) {
        use nix::mount::{MntFlags, umount2};
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let below: Vec<_> = table.lines().filter_map(|l| l.split(' ').nth(4)).map(PathBuf::from).collect();
        for point in below.iter().rev().filter(|point| point.starts_with(self.folder.path())) {
            if let Err(error) = umount2(point, MntFlags::MNT_DETACH) {
                eprintln!("unmount {}: {error}", point.display());
            }
        }
    }
}

/// Runs a program and expects success; its standard output.
#[track_caller]
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a shell command in a user namespace that maps 0.. to `first`.., as its root, chrooted to `root`.
pub fn run_inside(root: &Path, first: u32, user: u32, command: &str) -> Output {
    // The holder of the namespace waits for its standard input to end.
    let mut holder = Command::new("unshare")
        .args(["--user", "--mount", "--", "cat"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = holder.id();
    wait_for("the holder's user namespace", || {
        let own = fs::read_link("/proc/self/ns/user").unwrap();
        fs::read_link(format!("/proc/{pid}/ns/user")).is_ok_and(|theirs| theirs != own)
    });
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{map}"), format!("0 {first} 65536\n")).unwrap();
    }
    let output = Command::new("nsenter")
        .args(["--user", &format!("--setuid={user}"), &format!("--setgid={user}")])
        .arg(format!("--target={pid}"))
        .arg(format!("--root={}", root.display()))
        .args(["--", "/bin/sh", "-c", command])
        .output()
        .unwrap();
    drop(holder.stdin.take());
    holder.wait().unwrap();
    output
}

/// Waits until `done`, with a deadline.
#[track_caller]
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "{what} did not come");
        std::thread::yield_now();
    }
}

/// Makes `path` a small root file system around a static busybox.
pub fn busybox_root(path: &Path) {
    for folder in ["bin", "etc", "tmp", "root"] {
        fs::create_dir_all(path.join(folder)).unwrap();
    }
    fs::copy("/bin/busybox", path.join("bin/busybox")).unwrap();
    for applet in ["sh", "cat", "chown", "chmod", "id", "dd", "ls", "stat", "touch", "rm", "mkdir", "mknod", "su"] {
        std::os::unix::fs::symlink("busybox", path.join("bin").join(applet)).unwrap();
    }
    fs::write(path.join("etc/motd"), "welcome\n").unwrap();
}
