//! One program on the server: a clean environment, no shell, no descriptors of ours, a session and a control group
//! of its own with limits, so that nothing it starts can stay behind or take the server's memory.

use super::CommandError;
use crate::runtime::cgroup::{OwnGroup, OwnLimits};
use hoody_protocol::command::{Account, template::Arguments};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{fs::File, os::fd::AsRawFd, process::Stdio, time::Duration};
use tokio::{
    process::{Child, Command},
    time::Instant,
};

/// Where programs find others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// User and group `nobody` and `nogroup` of Debian.
const NOBODY: u32 = 65_534;
/// Steps below the agent and its containers.
const NICE: libc::c_int = 10;
/// Where the server itself runs out of memory, commands end before containers do; the agent's own value, which makes
/// it the last, would be inherited.
const OOM_SCORE: &[u8] = b"500";
/// The time that processes have between being asked to end and being killed.
pub(super) const GRACE: Duration = Duration::from_secs(5);
/// The time the kernel has to end what was killed.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// Pause between two looks at a group that is ending.
const PAUSE: Duration = Duration::from_millis(20);

/// A program to be run.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) arguments: Arguments,
    pub(super) account: Account,
    /// Empty: `/`.
    pub(super) folder: String,
    pub(super) limits: OwnLimits,
}

/// Starts the program in `group`, which is made.
pub(super) fn spawn(program: &Program, group: &OwnGroup) -> Result<Child, CommandError> {
    let join = group.make(&program.limits)?;
    let name = program.arguments.first().ok_or(CommandError::NoProgram)?;
    let mut command = Command::new(name.as_str());
    command
        .args(program.arguments.iter().skip(1).map(|argument| argument.as_str()))
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .env("HOME", "/")
        .current_dir(if program.folder.is_empty() { "/" } else { &program.folder })
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let account = program.account;
    // SAFETY: between fork and exec only system calls are made, on plain numbers; nothing is allocated and no lock
    // is taken.
    unsafe { command.pre_exec(move || confine(&join, account)) };
    command.spawn().map_err(|source| CommandError::Spawn { program: name.to_string(), source })
}

/// In the child, before the program: the group first, so that nothing of it is ever outside.
fn confine(groups: &[File], account: Account) -> std::io::Result<()> {
    let done = |result: libc::c_long| if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) };
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: system calls with numbers and pointers to values that live during the call.
    unsafe {
        for group in groups {
            done(libc::write(group.as_raw_fd(), b"0".as_ptr().cast(), 1) as libc::c_long)?;
        }
        let score = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        done(score.into())?;
        done(libc::write(score, OOM_SCORE.as_ptr().cast(), OOM_SCORE.len()) as libc::c_long)?;
        done(libc::setsid().into())?;
        done(libc::setpriority(libc::PRIO_PROCESS, 0, NICE).into())?;
        done(libc::setrlimit(libc::RLIMIT_CORE, &no_core).into())?;
        libc::umask(0o077);
        if account == Account::Nobody {
            done(libc::setgroups(0, std::ptr::null()).into())?;
            done(libc::setresgid(NOBODY, NOBODY, NOBODY).into())?;
            done(libc::setresuid(NOBODY, NOBODY, NOBODY).into())?;
        }
        done(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
        // Closed by exec itself: the standard library still reports a failed exec over one of them.
        done(libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC))
    }
}

/// Asks every process of the group to end; kills those that have not after [`GRACE`].
pub(super) async fn end(group: &OwnGroup) {
    for pid in group.processes().unwrap_or_default() {
        match kill(Pid::from_raw(pid), Signal::SIGTERM) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => tracing::warn!(pid, %error, "a command's process was not asked to end"),
        }
    }
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline && !group.processes().unwrap_or_default().is_empty() {
        tokio::time::sleep(PAUSE).await;
    }
    clear(group).await;
}

/// Kills every process of the group until there is none, then removes it; false where that could not be done.
pub(super) async fn clear(group: &OwnGroup) -> bool {
    let deadline = Instant::now() + KILL_LIMIT;
    loop {
        match group.kill() {
            Ok(0) => match group.remove() {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "a command's group stays"),
            },
            Ok(_) => {}
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "a command was not killed"),
        }
        if Instant::now() >= deadline {
            tracing::error!("processes of a command do not end");
            return false;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
