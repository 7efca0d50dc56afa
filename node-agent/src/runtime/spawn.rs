//! Starts a program that is in its cgroup from its first instruction on.
//!
//! On cgroup v2 the kernel makes the process there (`clone3(2)`, CLONE_INTO_CGROUP). A process that joins by
//! writing its number, the only way on v1, waits for every other processor to pass a quiet point: measured, 12 to
//! 18 ms against 1 ms. The standard library cannot do this, so what it does between fork and exec is done here.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, process::ExitStatusExt},
    },
    path::Path,
    process::ExitStatus,
    ptr,
};
use tokio::io::{Interest, unix::AsyncFd};

/// `linux/sched.h`; the constant of the libc crate is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// How a new process comes into its cgroup.
#[derive(Debug)]
pub(super) enum Membership {
    /// The open folder of a group of cgroup v2.
    Made(File),
    /// The open `cgroup.procs` of a group of v1.
    Joins(File),
}

/// What is started. It leads its own process group, reads nothing, and its standard output goes nowhere.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    pub(super) program: &'a Path,
    pub(super) args: &'a [OsString],
    /// Added to our environment.
    pub(super) env: (&'a str, String),
    pub(super) folder: &'a Path,
    pub(super) stderr: &'a File,
    /// The descriptor that it inherits, under its number here.
    pub(super) inherited: RawFd,
    pub(super) membership: &'a Membership,
}

/// A started process. Dropped before its end was waited for, it is killed with its process group.
#[derive(Debug)]
pub(super) struct Spawned {
    pid: libc::pid_t,
    /// `None` once it was waited for.
    handle: Option<OwnedFd>,
}

/// Everything that the new process needs, so that it neither allocates nor locks: other threads of ours, which
/// are not there any more, may have held any lock.
struct Prepared {
    program: CString,
    args: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    null: File,
    folder: File,
    report: OwnedFd,
    stderr: RawFd,
    inherited: RawFd,
    joins: Option<RawFd>,
}

impl Launch<'_> {
    /// Starts it; returns when the program runs, or with the reason why it does not.
    pub(super) fn spawn(&self) -> io::Result<Spawned> {
        let args: Vec<CString> = std::iter::once(self.program.as_os_str())
            .chain(self.args.iter().map(OsString::as_os_str))
            .map(text)
            .collect::<Result<_, _>>()?;
        let env: Vec<CString> = std::env::vars_os()
            .filter(|(name, _)| name != self.env.0)
            .chain([(self.env.0.into(), self.env.1.clone().into())])
            .map(|(name, value)| {
                let mut line = name;
                line.push("=");
                line.push(value);
                text(&line)
            })
            .collect::<Result<_, _>>()?;
        let (report, sent) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let prepared = Prepared {
            program: text(self.program.as_os_str())?,
            args: pointers(&args),
            env: pointers(&env),
            null: File::options().read(true).write(true).open("/dev/null")?,
            folder: File::open(self.folder)?,
            report: sent,
            stderr: self.stderr.as_raw_fd(),
            inherited: self.inherited,
            joins: match self.membership {
                Membership::Joins(procs) => Some(procs.as_raw_fd()),
                Membership::Made(_) => None,
            },
        };
        let group = match self.membership {
            Membership::Made(folder) => Some(folder.as_raw_fd()),
            Membership::Joins(_) => None,
        };
        let mut spawned = clone(group, &prepared)?;
        // Ours must go, or the pipe would never end.
        drop(prepared);
        let mut reason = [0; 4];
        match File::from(report).read_exact(&mut reason) {
            // Closed by the exec: the program runs.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(spawned),
            Err(error) => Err(error),
            Ok(()) => {
                spawned.reap()?;
                Err(io::Error::from_raw_os_error(i32::from_ne_bytes(reason)))
            }
        }
    }
}

fn text(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

/// The texts as exec wants them; they must outlive the pointers.
fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

/// Makes the process, in this cgroup where one is given.
fn clone(group: Option<RawFd>, prepared: &Prepared) -> io::Result<Spawned> {
    let mut handle: RawFd = -1;
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = libc::CLONE_PIDFD as u64;
    args.pidfd = ptr::from_mut(&mut handle) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(group) = group {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = group as u64;
    }
    // SAFETY: signal sets are plain data, filled before they are read. No signal is taken between clone and
    // exec, where our handlers would act for the wrong process.
    let pid = unsafe {
        let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        // Without CLONE_VM and with a stack of 0 it returns twice, as fork does.
        let pid = libc::syscall(libc::SYS_clone3, ptr::from_ref(&args), size_of::<libc::clone_args>());
        if pid == 0 {
            become_program(prepared);
        }
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
        if pid < 0 {
            return Err(error);
        }
        pid as libc::pid_t
    };
    // SAFETY: the kernel has just made the descriptor, and nobody else owns it.
    Ok(Spawned { pid, handle: Some(unsafe { OwnedFd::from_raw_fd(handle) }) })
}

/// What the new process does: system calls alone, on what was prepared.
///
/// # Safety
/// Only in the new process. The pointers in `prepared` are valid.
unsafe fn become_program(prepared: &Prepared) -> ! {
    // SAFETY: every call takes descriptors that are open and pointers that are valid, by the caller's promise;
    // none of them allocates or locks.
    unsafe {
        let null = prepared.null.as_raw_fd();
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        let joined = prepared.joins.is_none_or(|procs| libc::write(procs, b"0".as_ptr().cast(), 1) == 1);
        if joined
            && libc::setpgid(0, 0) == 0
            && libc::dup2(null, 0) == 0
            && libc::dup2(null, 1) == 1
            && libc::dup2(prepared.stderr, 2) == 2
            && libc::fchdir(prepared.folder.as_raw_fd()) == 0
            && libc::fcntl(prepared.inherited, libc::F_SETFD, 0) == 0
            // Rust programs ignore it; others expect to end by it.
            && libc::signal(libc::SIGPIPE, libc::SIG_DFL) != libc::SIG_ERR
            && libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut()) == 0
        {
            libc::execve(prepared.program.as_ptr(), prepared.args.as_ptr(), prepared.env.as_ptr());
        }
        let reason = (*libc::__errno_location()).to_ne_bytes();
        libc::write(prepared.report.as_raw_fd(), reason.as_ptr().cast(), reason.len());
        libc::_exit(127)
    }
}

