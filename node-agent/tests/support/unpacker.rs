//! The unpacker for tests: `unpack-layer …` as in the agent, and `probe`, which enters the sandbox in the
//! current folder and prints what it can still do.

use hoody_agent::images::unpack;
use std::{ffi::OsStr, fs, process::ExitCode};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(OsStr::to_str) {
        Some(unpack::SUBCOMMAND) => unpack::child_main(arguments),
        Some("probe") => probe(),
        // Stands in for an unpacker that never ends.
        Some("hang") | None => loop {
            std::thread::park();
        },
        Some(other) => {
            eprintln!("unknown: {other}");
            ExitCode::from(2)
        }
    }
}

fn probe() -> ExitCode {
    let parent = std::os::unix::process::parent_id();
    let socket = || std::net::UdpSocket::bind("127.0.0.1:0").is_ok();
    assert!(socket(), "without the sandbox there is a network");
    if let Err(error) = unpack::sandbox::enter(parent, 1 << 20) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let call = |number, argument: i64| {
        // SAFETY: the calls fail before they look at pointers, or have none.
        unsafe { nix::libc::syscall(number, argument, 0, 0, 0, 0) == 0 }
    };
    use nix::libc;
    let outcomes = [
        ("write", fs::write("/inside", "x").is_ok()),
        ("outside", fs::metadata("/proc").is_ok() || fs::metadata("/../../usr").is_ok()),
        ("network", socket()),
        ("exec", std::process::Command::new("/bin/true").status().is_ok()),
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
