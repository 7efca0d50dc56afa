//! A real Debian with systemd.

use crate::harness::{Node, own, until};
use hoody_agent::runtime::{Process, Runtime};
use std::{path::PathBuf, process::Command, time::Duration};

/// Built once per machine; named by its contents.
const CACHE: &str = "/var/cache/hoody-test";
const SUITE: &str = "bookworm";
const PACKAGES: &str = "systemd,systemd-sysv,dbus";
/// systemd waits for its jobs.
const BOOT: Duration = Duration::from_secs(90);

fn archive() -> PathBuf {
    let path = PathBuf::from(CACHE).join(format!("{SUITE}-minbase-{}.tar", PACKAGES.replace(',', "+")));
    if !path.exists() {
        std::fs::create_dir_all(CACHE).unwrap();
        let partial = PathBuf::from(CACHE).join(format!("partial-{}.tar", std::process::id()));
        let include = format!("--include={PACKAGES}");
        let made = Command::new("mmdebstrap")
            .args(["--quiet", "--variant=minbase", &include, SUITE])
            .arg(&partial)
            .status()
            .unwrap();
        assert!(made.success(), "mmdebstrap makes a root file system");
        std::fs::rename(&partial, &path).unwrap();
    }
    path
}

#[tokio::test]
async fn systemd_boots_and_halts() {
    let node = Node::new();
    let root = node.path("debian");
    std::fs::create_dir(&root).unwrap();
    let unpacked =
        Command::new("tar").arg("-xpf").arg(archive()).arg("-C").arg(&root).arg("--exclude=./dev/*").status().unwrap();
    assert!(unpacked.success());
    own(&root, node.ids);
    let mut bundle = node.bundle_in(root, &[]);
    bundle.limits.memory_bytes = 1 << 30;
    bundle.limits.pids = 512;
    let id = bundle.id;
    node.run(&bundle).await;
    let script = "systemctl is-system-running --wait > /root/state; systemctl --failed --no-legend --plain > /root/failed; systemctl show -p Version -p Virtualization > /root/version";
    // Its bus takes a moment to answer at all.
    let script = format!(
        "until systemctl is-system-running 2>/dev/null | grep -qE 'starting|running|degraded'; do sleep 0.1; done; {script}"
    );
    let request =
        hoody_agent::runtime::ExecRequest { limit: Some(BOOT), ..crate::exec::request(&["/bin/sh", "-c", &script]) };
    let status = node.runtime.exec(id, &request).await;
    let read = |name: &str| std::fs::read_to_string(bundle.rootfs.join("root").join(name)).unwrap_or_default();
    assert!(status.is_ok(), "{status:?}: {}", node.log(id));
    let state = read("state");
    println!("state {state} failed units {:?} {}", read("failed"), read("version"));
    assert!(["running\n", "degraded\n"].contains(&state.as_str()), "{state:?} {}", read("failed"));
    assert!(matches!(node.runtime.state(id).await.unwrap(), Process::Running { .. }));
    // Its services are asked of it, and may take longer than one look on a busy machine.
    let asked = std::time::Instant::now();
    let services = loop {
        if let Some(services) = node.runtime.inspect(id).await.ok().flatten().and_then(|found| found.services) {
            break services;
        }
        assert!(asked.elapsed() < BOOT, "systemd tells its services");
    };
    let journal = services.iter().find(|service| service.unit.as_str() == "systemd-journald.service");
    let journal = journal.expect("the journal is a service");
    assert_eq!((journal.load.as_str(), journal.active.as_str(), journal.sub.as_str()), ("loaded", "active", "running"));
    assert!(journal.main_pid.is_some() && journal.since.is_some(), "{journal:?}");
    // Groups of its own, which delete must find.
    let groups = |hierarchy: &str| {
        std::fs::read_dir(node.cgroup(hierarchy, id))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir())
            .count()
    };
    assert!(groups("systemd") + groups("unified") > 0);
    node.runtime.signal_stop(id, false).await.unwrap();
    tokio::time::timeout(BOOT, node.runtime.wait(id)).await.expect("systemd halts").unwrap();
    let state = node.runtime.state(id).await.unwrap();
    assert_eq!(state, Process::Exited { code: Some(0), oom_killed: false });
    node.runtime.delete(id).await.unwrap();
    assert_eq!(node.traces(), Vec::<String>::new());
    // And killed in the middle, with all its groups.
    node.run(&bundle).await;
    until("it made groups", || groups("systemd") + groups("unified") > 0);
    node.runtime.delete(id).await.unwrap();
    assert_eq!(node.traces(), Vec::<String>::new());
}
