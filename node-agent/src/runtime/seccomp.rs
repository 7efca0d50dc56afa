//! The system calls that a container may make: an allow-list, so that what a newer kernel adds stays
//! closed until somebody looked at it. Capabilities already stop most of what is missing here; this is
//! the second fence, and the only one in front of kernel code that needs no capability.
//!
//! Decisions:
//! - Everything else fails with EPERM, which programs (systemd above all) take as "not in a container".
//!   [`ABSENT`] fails with ENOSYS, because the C library then falls back to the older call.
//! - No new namespaces: a user namespace would give a tenant every capability over new namespaces and
//!   with them kernel code that only the administrator of a machine is meant to reach.
//! - `ioctl` is closed for all of btrfs except reading, cloning and syncing: a nested subvolume escapes
//!   the quota, is lost in snapshots and blocks deletion. Request numbers are compared without their
//!   size and direction, which differ between ABIs.
//! - The filter covers x86-64 and i386. A call of the x32 ABI, which nothing uses, ends its thread: no
//!   rule could be forgotten for it, and each ABI costs several milliseconds at every start. i386
//!   multiplexes sockets through `socketcall`, whose arguments no filter sees; address families are
//!   limited for the direct calls only.

use oci_spec::{
    OciSpecError,
    runtime::{
        Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
        LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
    },
};

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
/// CLONE_NEWTIME, which only `unshare` takes: in `clone` the bit belongs to the exit signal.
const TIME_NAMESPACE_FLAG: u64 = 0x80;
/// AF_UNIX, AF_INET, AF_INET6, AF_NETLINK and AF_PACKET (which needs a capability): not AF_VSOCK,
/// which reaches a hypervisor past every firewall, not AF_ALG and the rarely used protocols.
const ADDRESS_FAMILIES: [u64; 5] = [1, 2, 10, 16, 17];
/// Linux, with and without 32-bit emulation and fixed addresses, and "what is it now".
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The btrfs magic of `ioctl` request numbers (bits 8 to 15).
const BTRFS: u8 = 0x94;
/// What of it is open: DEFRAG, SYNC, FICLONE, FICLONERANGE, DEFRAG_RANGE, INO_LOOKUP,
/// SUBVOL_GETFLAGS, DEV_INFO, FS_INFO, FIDEDUPERANGE, GET_SUBVOL_INFO, GET_SUBVOL_ROOTREF,
/// INO_LOOKUP_USER.
const BTRFS_OPEN: [u8; 13] = [2, 8, 9, 13, 16, 18, 25, 30, 31, 54, 60, 61, 62];
/// TIOCSTI types into a terminal, TIOCLINUX acts on the console.
const TERMINAL_CLOSED: [u16; 2] = [0x5412, 0x541c];

const ABSENT: &[&str] = &["clone3", "io_uring_setup", "io_uring_enter", "io_uring_register"];

/// Files and folders.
const FILES: &str = "access chdir chmod chown chown32 chroot close close_range copy_file_range creat dup dup2 dup3 \
    faccessat faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat \
    fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs \
    fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch \
    inotify_init inotify_init1 inotify_rm_watch lchown lchown32 lgetxattr link linkat listxattr listxattrat \
    llistxattr lremovexattr lseek _llseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at \
    newfstatat oldfstat oldlstat oldstat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read \
    readahead readdir readlink readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir sendfile \
    sendfile64 setxattr setxattrat splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range \
    syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev";

/// Memory.
const MEMORY: &str = "arch_prctl brk cachestat get_thread_area madvise map_shadow_stack memfd_create memfd_secret \
    mincore mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect mremap mseal msync munlock munlockall munmap \
    pkey_alloc pkey_free pkey_mprotect process_madvise process_mrelease remap_file_pages set_thread_area";

