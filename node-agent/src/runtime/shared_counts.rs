//! Counts that the kernel keeps for all containers together. Every user namespace that root made draws on
//! root's own allowance, so with the kernel's defaults one container that takes all 128 inotify instances (or
//! asynchronous I/O requests, or terminals) leaves none for the others: their init systems do not even start.
//! What is counted here is also charged to the memory of the container that takes it, which bounds it. So the
//! shared allowances are raised until they bound nobody before memory does.

use std::{fs, path::Path};

/// A file below `/proc/sys`, and the least that suits a full server.
const LEAST: [(&str, u64); 6] = [
    ("fs/inotify/max_user_instances", 1 << 20),
    ("fs/inotify/max_user_watches", 1 << 28),
    ("fs/aio-max-nr", 1 << 30),
    // As systemd sets it.
    ("fs/file-max", i64::MAX as u64),
    ("kernel/pty/max", 1 << 20),
    ("kernel/pid_max", 1 << 22),
];

/// Raises what is lower; what cannot be raised is logged, and found by `doctor`.
pub(crate) fn raise() {
    for (name, least) in LEAST {
        let path = Path::new("/proc/sys").join(name);
        let raised = match fs::read_to_string(&path).map(|text| text.trim().parse::<u64>()) {
            Ok(Ok(value)) if value >= least => continue,
            Ok(_) => fs::write(&path, least.to_string()),
            Err(error) => Err(error),
        };
        match raised {
            Ok(()) => tracing::info!(sysctl = name, value = least, "raised, since all containers share it"),
            Err(error) => tracing::warn!(sysctl = name, %error, "not raised: one container can take all of it"),
        }
    }
}
