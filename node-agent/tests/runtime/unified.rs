//! Limits, freezing, measurements and the end for lack of memory where cgroup v2 holds every controller, as on
//! production servers. `make test-cgroup2` boots a virtual machine that is so, and runs these in it; a machine
//! with v1 controllers cannot.

use crate::harness::{Node, PATIENCE, until};
use hoody_agent::runtime::{Process, Runtime, RuntimeError};
use hoody_protocol::{container::Limits, id::ContainerId};

fn file(node: &Node, id: ContainerId, name: &str) -> String {
    let path = node.cgroup("", id).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

#[tokio::test]
#[ignore = "needs cgroup v2 alone: make test-cgroup2"]
async fn unified_limits_are_set_and_changed_while_it_runs() {
    let node = Node::new();
    let mut bundle = node.bundle(&[]);
    bundle.limits.cpu_millis = 250;
    node.run(&bundle).await;
    let check = |cpu: &str, memory: u64, pids: u32| {
        assert_eq!(file(&node, bundle.id, "cpu.max"), cpu);
        assert_eq!(file(&node, bundle.id, "memory.max"), memory.to_string());
        assert_eq!(file(&node, bundle.id, "memory.swap.max"), "0", "no swap beyond memory");
        assert_eq!(file(&node, bundle.id, "pids.max"), pids.to_string());
    };
    check("25000 100000", 256 << 20, 256);
    for (cpu_millis, cpu, memory_bytes, pids) in
        [(2000, "200000 100000", 512 << 20, 300), (100, "10000 100000", 64 << 20, 30)]
    {
        let limits = Limits { cpu_millis, memory_bytes, pids, ..bundle.limits };
        node.runtime.update_limits(bundle.id, &limits).await.unwrap();
        check(cpu, memory_bytes, pids);
    }
    node.runtime.delete(bundle.id).await.unwrap();
    assert_eq!(node.traces(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs cgroup v2 alone: make test-cgroup2"]
async fn unified_memory_in_use_is_not_taken_away() {
    let node = Node::new();
    let bundle = node.bundle(&["/bin/probe", "hold", "64"]);
    node.run(&bundle).await;
    until("it holds its memory", || node.log(bundle.id).contains("holding"));
    let less = Limits { memory_bytes: 32 << 20, ..bundle.limits };
    let refused = node.runtime.update_limits(bundle.id, &less).await;
    assert!(matches!(refused, Err(RuntimeError::MemoryInUse { .. })), "{refused:?}");
    assert_eq!(file(&node, bundle.id, "memory.max"), (256 << 20).to_string());
    assert!(matches!(node.runtime.state(bundle.id).await.unwrap(), Process::Running { .. }));
}

#[tokio::test]
#[ignore = "needs cgroup v2 alone: make test-cgroup2"]
async fn unified_memory_and_processes_end_at_their_limits() {
    let node = Node::new();
    let mut bundle = node.bundle(&["/bin/probe", "memory", "200"]);
    bundle.limits.memory_bytes = 48 << 20;
    node.run(&bundle).await;
    tokio::time::timeout(PATIENCE, node.runtime.wait(bundle.id)).await.unwrap().unwrap();
    let state = node.runtime.state(bundle.id).await.unwrap();
    assert_eq!(state, Process::Exited { code: Some(137), oom_killed: true });
    node.runtime.delete(bundle.id).await.unwrap();

    let script = "probe memory 200; echo survived; exec sleep 1000";
    let mut bundle = node.bundle(&["/bin/sh", "-c", script]);
    bundle.limits.memory_bytes = 48 << 20;
    node.run(&bundle).await;
    until("it has ended", || node.log(bundle.id).contains("survived"));
    assert_eq!(node.runtime.oom_kills(bundle.id).await.unwrap(), 1);

    let mut bundle = node.bundle(&["/bin/probe", "forks", "500"]);
    bundle.limits.pids = 20;
    node.run(&bundle).await;
    until("it gives up", || !node.log(bundle.id).is_empty());
    assert_eq!(node.log(bundle.id).trim(), "18");
    let stats = node.runtime.stats(bundle.id).await.unwrap();
    assert_eq!(stats.processes, Some(20));
    assert!(stats.memory_bytes.unwrap() > 0 && stats.cpu_usage_ns.unwrap() > 0, "{stats:?}");
}

#[tokio::test]
#[ignore = "needs cgroup v2 alone: make test-cgroup2"]
async fn unified_containers_freeze_thaw_and_leave_nothing() {
    let node = Node::new();
    let bundle = node.bundle(&["/bin/sh", "-c", "while true; do echo tick; sleep 0.05; done"]);
    let id = bundle.id;
    node.run(&bundle).await;
    until("it ticks", || node.log(id).contains("tick"));
    node.runtime.pause(id).await.unwrap();
    assert!(matches!(node.runtime.state(id).await.unwrap(), Process::Paused { .. }));
    assert!(file(&node, id, "cgroup.events").contains("frozen 1"));
    node.runtime.resume(id).await.unwrap();
    let ticks = node.log(id).lines().count();
    until("it ticks again", || node.log(id).lines().count() > ticks);
    node.runtime.signal_stop(id, true).await.unwrap();
    tokio::time::timeout(PATIENCE, node.runtime.wait(id)).await.unwrap().unwrap();
    node.runtime.delete(id).await.unwrap();
    assert_eq!(node.traces(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs cgroup v2 alone: make test-cgroup2"]
async fn unified_disk_rates_are_set_changed_and_put_back() {
    let mut node = Node::new();
    // The RAM disk has no block device below it; any disk shows that the kernel takes the rates.
    let disk = std::fs::read_dir("/sys/block").unwrap().next().expect("a disk").unwrap().path();
    let device = std::fs::read_to_string(disk.join("dev")).unwrap().trim().to_owned();
    node.config.disk_rates =
        hoody_agent::runtime::DiskRates { devices: vec![device.clone()], read_bytes: 8 << 20, write_bytes: 4 << 20 };
    node.runtime = hoody_agent::runtime::OciRuntime::new(node.config.clone()).unwrap();
    let bundle = node.bundle(&[]);
    node.run(&bundle).await;
    let wanted = format!("{device} rbps=8388608 wbps=4194304 riops=max wiops=max");
    assert_eq!(file(&node, bundle.id, "io.max"), wanted);
    std::fs::write(node.cgroup("", bundle.id).join("io.max"), format!("{device} wbps=max")).unwrap();
    assert!(node.runtime.mend(&bundle).await.unwrap().disk_rates);
    assert_eq!(file(&node, bundle.id, "io.max"), wanted);
    assert!(!node.runtime.mend(&bundle).await.unwrap().disk_rates);
    node.config.disk_rates.read_bytes = 0;
    node.runtime = hoody_agent::runtime::OciRuntime::new(node.config.clone()).unwrap();
    node.runtime.update_limits(bundle.id, &bundle.limits).await.unwrap();
    assert_eq!(file(&node, bundle.id, "io.max"), format!("{device} rbps=max wbps=4194304 riops=max wiops=max"));
    node.runtime.delete(bundle.id).await.unwrap();
}
