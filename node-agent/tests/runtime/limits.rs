//! Limits hold, change, and what runs into them is said so.

use crate::harness::{Node, PATIENCE, until};
use hoody_agent::runtime::{Process, Runtime, RuntimeError};

fn number(path: std::path::PathBuf) -> i64 {
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().parse().unwrap()
}

#[tokio::test]
async fn processes_are_limited() {
    let node = Node::new();
    let mut bundle = node.bundle(&["/bin/probe", "forks", "500"]);
    bundle.limits.pids = 20;
    node.run(&bundle).await;
    until("it gives up", || !node.log(bundle.id).is_empty());
    // The init and the program itself count.
    assert_eq!(node.log(bundle.id).trim(), "18");
    let stats = node.runtime.stats(bundle.id).await.unwrap();
    assert_eq!(stats.processes, Some(20));
    assert!(stats.memory_bytes.unwrap() > 0 && stats.memory_peak_bytes.unwrap() > 0 && stats.cpu_usage_ns.unwrap() > 0);
    node.runtime.delete(bundle.id).await.unwrap();
    assert_eq!(node.traces(), Vec::<String>::new());
    assert_eq!(node.runtime.stats(bundle.id).await.unwrap(), Default::default());
}

#[tokio::test]
async fn running_out_of_memory_is_reported() {
    let node = Node::new();
    let mut bundle = node.bundle(&["/bin/probe", "memory", "200"]);
    bundle.limits.memory_bytes = 48 << 20;
    node.run(&bundle).await;
    tokio::time::timeout(PATIENCE, node.runtime.wait(bundle.id)).await.unwrap().unwrap();
    let state = node.runtime.state(bundle.id).await.unwrap();
    assert_eq!(state, Process::Exited { code: Some(137), oom_killed: true });
    node.runtime.delete(bundle.id).await.unwrap();
    // The next life starts without that mark.
    let bundle = node.bundle(&["/bin/true"]);
    node.run(&bundle).await;
    tokio::time::timeout(PATIENCE, node.runtime.wait(bundle.id)).await.unwrap().unwrap();
    let state = node.runtime.state(bundle.id).await.unwrap();
    assert_eq!(state, Process::Exited { code: Some(0), oom_killed: false });
}

#[tokio::test]
async fn limits_are_set_and_changed_while_it_runs() {
    let node = Node::new();
    let mut bundle = node.bundle(&[]);
    bundle.limits.cpu_millis = 250;
    node.run(&bundle).await;
    let file = |hierarchy: &str, name: &str| node.cgroup(hierarchy, bundle.id).join(name);
    let check = |quota: i64, memory: i64, pids: i64| {
        assert_eq!(number(file("cpu", "cpu.cfs_quota_us")), quota);
        assert_eq!(number(file("memory", "memory.limit_in_bytes")), memory);
        assert_eq!(number(file("memory", "memory.memsw.limit_in_bytes")), memory, "no swap beyond memory");
        assert_eq!(number(file("pids", "pids.max")), pids);
    };
    check(25_000, 256 << 20, 256);
    for (cpu_millis, memory_bytes, pids) in [(2000, 512 << 20, 300), (100, 64 << 20, 30)] {
        let limits = hoody_protocol::container::Limits { cpu_millis, memory_bytes, pids, ..bundle.limits };
        node.runtime.update_limits(bundle.id, &limits).await.unwrap();
        check(i64::from(cpu_millis) * 100, memory_bytes as i64, i64::from(pids));
    }
    let limits = hoody_protocol::container::Limits { pids: 0, ..bundle.limits };
    assert!(node.runtime.update_limits(bundle.id, &limits).await.is_err());
}

#[tokio::test]
async fn the_log_starts_over_at_its_limit() {
    let mut node = Node::new();
    node.config.log_max_bytes = 64 << 10;
    node.runtime = hoody_agent::runtime::OciRuntime::new(node.config.clone()).unwrap();
    let bundle = node.bundle(&[
        "/bin/sh",
        "-c",
        "i=0; while test $i -lt 5000; do echo line $i of a log that is too long; i=$((i+1)); done; exec sleep 1000",
    ]);
    node.run(&bundle).await;
    until("all is written", || node.log(bundle.id).contains("line 4999 "));
    let size = std::fs::metadata(node.config.log_dir.join(format!("{}.log", bundle.id))).unwrap().len();
    assert!(size <= 64 << 10, "{size}");
}

#[tokio::test]
async fn memory_in_use_is_not_taken_away() {
    let node = Node::new();
    // Touches 64 MiB and keeps them.
    let bundle = node.bundle(&["/bin/probe", "hold", "64"]);
    node.run(&bundle).await;
    until("it holds its memory", || node.log(bundle.id).contains("holding"));
    let less = hoody_protocol::container::Limits { memory_bytes: 32 << 20, ..bundle.limits };
    let refused = node.runtime.update_limits(bundle.id, &less).await;
    assert!(
        matches!(refused, Err(RuntimeError::MemoryInUse { used_bytes, .. }) if used_bytes >= 64 << 20),
        "{refused:?}"
    );
    assert_eq!(number(node.cgroup("memory", bundle.id).join("memory.limit_in_bytes")), 256 << 20);
    assert!(matches!(node.runtime.state(bundle.id).await.unwrap(), Process::Running { .. }));
    let enough = hoody_protocol::container::Limits { memory_bytes: 96 << 20, ..bundle.limits };
    node.runtime.update_limits(bundle.id, &enough).await.unwrap();
}