/// Processes, identities, limits. What needs a capability still needs it.
const PROCESSES: &str = "capget capset execve execveat exit exit_group fork getcpu getegid getegid32 geteuid \
    geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getpriority getresgid \
    getresgid32 getresuid getresuid32 getrlimit getrusage getsid gettid getuid getuid32 ioprio_get ioprio_set kcmp \
    landlock_add_rule landlock_create_ruleset landlock_restrict_self nice pidfd_getfd pidfd_open pidfd_send_signal \
    prctl prlimit64 process_vm_readv process_vm_writev ptrace sched_get_priority_max sched_get_priority_min \
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield \
    seccomp set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid \
    setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid \
    setuid setuid32 sysinfo times ugetrlimit uname oldolduname olduname vfork vhangup wait4 waitid waitpid";

/// Signals, waiting, time.
const EVENTS: &str = "alarm clock_adjtime clock_adjtime64 adjtimex clock_getres clock_getres_time64 clock_gettime \
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 epoll_create epoll_create1 epoll_ctl epoll_ctl_old \
    epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 futex futex_requeue futex_time64 futex_wait \
    futex_waitv futex_wake get_robust_list getitimer gettimeofday io_cancel io_destroy io_getevents io_pgetevents \
    io_pgetevents_time64 io_setup io_submit kill membarrier nanosleep _newselect pause poll ppoll ppoll_time64 \
    pselect6 pselect6_time64 restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo \
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo select set_robust_list \
    setitimer sgetmask sigaction sigaltstack signal signalfd signalfd4 sigpending sigprocmask sigreturn sigsuspend \
    ssetmask tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime \
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 tkill";

/// Pipes, sockets, System V and POSIX objects. `getrandom` for want of a better place.
const EXCHANGE: &str = "accept accept4 bind connect getpeername getrandom getsockname getsockopt ipc listen \
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink \
    msgctl msgget msgrcv msgsnd pipe pipe2 recv recvfrom recvmmsg recvmmsg_time64 recvmsg semctl semget semop \
    semtimedop semtimedop_time64 send sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt shmget shutdown \
    socketcall socketpair";

/// The default profile.
pub(super) fn profile() -> Result<LinuxSeccomp, OciSpecError> {
    let names = [FILES, MEMORY, PROCESSES, EVENTS, EXCHANGE].iter().flat_map(|group| group.split_ascii_whitespace());
    let mut rules = vec![
        allow(names.map(str::to_owned).collect(), None)?,
        LinuxSyscallBuilder::default()
            .names(ABSENT.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
            .action(LinuxSeccompAction::ScmpActErrno)
            .errno_ret(libc::ENOSYS as u32)
            .build()?,
        allow(vec!["clone".into()], Some(masked(0, NAMESPACE_FLAGS, 0)?))?,
        allow(vec!["unshare".into()], Some(masked(0, NAMESPACE_FLAGS | TIME_NAMESPACE_FLAG, 0)?))?,
    ];
    for family in ADDRESS_FAMILIES {
        rules.push(allow(vec!["socket".into()], Some(equal(0, family)?))?);
    }
    for personality in PERSONALITIES {
        rules.push(allow(vec!["personality".into()], Some(equal(0, personality)?))?);
    }
    // One argument cannot be compared twice in one rule, and rules are joined by "or": what is open is
    // therefore written as the blocks of numbers around what is closed.
    for Block { mask, value } in open_blocks(ioctl_is_closed) {
        rules.push(allow(vec!["ioctl".into()], Some(masked(1, mask.into(), value.into())?))?);
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(libc::EPERM as u32)
        .architectures(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86])
        .syscalls(rules)
        .build()
}

fn allow(names: Vec<String>, condition: Option<LinuxSeccompArg>) -> Result<LinuxSyscall, OciSpecError> {
    let rule = LinuxSyscallBuilder::default().names(names).action(LinuxSeccompAction::ScmpActAllow);
    match condition {
        Some(condition) => rule.args(vec![condition]).build(),
        None => rule.build(),
    }
}

fn equal(index: usize, value: u64) -> Result<LinuxSeccompArg, OciSpecError> {
    LinuxSeccompArgBuilder::default().index(index).value(value).op(LinuxSeccompOperator::ScmpCmpEq).build()
}

fn masked(index: usize, mask: u64, value: u64) -> Result<LinuxSeccompArg, OciSpecError> {
    let rule = LinuxSeccompArgBuilder::default().index(index).value(mask).value_two(value);
    rule.op(LinuxSeccompOperator::ScmpCmpMaskedEq).build()
}

/// Whether the request whose magic and number these are is closed.
fn ioctl_is_closed(request: u16) -> bool {
    let [number, magic] = request.to_le_bytes();
    (magic == BTRFS && !BTRFS_OPEN.contains(&number)) || TERMINAL_CLOSED.contains(&request)
}

/// All 16-bit numbers `n` with `n & mask == value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    mask: u16,
    value: u16,
}

