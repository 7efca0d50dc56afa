//! What a container must not be able to do, tried from inside.

use crate::harness::Node;

const EPERM: &str = "errno 1";
const ENOSYS: &str = "errno 38";

#[tokio::test]
async fn btrfs_subvolume_requests_are_denied_on_every_abi() {
    // Size and direction as the headers have them: SUBVOL_CREATE, SNAP_CREATE, SNAP_DESTROY,
    // SNAP_CREATE_V2, SUBVOL_CREATE_V2, SUBVOL_SETFLAGS, SNAP_DESTROY_V2, SET_RECEIVED_SUBVOL and its
    // 32-bit form; TIOCSTI.
    let denied = [
        0x5000_940eu32,
        0x5000_9401,
        0x5000_940f,
        0x5000_9417,
        0x5000_9418,
        0x4008_941a,
        0x5000_943f,
        0xc0c8_9425,
        0xc0c0_9425,
        0x5412,
    ];
    let mut script = String::new();
    for request in denied {
        for abi in ["ioctl", "ioctl-high", "ioctl32"] {
            script += &format!("echo {abi} {request:#x} $(probe {abi} {request:#x}); ");
        }
    }
    // FS_INFO, FICLONE and TCGETS reach the kernel, which does not know them on this file system.
    for request in ["0x8400941f", "0x40049409", "0x5401"] {
        script +=
            &format!("echo open {request} $(probe ioctl {request}); echo open {request} $(probe ioctl32 {request}); ");
    }
    // Of the x32 ABI there is nothing at all: SIGSYS.
    script += "probe ioctl-x32 0x5000940e 2>/dev/null; echo x32 $?";
    let node = Node::new();
    let (code, text) = node.output(&["/bin/sh", "-c", &script]).await;
    assert_eq!(code, Some(0));
    // The shell reports the signal in a line of its own.
    let answers: Vec<_> = text.lines().filter(|line| !line.is_empty() && *line != "Bad system call").collect();
    assert_eq!(answers.len(), denied.len() * 3 + 6 + 1, "{text}");
    for line in answers {
        match line.split(' ').next().unwrap() {
            "open" => assert!(!line.ends_with(EPERM) && line.contains("errno"), "{line}"),
            "x32" => assert_eq!(line, "x32 159"),
            _ => assert!(line.ends_with(EPERM), "{line}"),
        }
    }
}

#[tokio::test]
async fn dangerous_system_calls_are_denied() {
    // Number and name on x86-64. Each would get another answer than EPERM without the filter, or is
    // also stopped by a missing capability.
    let calls = [
        (165, "mount"),
        (166, "umount2"),
        (155, "pivot_root"),
        (428, "open_tree"),
        (429, "move_mount"),
        (430, "fsopen"),
        (442, "mount_setattr"),
        (308, "setns"),
        (321, "bpf"),
        (298, "perf_event_open"),
        (323, "userfaultfd"),
        (250, "keyctl"),
        (248, "add_key"),
        (249, "request_key"),
        (246, "kexec_load"),
        (320, "kexec_file_load"),
        (175, "init_module"),
        (313, "finit_module"),
        (176, "delete_module"),
        (169, "reboot"),
        (304, "open_by_handle_at"),
        (167, "swapon"),
        (103, "syslog"),
        (172, "iopl"),
        (300, "fanotify_init"),
    ];
    let mut script: String =
        calls.iter().map(|(number, name)| format!("echo {name} $(probe syscall {number}); ")).collect();
    // NEWUSER, NEWNS, NEWNET, NEWTIME; and clone with NEWUSER and SIGCHLD.
    for flag in ["0x10000000", "0x20000", "0x40000000", "0x80"] {
        script += &format!("echo unshare {flag} $(probe unshare {flag}); ");
    }
    script += "echo clone $(probe syscall 56 0x10000011); echo raw $(probe raw); echo vsock $(probe socket 40); echo alg $(probe socket 38); ";
    script += "echo absent $(probe syscall 435); echo absent $(probe syscall 425); echo fine $(probe unshare 0x400); echo fine $(probe ping); ";
    // With what the kernel itself grants to everybody (UFFD_USER_MODE_ONLY, FAN_REPORT_FID), and READ_IMPLIES_EXEC.
    script += "echo userfaultfd $(probe syscall 323 1); echo fanotify $(probe syscall 300 0x200); echo personality $(probe syscall 135 0x400000); ";
    let node = Node::new();
    let (code, text) = node.output(&["/bin/sh", "-c", &script]).await;
    assert_eq!(code, Some(0));
    assert_eq!(text.lines().count(), calls.len() + 4 + 4 + 4 + 3, "{text}");
    for line in text.lines() {
        let expected = match line.split(' ').next().unwrap() {
            "absent" => ENOSYS,
            "fine" => "ok",
            _ => EPERM,
        };
        assert!(line.ends_with(expected), "{line}");
    }
}

