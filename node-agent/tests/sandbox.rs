//! The sandbox of the unpacker and of the receiver leaves files below the root, and nothing else.
//!
//! Without libtest: the program starts itself again, and that process enters the sandbox and prints what it
//! can still do.
#![allow(clippy::unwrap_used, reason = "a panic is the message of a test")]

use hoody_agent::sandbox::{self, Confinement};
use std::{
    fs,
    process::{Command, ExitCode},
};

/// Set in the process that enters the sandbox, to whose it is.
const INSIDE: &str = "HOODY_TEST_INSIDE_SANDBOX";
/// What the process inside tries.
const ATTEMPTS: usize = 11;

fn main() -> ExitCode {
    if let Ok(whose) = std::env::var(INSIDE) {
        return probe(if whose == "unpacker" { Confinement::unpacker(1 << 20) } else { Confinement::receiver() });
    }
    for whose in ["unpacker", "receiver"] {
        check(whose);
        println!("test the_sandbox_of_the_{whose}_leaves_files_below_the_root_and_nothing_else ... ok");
    }
    ExitCode::SUCCESS
}

fn check(whose: &str) {
    let folder = tempfile::tempdir().unwrap();
    let output =
        Command::new(std::env::current_exe().unwrap()).env(INSIDE, whose).current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let possible: Vec<_> = said.lines().filter(|line| line.ends_with(" true")).collect();
    assert_eq!(possible, ["write true"], "{said}");
    assert_eq!(said.lines().count(), ATTEMPTS, "{said}");
    assert!(folder.path().join("inside").exists());
}

fn probe(confinement: Confinement) -> ExitCode {
    let parent = std::os::unix::process::parent_id();
    let socket = || std::net::UdpSocket::bind("127.0.0.1:0").is_ok();
    assert!(socket(), "without the sandbox there is a network");
    if let Err(error) = sandbox::enter(parent, &confinement) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let call = |number, argument: i64| {
        // SAFETY: the calls fail before they look at pointers, or have none.
        unsafe { nix::libc::syscall(number, argument, 0, 0, 0, 0) == 0 }
    };
    use nix::libc;
    let outcomes: [_; ATTEMPTS] = [
        ("write", fs::write("/inside", "x").is_ok()),
        ("outside", fs::metadata("/proc").is_ok() || fs::metadata("/../../usr").is_ok()),
        ("network", socket()),
        ("exec", Command::new("/bin/true").status().is_ok()),
        ("ptrace", call(libc::SYS_ptrace, 0)),
        ("mount", nix::mount::mount(Some("/"), "/", None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>).is_ok()),
        ("unshare", call(libc::SYS_unshare, 0)),
        ("ioctl", call(libc::SYS_ioctl, 0)),
        ("kill", call(libc::SYS_kill, parent.into())),
        ("setuid", call(libc::SYS_setuid, 0)),
        (
            "device",
            nix::sys::stat::mknod("/null", nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::S_IRUSR, 259).is_ok(),
        ),
    ];
    for (name, possible) in outcomes {
        println!("{name} {possible}");
    }
    ExitCode::SUCCESS
}