#[tokio::test]
async fn the_share_of_the_disk_follows_the_processors() {
    let node = Node::new();
    let mut bundle = node.bundle(&[]);
    bundle.limits.cpu_millis = 250;
    node.run(&bundle).await;
    // This kernel has BFQ; where one has no weights, there is nothing to set.
    let file = node.cgroup("blkio", bundle.id).join("blkio.bfq.weight");
    assert_eq!(number(file.clone()), 25);
    let more = hoody_protocol::container::Limits { cpu_millis: 2000, ..bundle.limits };
    node.runtime.update_limits(bundle.id, &more).await.unwrap();
    assert_eq!(number(file), 200);
    assert_eq!(number(node.cgroup("cpu", bundle.id).join("cpu.shares")), 2048);
}

#[tokio::test]
async fn processes_ended_for_lack_of_memory_are_counted() {
    let node = Node::new();
    let mut bundle =
        node.bundle(&["/bin/sh", "-c", "probe memory 200; probe memory 200; echo survived; exec sleep 1000"]);
    bundle.limits.memory_bytes = 48 << 20;
    node.run(&bundle).await;
    until("both have ended", || node.log(bundle.id).contains("survived"));
    assert_eq!(node.runtime.oom_kills(bundle.id).await.unwrap(), 2);
    assert!(matches!(node.runtime.state(bundle.id).await.unwrap(), Process::Running { .. }));
}

/// A btrfs file system on a disk of its own, gone when dropped.
struct Disk {
    mount: std::path::PathBuf,
    device: String,
}

impl Disk {
    fn new(node: &Node) -> Self {
        let (image, mount) = (node.path("disk"), node.path("pool"));
        std::fs::create_dir(&mount).unwrap();
        std::fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
        run("mkfs.btrfs", &["-q", image.to_str().unwrap()]);
        let device = run("losetup", &["-f", "--show", image.to_str().unwrap()]).trim().to_owned();
        let disk = Self { mount, device };
        run("mount", &[&disk.device, disk.mount.to_str().unwrap()]);
        disk
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: what a failed test left running goes with its node.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.mount).status();
        let _ = std::process::Command::new("losetup").args(["-d", &self.device]).status();
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn disks_are_read_and_written_no_faster_than_their_rates() {
    const RATE: u64 = 8 << 20;
    const BYTES: u64 = 16 << 20;
    let mut node = Node::new();
    let disk = Disk::new(&node);
    let devices = hoody_agent::storage::devices(&disk.mount).unwrap();
    let number =
        std::fs::read_to_string(format!("/sys/block/{}/dev", disk.device.trim_start_matches("/dev/"))).unwrap();
    assert_eq!(devices, [number.trim()]);
    node.config.disk_rates = hoody_agent::runtime::DiskRates { devices, read_bytes: RATE, write_bytes: RATE };
    node.runtime = hoody_agent::runtime::OciRuntime::new(node.config.clone()).unwrap();
    // The root file system is on that disk.
    let root = disk.mount.join("root");
    run("cp", &["-a", node.root().to_str().unwrap(), root.to_str().unwrap()]);
    let mut bundle = node.bundle_in(root.clone(), &[]);
    bundle.limits.memory_bytes = 64 << 20;
    node.run(&bundle).await;
    let group = node.cgroup("blkio", bundle.id);
    let file = |name: &str| std::fs::read_to_string(group.join(format!("blkio.throttle.{name}_bps_device"))).unwrap();
    assert!(file("read").contains(&RATE.to_string()) && file("write").contains(&RATE.to_string()));

    // What it may not be faster than: the bytes at the rate, with what may pass at once taken off.
    let least = std::time::Duration::from_millis(1000 * (BYTES - (BYTES / 4)) / RATE);
    let megabytes = (BYTES >> 20).to_string();
    let dd = |what: &str| {
        run("sync", &[]);
        std::fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
        let begun = std::time::Instant::now();
        let script = format!("dd {what} bs=1048576 count={megabytes}");
        let pid = std::fs::read_to_string(group.join("cgroup.procs")).unwrap().lines().next().unwrap().to_owned();
        // A process of the container's group, with the files of the container.
        let join =
            format!("echo $$ > {}/cgroup.procs; exec chroot /proc/{pid}/root /bin/sh -c '{script}'", group.display());
        run("sh", &["-c", &join]);
        begun.elapsed()
    };
    for what in [
        "if=/dev/zero of=/tmp/direct oflag=direct",
        "if=/dev/zero of=/tmp/buffered conv=fsync",
        "if=/tmp/direct of=/dev/null iflag=direct",
        "if=/tmp/direct of=/dev/null",
    ] {
        let took = dd(what);
        println!("{what}: {took:?}");
        assert!(took >= least, "{what}: {took:?} for {megabytes} MiB at {} MiB a second", RATE >> 20);
    }

    // Taken away by others, and put back by the next look; another agent takes it away by its settings.
    let device = &node.config.disk_rates.devices[0];
    std::fs::write(group.join("blkio.throttle.write_bps_device"), format!("{device} 0")).unwrap();
    assert!(node.runtime.mend(&bundle).await.unwrap().disk_rates);
    assert!(file("write").contains(&RATE.to_string()));
    assert!(!node.runtime.mend(&bundle).await.unwrap().disk_rates);
    node.config.disk_rates.write_bytes = 0;
    node.runtime = hoody_agent::runtime::OciRuntime::new(node.config.clone()).unwrap();
    node.runtime.update_limits(bundle.id, &bundle.limits).await.unwrap();
    assert_eq!((file("write").trim(), file("read").contains(&RATE.to_string())), ("", true));
    node.runtime.delete(bundle.id).await.unwrap();
}