impl Spawned {
    /// Waits for its end.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        if let Some(handle) = &self.handle {
            // SAFETY: an `OwnedFd` names the same descriptor until it is dropped, which only the `AsyncFd` does.
            let handle = unsafe { AsyncFd::register_with_interest(handle.try_clone()?, Interest::READABLE) };
            let handle = handle.map_err(|error| error.into_parts().1)?;
            let _ended = handle.readable().await?;
        }
        self.reap()
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        let mut status = 0;
        // SAFETY: waitpid writes into the integer; the child is ours and was not waited for.
        while unsafe { libc::waitpid(self.pid, &mut status, 0) } < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        self.handle = None;
        Ok(ExitStatus::from_raw(status))
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if self.handle.is_none() {
            return;
        }
        let pid = self.pid;
        // SAFETY: kill takes two integers; the child was not waited for, so the number is its own, and its
        // group's.
        unsafe { libc::kill(-pid, libc::SIGKILL) };
        // It may take a moment to end, which nobody here should wait for.
        std::thread::spawn(move || {
            // SAFETY: as in `reap`; nobody else waits for it now.
            unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{super::pidfd::ProcessId, *};
    use std::time::Duration;

    /// A group of cgroup v2, removed when dropped.
    struct TestGroup(std::path::PathBuf);

    impl TestGroup {
        fn make(name: &str) -> Self {
            let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
            let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).unwrap();
            let path = Path::new(root.split(' ').nth(1).unwrap()).join(format!("{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn membership(&self) -> Membership {
            Membership::Made(File::open(&self.0).unwrap())
        }
    }

    impl Drop for TestGroup {
        fn drop(&mut self) {
            // What was killed leaves it a moment later.
            for _ in 0..500 {
                if std::fs::remove_dir(&self.0).is_ok() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn shell(script: &str, membership: &Membership, stderr: &File) -> io::Result<Spawned> {
        let args = ["-c".into(), script.into()];
        let (program, folder, env) = (Path::new("/bin/sh"), Path::new("/"), ("GREETING", "hello".to_owned()));
        Launch { program, args: &args, env, folder, stderr, inherited: stderr.as_raw_fd(), membership }.spawn()
    }

    #[tokio::test]
    async fn the_program_is_in_its_group_with_what_it_was_given() {
        let group = TestGroup::make("hoody-spawn-in");
        let output = tempfile::NamedTempFile::new().unwrap();
        let script =
            "{ cat /proc/self/cgroup; echo $GREETING; pwd; cut -d' ' -f5 /proc/$$/stat; echo $$; } >&2; exit 3";
        let joins = Membership::Joins(File::options().write(true).open(group.0.join("cgroup.procs")).unwrap());
        for membership in [group.membership(), joins] {
            let file = output.reopen().unwrap();
            file.set_len(0).unwrap();
            let mut spawned = shell(script, &membership, &file).unwrap();
            assert_eq!(spawned.wait().await.unwrap().code(), Some(3));
            let text = std::fs::read_to_string(output.path()).unwrap();
            let name = group.0.file_name().unwrap().to_str().unwrap();
            assert!(text.contains(&format!("0::/{name}\nhello\n/\n")), "{text}");
            let lines: Vec<&str> = text.lines().rev().take(2).collect();
            assert_eq!(lines[0], lines[1], "it leads its own process group");
        }
    }

    #[tokio::test]
    async fn a_program_that_cannot_be_started_says_why() {
        let group = TestGroup::make("hoody-spawn-missing");
        let stderr = tempfile::tempfile().unwrap();
        let launch = Launch {
            program: Path::new("/nonexistent/program"),
            args: &[],
            env: ("A", "b".into()),
            folder: Path::new("/"),
            stderr: &stderr,
            inherited: stderr.as_raw_fd(),
            membership: &group.membership(),
        };
        assert_eq!(launch.spawn().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_killed_with_its_group() {
        let group = TestGroup::make("hoody-spawn-kill");
        let output = tempfile::NamedTempFile::new().unwrap();
        let spawned = shell("sleep 1000 & echo $! >&2; wait", &group.membership(), &output.reopen().unwrap()).unwrap();
        let mut grandchild = String::new();
        for _ in 0..500 {
            grandchild = std::fs::read_to_string(output.path()).unwrap();
            if grandchild.ends_with('\n') {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let process = ProcessId::of(grandchild.trim().parse().unwrap()).unwrap().unwrap();
        let handle = process.open().unwrap().unwrap();
        drop(spawned);
        assert!(handle.ended_within(Duration::from_secs(5)).await.unwrap());
    }
}