#[tokio::test]
async fn paths_that_concern_the_node_are_hidden_or_read_only() {
    let node = Node::new();
    let script = "wc -c < /proc/interrupts; wc -c < /proc/timer_list; wc -c < /proc/keys; ls /sys/firmware | wc -l; \
        for f in /proc/sys/kernel/domainname /proc/sys/net/ipv6/conf/all/disable_ipv6 /proc/sys/net/ipv4/ip_forward /proc/sysrq-trigger /proc/irq/default_smp_affinity /sys/kernel/profiling /sys/fs/cgroup/memory/memory.limit_in_bytes; \
        do (echo 1 > $f) 2>/dev/null && echo written $f; done; mknod /tmp/sda b 8 0 2>/dev/null && echo made; \
        (mount -t tmpfs x /tmp) 2>/dev/null && echo mounted; ls /dev | wc -l; grep Cap /proc/self/status; id -u";
    let (code, text) = node.output(&["/bin/sh", "-c", script]).await;
    assert_eq!(code, Some(0), "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(&lines[..4], ["0", "0", "0", "0"], "{text}");
    for word in ["written", "made", "mounted"] {
        assert!(!text.contains(word), "{text}");
    }
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, SYS_CHROOT,
    // AUDIT_WRITE, SETFCAP.
    assert!(text.contains("CapBnd:\t00000000a00405fb"), "{text}");
    assert!(text.contains("CapInh:\t0000000000000000"), "{text}");
}

#[tokio::test]
async fn the_network_namespace_belongs_to_the_container() {
    let node = Node::new();
    let (_, text) = node.output(&["/bin/sh", "-c", "ip addr; cat /proc/sys/net/ipv6/conf/all/disable_ipv6"]).await;
    assert!(text.contains("127.0.0.1/8"), "{text}");
    assert!(!text.contains("eth0") && text.lines().any(|line| line == "1"), "{text}");
    assert!(!text.contains("inet6"), "{text}");
}

/// Where a container has something mounted, and with which options.
fn mounted(pid: i32) -> std::collections::BTreeMap<String, Vec<String>> {
    let table = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let mount = |line: &str| {
        let fields: Vec<_> = line.split(' ').collect();
        (fields[4].to_owned(), fields[5].split(',').map(str::to_owned).collect())
    };
    table.lines().map(mount).collect()
}

/// Most of it the container's root could neither read nor write anyway: the covers are looked at themselves, so that
/// none is lost unnoticed.
#[tokio::test]
async fn each_path_that_concerns_the_node_is_covered_and_each_mount_is_as_bare_as_it_can_be() {
    const NOTHING: &str = "";
    const BARE: &str = "nosuid,nodev,noexec";
    let hidden = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ];
    let read_only = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
    let own = [
        ("/proc", BARE),
        ("/dev", "nosuid"),
        ("/dev/pts", "nosuid,noexec"),
        ("/dev/shm", BARE),
        ("/dev/mqueue", BARE),
        ("/sys", "nosuid,nodev,noexec,ro"),
        ("/etc/resolv.conf", BARE),
        ("/etc/hosts", BARE),
        ("/etc/hostname", BARE),
    ];
    // Not every kernel has all of them.
    let here = |path: &str| std::path::Path::new(path).exists();
    let expected = hidden.map(|path| (path, NOTHING)).into_iter().chain(read_only.map(|path| (path, "ro"))).chain(own);
    let node = Node::new();
    let bundle = node.bundle(&["/bin/sleep", "1000"]);
    let pid = node.run(&bundle).await;
    let found = mounted(pid);
    for (path, options) in expected.filter(|(path, _)| here(path)) {
        let options = options.split(',').filter(|option| !option.is_empty());
        let has = found.get(path).unwrap_or_else(|| panic!("nothing is mounted on {path}"));
        for option in options {
            assert!(has.iter().any(|found| found == option), "{path} is mounted {has:?}");
        }
    }
    // The hierarchies themselves, beside their folder.
    let hierarchies: Vec<_> = found.iter().filter(|(path, _)| path.starts_with("/sys/fs/cgroup/")).collect();
    assert!(hierarchies.iter().all(|(_, options)| options.iter().any(|option| option == "ro")), "{hierarchies:?}");
    // Nothing of the node's is beside them: the namespaces are its own.
    for namespace in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/{namespace}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{namespace}");
    }
    // No device but the harmless ones, whatever node turns up inside.
    let devices = std::fs::read_to_string(node.cgroup("devices", bundle.id).join("devices.list")).unwrap();
    let is_everything =
        |line: &str| line.starts_with('a') || line.starts_with("c *:* rw") || line.starts_with("b *:* rw");
    assert!(!devices.lines().any(is_everything), "{devices}");
}
