//! Confines a process of the agent before it reads a byte from outside: its `/` is the folder that it was started in,
//! alone in a mount namespace; it has no network, no way to start or touch another process, the five capabilities
//! that owners and modes need, and a list of system calls that has nothing else. The agent's side of such a process
//! is in [`child`].

pub(crate) mod child;

use caps::{CapSet, Capability, CapsHashSet};
use nix::{
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{chdir, getppid, pivot_root, setgroups},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::{collections::BTreeMap, io};

/// Address space: the largest decompression window and the unpacker's books fit well.
const MAX_ADDRESS_BYTES: u64 = 1 << 30;
const MAX_OPEN_FILES: u64 = 600;

/// What one kind of process may do beside reading and writing files.
#[derive(Debug, Clone, Copy)]
pub struct Confinement {
    /// The largest file that may be written; `None`: any, other limits hold.
    file_bytes: Option<u64>,
    /// System calls beside those of every process.
    calls: &'static [libc::c_long],
    /// Sockets and the mark of a deleted file in an overlay may be made beside FIFOs.
    special_files: bool,
    /// Parts of files may be shared with other files.
    clones: bool,
}

impl Confinement {
    /// For the unpacker of image layers; `file_bytes`: the largest file that may be written.
    pub const fn unpacker(file_bytes: u64) -> Self {
        Self { file_bytes: Some(file_bytes), calls: &[], special_files: false, clones: false }
    }

    /// For the receiver of send streams. Files may have holes of any size: what they hold is limited by the quota of
    /// the subvolume that they are in.
    pub const fn receiver() -> Self {
        Self { file_bytes: None, calls: RECEIVER, special_files: true, clones: true }
    }
}

/// Enters the sandbox in the current folder. `parent` is the process without which this one shall not go on.
pub fn enter(parent: u32, confinement: &Confinement) -> io::Result<()> {
    die_with(parent)?;
    // SAFETY: plain system call; closes what this process was not meant to inherit.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    if closed < 0 {
        return Err(io::Error::last_os_error());
    }
    setgroups(&[])?;
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    lower_limits(confinement.file_bytes.unwrap_or(u64::MAX))?;
    confine_to_current_folder()?;
    drop_capabilities()?;
    nix::sys::prctl::set_no_new_privs()?;
    seccompiler::apply_filter(&filter(confinement)?).map_err(io::Error::other)
}

fn die_with(parent: u32) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    // The parent may have died before the line above.
    if getppid().as_raw().unsigned_abs() != parent {
        return Err(io::Error::other("the parent is gone"));
    }
    Ok(())
}

fn lower_limits(file_bytes: u64) -> io::Result<()> {
    let wanted = [
        (Resource::RLIMIT_AS, MAX_ADDRESS_BYTES),
        (Resource::RLIMIT_NOFILE, MAX_OPEN_FILES),
        (Resource::RLIMIT_FSIZE, file_bytes),
        (Resource::RLIMIT_NPROC, 0),
        (Resource::RLIMIT_CORE, 0),
    ];
    for (resource, limit) in wanted {
        let (soft, hard) = getrlimit(resource)?;
        setrlimit(resource, soft.min(limit), hard.min(limit))?;
    }
    Ok(())
}

fn confine_to_current_folder() -> io::Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let root = std::env::current_dir()?;
    mount(Some(&root), &root, none, MsFlags::MS_BIND, none)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(none, &root, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, none)?;
    chdir(&root)?;
    pivot_root(".", ".")?;
    // The old root now lies over the new one.
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    Ok(())
}

fn drop_capabilities() -> io::Result<()> {
    let kept: CapsHashSet = [
        Capability::CAP_CHOWN,
        Capability::CAP_DAC_OVERRIDE,
        Capability::CAP_FOWNER,
        Capability::CAP_FSETID,
        Capability::CAP_SETFCAP,
    ]
    .into();
    let had = caps::read(None, CapSet::Bounding).map_err(io::Error::other)?;
    for capability in had.difference(&kept) {
        caps::drop(None, CapSet::Bounding, *capability).map_err(io::Error::other)?;
    }
    caps::clear(None, CapSet::Ambient).map_err(io::Error::other)?;
    caps::clear(None, CapSet::Inheritable).map_err(io::Error::other)?;
    caps::set(None, CapSet::Effective, &kept).map_err(io::Error::other)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(io::Error::other)
}

/// What is not listed fails with EPERM; a program of another architecture is killed.
fn filter(confinement: &Confinement) -> io::Result<BpfProgram> {
    let calls = ALLOWED.iter().chain(confinement.calls);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = calls.map(|call| (*call, Vec::new())).collect();
    let kind = |kind: libc::mode_t| argument(2, SeccompCmpOp::MaskedEq(u64::from(libc::S_IFMT)), kind.into());
    let mut nodes = vec![SeccompRule::new(vec![kind(libc::S_IFIFO)?])];
    if confinement.special_files {
        nodes.push(SeccompRule::new(vec![kind(libc::S_IFSOCK)?]));
        nodes.push(SeccompRule::new(vec![kind(libc::S_IFCHR)?, argument(3, SeccompCmpOp::Eq, 0)?]));
    }
    rules.insert(libc::SYS_mknodat, nodes.into_iter().collect::<Result<_, _>>().map_err(io::Error::other)?);
    if confinement.clones {
        let clone = SeccompRule::new(vec![argument(1, SeccompCmpOp::Eq, libc::FICLONERANGE)?]);
        rules.insert(libc::SYS_ioctl, vec![clone.map_err(io::Error::other)?]);
    }
    let arch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(rules, refused, SeccompAction::Allow, arch)
        .and_then(BpfProgram::try_from)
        .map_err(io::Error::other)
}

/// A condition on the lower half of an argument.
fn argument(index: u8, operation: SeccompCmpOp, value: u64) -> io::Result<SeccompCondition> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operation, value).map_err(io::Error::other)
}

/// What the receiver of send streams does beside that.
const RECEIVER: &[libc::c_long] =
    &[libc::SYS_sync_file_range, libc::SYS_openat2, libc::SYS_fchdir, libc::SYS_renameat, libc::SYS_lremovexattr];

/// Files below the root, memory, time, and ending.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_ftruncate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_lsetxattr,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
];
