//! An image made to get out: what of it arrives, and what it can do to the server.

use crate::{DEADLINE, World, bare};
use anyhow::{Context, Result, ensure};
use hoody_tests::{cluster::run, image, wait};
use serde_json::json;
use std::{
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    process::Command,
};

/// In the image's root: programs with the setuid bit, device nodes of the server's disks and memory, links
/// out of it, the files that the platform writes at start replaced by links out of it.
const HOSTILE_IMAGE: &str = r#"
set -e
chmod 4755 bin/busybox
mknod dev-disk b 254 0
mknod dev-mem c 1 1
mknod dev-null c 1 3
chmod 666 dev-*
ln -s /proc/1/root/etc/shadow shadow
ln -s ../../../../../../../../etc outside
rm -f etc/resolv.conf etc/hosts etc/hostname
ln -s /outside-was-written etc/resolv.conf
ln -s ../../../../../../../../outside-was-written etc/hosts
ln -s /outside-was-written etc/hostname
rm -rf proc sys
ln -s /root sys
ln -s /tmp proc
"#;

pub(crate) async fn hostile_image(world: &World) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("root");
    std::fs::create_dir(&root)?;
    run(Command::new("tar").arg("-xpf").arg(image::archive("busybox")?).arg("-C").arg(&root))?;
    run(Command::new("sh").args(["-c", HOSTILE_IMAGE]).current_dir(&root))?;
    let archive = folder.path().join("hostile.tar");
    run(Command::new("tar").args(["--numeric-owner", "-cpf"]).arg(&archive).arg("-C").arg(&root).arg("."))?;
    world.cluster.control_plane.import_image("hostile", &archive)?;
    let server = world.server();
    // Links in the place of /proc and /sys are refused, and said so; nothing of the server has changed.
    let tenant = &world.cluster.tenant;
    let specs = json!({ "cpu_cores": 0.1, "memory_mb": 64, "storage_mb": 64 });
    let more = json!({ "name": "links", "server_id": server.id, "specs": specs });
    let id = tenant.container(&world.project, "hostile", more).await?;
    tenant.operate(&id, "start").await?;
    let path = format!("/api/v1/containers/{id}");
    wait::until("the refusal", DEADLINE, async || {
        let row = tenant.get(&path).await?.data()?;
        ensure!(row["status"] != "running", "a link in the place of /proc was mounted over");
        Ok((row["status"] == "failed").then_some(()))
    })
    .await?;
    tenant.delete(&path, None).await?.data()?;
    // Without those two it starts, and the rest of it is tried.
    run(Command::new("sh").args(["-ec", "rm proc sys; mkdir proc sys"]).current_dir(&root))?;
    run(Command::new("tar").args(["--numeric-owner", "-cpf"]).arg(&archive).arg("-C").arg(&root).arg("."))?;
    world.cluster.control_plane.import_image("hostile2", &archive)?;
    let id = bare(server, &world.cluster.tenant, &world.project, "devices", "hostile2").await?;
    ensure!(!std::path::Path::new("/outside-was-written").exists(), "a link out of the image was followed");
    for node in ["/dev-disk", "/dev-mem", "/dev-null"] {
        ensure!(!world.succeeds(&id, &format!("head -c 1 {node}")), "the image's device node {node} opens");
    }
    let shadow = server.exec(&id, &["sh", "-c", "cat /shadow /outside/shadow 2>/dev/null; true"])?;
    ensure!(!shadow.contains("root:"), "a file of the server is read: {shadow}");
    // Setuid works inside, as it must, and leads to the container's root, not the server's.
    let program = world.files(&id).join("bin/busybox");
    let metadata = std::fs::metadata(&program)?;
    ensure!(metadata.permissions().mode() & 0o4000 != 0 && metadata.uid() == 0, "the setuid program is not there");
    // On the server no user gets to it, and the file system would not honour it.
    // By a shell: setpriv itself keeps its capabilities until it runs something.
    let reached = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c", "exec \"$0\" id"])
        .arg(&program)
        .output()?;
    ensure!(!reached.status.success(), "a user of the server runs a setuid program of a container");
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let pool = server.pool().display().to_string();
    let line = table.lines().find(|line| line.split(' ').nth(4) == Some(&pool)).context("no pool")?;
    ensure!(line.contains("nosuid") && line.contains("nodev"), "the pool is mounted {line}");
    // They are not even there: the unpacker leaves them out.
    for entry in std::fs::read_dir(world.files(&id))? {
        let kind = entry?.file_type()?;
        ensure!(!kind.is_block_device() && !kind.is_char_device(), "a device node was unpacked");
    }
    // The agent's own state is nobody else's.
    let state = std::fs::metadata(server.folder.join("state"))?;
    ensure!(state.permissions().mode() & 0o777 == 0o700 && state.uid() == 0, "the agent's state folder is open");
    world.cluster.tenant.delete(&format!("/api/v1/containers/{id}"), None).await?.data()?;
    Ok(())
}
