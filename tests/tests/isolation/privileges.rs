//! Root inside a container: what it is outside, and what it cannot do.

use crate::World;
use anyhow::{Result, ensure};

pub(crate) fn root_is_nobody(world: &World) -> Result<()> {
    let (one, server) = (&world.mine[0].0, world.server());
    ensure!(server.exec(one, &["id", "-u"])?.trim() == "0");
    let map = server.exec(one, &["cat", "/proc/self/uid_map"])?;
    let numbers: Vec<u64> = map.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    ensure!(numbers[0] == 0 && numbers[1] >= 65_536 && numbers[2] == 65_536, "uid_map {map:?}");
    let neighbour = server.exec(&world.mine[1].0, &["cat", "/proc/self/uid_map"])?;
    ensure!(map != neighbour, "two containers share user ids");
    server.exec(one, &["sh", "-c", "echo secret > /root/secret; chmod 600 /root/secret"])?;
    for script in [
        "mount -t tmpfs none /mnt",
        "mkdir /m && mount -t proc proc /m",
        "mount -o remount,rw /proc/sys",
        "mknod /disk b 254 0",
        "echo 1 > /proc/sys/kernel/panic",
        "echo 0 > /proc/sys/net/ipv6/conf/all/disable_ipv6",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "echo b > /proc/sysrq-trigger",
        "echo x > /sys/kernel/uevent_helper",
        "cat /proc/kcore > /dev/null",
        "cat /proc/keys | grep -q .",
        "dmesg",
        "insmod /bin/busybox",
        "hostname stolen",
        "date -s 2001-01-01; [ $(date +%Y) = 2001 ]",
        "swapoff -a && swapon /disk",
        "unshare -U true",
        "nsenter -t 1 -n -U true && false",
        "chroot / mount -t sysfs none /mnt",
        "reboot -f",
    ] {
        ensure!(!world.succeeds(one, script), "this works in a container: {script}");
    }
    // No other process than its own; no device of the server.
    let processes = server.exec(one, &["sh", "-c", "ls /proc | grep -c '^[0-9]'"])?;
    ensure!(processes.trim().parse::<u32>()? < 12, "{processes} processes are seen");
    let devices = server.exec(one, &["sh", "-c", "find /dev -type b"])?;
    ensure!(devices.is_empty(), "block devices: {devices}");
    Ok(())
}

/// Every system call that leads out of a container, tried with arguments that would work for root.
pub(crate) fn system_calls(world: &World) -> Result<()> {
    let worked = world.hostile(&world.mine[0].0, &["calls"])?;
    ensure!(worked.is_empty(), "these work in a container:\n{worked}");
    // The program finds what works: on the server itself many do.
    let worked = hoody_tests::cluster::run(
        std::process::Command::new("unshare").args(["-m", "-n", "-u"]).arg(&world.hostile).arg("calls"),
    )?;
    ensure!(worked.contains("raw socket") && worked.contains("mount"), "the attempts are broken: {worked}");
    Ok(())
}

/// Subvolumes and snapshots by every request number and system call table: a nested one escapes the quota.
pub(crate) fn nested_subvolumes(world: &World) -> Result<()> {
    let container = &world.mine[0].0;
    let worked = world.hostile(container, &["subvolumes"])?;
    ensure!(worked.is_empty(), "subvolumes are made in a container: {worked}");
    for entry in std::fs::read_dir(world.files(container))? {
        let name = entry?.file_name();
        ensure!(!name.to_string_lossy().starts_with("nested-"), "{name:?} was made");
    }
    Ok(())
}