/// The fewest aligned blocks that hold every number that is not closed, and no closed one.
fn open_blocks(closed: impl Fn(u16) -> bool) -> Vec<Block> {
    let closed: Vec<u16> = (0..=u16::MAX).filter(|&n| closed(n)).collect();
    let mut blocks = Vec::new();
    let mut pending = vec![(Block { mask: 0, value: 0 }, closed)];
    while let Some((block, closed)) = pending.pop() {
        if closed.is_empty() {
            blocks.push(block);
        } else if block.mask != u16::MAX {
            let bit = 1 << (block.mask.count_zeros() - 1);
            let mask = block.mask | bit;
            for value in [block.value | bit, block.value] {
                let inside = closed.iter().copied().filter(|n| n & mask == value).collect();
                pending.push((Block { mask, value }, inside));
            }
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_exactly_what_is_open() {
        let blocks = open_blocks(ioctl_is_closed);
        for n in 0..=u16::MAX {
            let holders = blocks.iter().filter(|block| n & block.mask == block.value).count();
            assert_eq!(holders, usize::from(!ioctl_is_closed(n)), "{n:#x}");
        }
        assert!(blocks.len() < 80, "{} blocks make every ioctl slow", blocks.len());
        assert_eq!(open_blocks(|_| false), [Block { mask: 0, value: 0 }]);
        assert!(open_blocks(|_| true).is_empty());
    }

    #[test]
    fn subvolume_requests_are_closed_and_cloning_open() {
        // SNAP_CREATE, SUBVOL_CREATE, SNAP_DESTROY, SNAP_CREATE_V2, SUBVOL_CREATE_V2,
        // SUBVOL_SETFLAGS, SET_RECEIVED_SUBVOL, SNAP_DESTROY_V2, and two for the terminal.
        for n in [0x9401, 0x940e, 0x940f, 0x9417, 0x9418, 0x941a, 0x9425, 0x943f, 0x5412, 0x541c] {
            assert!(ioctl_is_closed(n), "{n:#x}");
        }
        // FICLONE, FICLONERANGE, FIDEDUPERANGE, TCGETS, TIOCGWINSZ.
        for n in [0x9409, 0x940d, 0x9436, 0x5401, 0x5413] {
            assert!(!ioctl_is_closed(n), "{n:#x}");
        }
    }

    #[test]
    fn dangerous_calls_are_not_in_the_list() {
        let all = [FILES, MEMORY, PROCESSES, EVENTS, EXCHANGE].join(" ");
        let names: Vec<_> = all.split_ascii_whitespace().collect();
        for name in [
            "mount",
            "umount2",
            "move_mount",
            "open_tree",
            "fsopen",
            "mount_setattr",
            "pivot_root",
            "setns",
            "unshare",
            "clone",
            "clone3",
            "bpf",
            "perf_event_open",
            "userfaultfd",
            "keyctl",
            "add_key",
            "request_key",
            "ioctl",
            "io_uring_setup",
            "kexec_load",
            "kexec_file_load",
            "init_module",
            "finit_module",
            "delete_module",
            "open_by_handle_at",
            "swapon",
            "reboot",
            "quotactl",
            "iopl",
            "ioperm",
            "socket",
            "personality",
            "syslog",
            "settimeofday",
            "clock_settime",
            "vm86",
            "fanotify_init",
        ] {
            assert!(!names.contains(&name), "{name}");
        }
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len(), "a name stands twice");
    }
}
