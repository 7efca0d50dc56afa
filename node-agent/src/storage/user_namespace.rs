//! A user namespace for an idmapped mount, held by nothing but the descriptor.
//!
//! The kernel makes one only together with a process. This one shares the agent's memory instead of copying
//! it, has every signal blocked, and does nothing but pause until it is killed and reaped here: it touches no
//! memory but its own stack, so neither locks nor allocator nor `errno` of the agent's threads matter to it.

use super::IdRange;
use nix::libc;
use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

/// Bytes of the paused process's stack; two system calls need a small part of it.
const STACK_BYTES: usize = 16 << 10;

/// Makes a user namespace that maps 0 and up to `ids`, for users and groups alike.
pub(crate) fn create(ids: IdRange) -> io::Result<OwnedFd> {
    let holder = Holder::start()?;
    let map = format!("0 {} {}\n", ids.first, IdRange::LENGTH);
    // One write call each: the kernel takes the whole map in one piece.
    for name in ["uid_map", "gid_map"] {
        File::options().write(true).open(holder.proc(name))?.write_all(map.as_bytes())?;
    }
    Ok(File::open(holder.proc("ns/user"))?.into())
}

/// The paused process. Dropping it kills and reaps it.
struct Holder {
    pid: libc::pid_t,
    process: OwnedFd,
    /// In use by the process until it is reaped.
    _stack: Box<[u128]>,
}

impl Holder {
    fn start() -> io::Result<Self> {
        let mut stack = vec![0_u128; STACK_BYTES / size_of::<u128>()].into_boxed_slice();
        let mut pidfd: libc::c_int = -1;
        // No exit signal: the agent's handling of SIGCHLD never hears of this process.
        let flags = libc::CLONE_NEWUSER | libc::CLONE_VM | libc::CLONE_PIDFD;
        let blocked = BlockedSignals::all()?;
        // SAFETY: the stack pointer is the end of an aligned block that outlives the process (see `drop`);
        // the function only makes system calls that cannot fail into `errno`, with all signals blocked, so
        // that sharing memory with the agent has no effect on it. CLONE_PIDFD writes one c_int.
        let pid =
            unsafe { libc::clone(pause, stack.as_mut_ptr_range().end.cast(), flags, ptr::null_mut(), &mut pidfd) };
        let error = io::Error::last_os_error();
        drop(blocked);
        if pid < 0 {
            return Err(error);
        }
        // SAFETY: the kernel just returned this descriptor to us.
        Ok(Self { pid, process: unsafe { OwnedFd::from_raw_fd(pidfd) }, _stack: stack })
    }

    fn proc(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.pid)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // SAFETY: plain system call on our own descriptor; no pointer is passed.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.process.as_raw_fd(), libc::SIGKILL, 0, 0) };
        loop {
            // SAFETY: no pointer is passed. __WALL also waits for children without an exit signal.
            let reaped = unsafe { libc::waitpid(self.pid, ptr::null_mut(), libc::__WALL) };
            if reaped >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                break;
            }
        }
    }
}

extern "C" fn pause(_: *mut libc::c_void) -> libc::c_int {
    loop {
        // SAFETY: no pointers. The process dies with the thread that made it; the second call returns for no
        // signal, because all are blocked.
        unsafe {
            libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
            libc::syscall(libc::SYS_rt_sigsuspend, &raw const ALL_SIGNALS, size_of::<u64>());
        }
    }
}

static ALL_SIGNALS: u64 = u64::MAX;

/// All signals blocked in this thread until dropped.
struct BlockedSignals(nix::sys::signal::SigSet);

impl BlockedSignals {
    fn all() -> io::Result<Self> {
        use nix::sys::signal::{SigSet, SigmaskHow};
        Ok(Self(SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?))
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // Setting a mask that was in force cannot fail.
        let _ = self.0.thread_set_mask();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_namespace_is_another_than_our_own() {
        let own = std::fs::metadata("/proc/self/ns/user").unwrap().ino();
        let namespace = create(IdRange { first: 100_000 }).unwrap();
        assert_ne!(File::from(namespace).metadata().unwrap().ino(), own);
    }

    #[test]
    fn the_process_is_gone_once_dropped() {
        let holder = Holder::start().unwrap();
        let folder = holder.proc("");
        assert!(std::path::Path::new(&folder).exists());
        drop(holder);
        assert!(!std::path::Path::new(&folder).exists());
    }

    #[test]
    fn many_threads_at_once() {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                std::thread::spawn(move || {
                    (0..20).for_each(|_| drop(create(IdRange { first: 65_536 * (n + 2) }).unwrap()))
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
    }
}
