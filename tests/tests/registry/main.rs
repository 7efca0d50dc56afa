//! Images from a real registry, through the public API and the command line, down to running containers.

mod configuration;
mod crash;
mod layers;

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{Cluster, Plan, run},
    image,
    registry::{Layout, Registry},
    wait,
};
use serde_json::json;
use std::{
    collections::BTreeSet,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// The root file system of busybox, in a folder.
fn busybox(registry: &Registry) -> Result<PathBuf> {
    let root = registry.folder().join("busybox");
    std::fs::create_dir_all(&root)?;
    run(Command::new("tar").arg("-C").arg(&root).arg("-xpf").arg(image::archive("busybox")?))?;
    Ok(root)
}

/// A web server that says how it was started, as a user of its own.
pub(crate) fn web(registry: &Registry) -> Result<Layout> {
    let layout = registry.layout("web")?;
    let busybox = busybox(registry)?;
    layout.layer(|root| copy(&busybox, root))?;
    layout.configure(&[
        "--config.entrypoint=/bin/sh",
        "--config.entrypoint=-c",
        "--config.cmd=echo user $(id -u) in $PWD with $GREETING; exec httpd -f -p 8000 -h /var/www",
        "--config.env=GREETING=hello",
        "--config.user=65534:65534",
        "--config.workingdir=/var/www",
        "--config.stopsignal=SIGKILL",
        "--config.exposedports=8000/tcp",
    ])?;
    Ok(layout)
}

/// Everything in `from`, as it is.
fn copy(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").args(["-a", "--"]).arg(from.join(".")).arg(to)).map(drop)
}

async fn cluster(registry: &Registry) -> Result<Cluster> {
    Cluster::start(Plan { settings: registry.settings(), ..Plan::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_made_from_a_registry_reference() -> Result<()> {
    let registry = Registry::start().await?;
    let reference = registry.push(&web(&registry)?, "team/web:v1", &[])?;
    let cluster = cluster(&registry).await?;
    let api = &cluster.tenant;
    let project = api.project("pulled").await?;

    // Answered at once, then made and run as the image says.
    let specs = json!({ "cpu_cores": 0.25, "memory_mb": 128, "storage_mb": 512 });
    let body = json!({ "container_image": reference, "name": "web", "autostart": true, "specs": specs });
    let made = api.post(&format!("/api/v1/projects/{project}/containers"), body).await?.data()?;
    ensure!(made["status"] == "creating" && made["image_pull"]["reference"] == reference, "{made}");
    let id = made["id"].as_str().context("an id")?.to_owned();
    let running = api.wait_status(&id, "running").await?;
    ensure!(running["container_image"] == reference && running["runtime"] == "docker", "{running}");
    let path = format!("/api/v1/containers/{id}");
    wait::until("the command's first line", DEADLINE, async || {
        let log = api.get(&format!("{path}/logs")).await?.data()?.to_string();
        Ok(log.contains("user 65534 in /var/www with hello").then_some(()))
    })
    .await?;
    let processes = cluster.servers[0].exec(&id, &["ps", "-o", "pid,args"])?;
    ensure!(processes.contains("httpd -f -p 8000"), "{processes}");
    ensure!(processes.lines().any(|line| line.trim_start().starts_with("1 /dev/.init")), "an init reaps: {processes}");

    // The same image again, pinned and as a system container: nothing is fetched twice, and its command is not run.
    let digest = run(Command::new("skopeo")
        .args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}"])
        .arg(format!("docker://{reference}")))?;
    let pinned = format!("{}/team/web@{}", registry.host(), digest.trim());
    let more = json!({ "name": "system", "runtime": "lxc", "specs": specs });
    let system = api.container(&project, &pinned, more).await?;
    api.operate(&system, "start").await?;
    api.wait_status(&system, "running").await?;
    let processes = cluster.servers[0].exec(&system, &["ps", "-o", "args"])?;
    ensure!(!processes.contains("httpd"), "{processes}");

    // What is not there fails with its cause; what leads elsewhere is refused.
    for (reference, code) in [
        (format!("{}/team/none:v1", registry.host()), "image_not_found"),
        ("127.0.0.2:5000/team/web:v1".to_owned(), "registry_address"),
        ("10.0.0.1/team/web:v1".to_owned(), "registry_address"),
    ] {
        let body = json!({ "container_image": reference, "specs": specs });
        let made = api.post(&format!("/api/v1/projects/{project}/containers"), body).await?.data()?;
        let id = made["id"].as_str().context("an id")?.to_owned();
        let failed = api.wait_status(&id, "failed").await?;
        ensure!(failed["warnings"][0]["type"] == code, "{reference}: {failed}");
        api.delete(&format!("/api/v1/containers/{id}"), None).await?.data()?;
    }

    // With the last container its blobs go.
    api.delete(&format!("/api/v1/projects/{project}"), None).await?.data()?;
    let said = cluster.control_plane.cli(&["image", "collect"])?;
    ensure!(said.starts_with("1 blobs removed"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unpacked_is_what_umoci_unpacks() -> Result<()> {
    let registry = Registry::start().await?;
    let layout = registry.layout("tree")?;
    // A real root file system, with everything that layers can hold.
    let root = registry.folder().join("debian");
    std::fs::create_dir(&root)?;
    let tar = ["--zstd", "-xpf"];
    run(Command::new("tar")
        .arg("-C")
        .arg(&root)
        .args(["--xattrs", "--xattrs-include=*"])
        .args(tar)
        .arg(image::archive("debian/12")?))?;
    odd_files(&root)?;
    layout.layer(|target| copy(&root, target))?;
    // Another layer: a file in place of a folder, a file less, and one that is another.
    layout.layer(|target| {
        std::fs::remove_dir_all(target.join("usr/share/bug"))?;
        std::fs::write(target.join("usr/share/bug"), "now a file")?;
        std::fs::remove_file(target.join("etc/motd"))?;
        Ok(std::fs::write(target.join("etc/issue"), "changed")?)
    })?;
    layout.configure(&["--config.cmd=/sbin/init"])?;
    let cluster = Cluster::start(Plan { settings: registry.settings(), images: Vec::new(), ..Plan::default() }).await?;
    let project = cluster.tenant.project("trees").await?;
    let reference = registry.push(&layout, "debian:12", &[])?;
    cluster.tenant.container(&project, &reference, json!({ "name": "tree" })).await?;
    // What comes with many bytes is a tree of its own, which the image is made from.
    let made = images(&cluster)?;
    ensure!(made.len() == 2, "{made:?}");
    let whole = |path: &&PathBuf| std::fs::read(path.join("etc/issue")).is_ok_and(|text| text == b"changed");
    let image = made.iter().find(whole).context("the tree with the last layer")?;
    let expected = tree(&registry.unpack(&reference)?)?;
    ensure!(expected.lines().count() > 5000, "a real root file system");
    same(&tree(image)?, &expected)
}

/// Hard links, attributes, capabilities, setuid and sticky bits, times, names that are no ASCII, empty and large files.
fn odd_files(root: &Path) -> Result<()> {
    let folder = root.join("opt/odd");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("empty"), "")?;
    std::fs::write(folder.join("größe"), vec![7; 3 << 20])?;
    std::fs::write(folder.join("tool"), "#!/bin/sh\n")?;
    std::fs::set_permissions(folder.join("tool"), std::fs::Permissions::from_mode(0o6755))?;
    std::fs::hard_link(folder.join("tool"), folder.join("linked"))?;
    symlink("../../etc/passwd", folder.join("relative"))?;
    symlink("/nowhere/at all", folder.join("dangling"))?;
    std::os::unix::fs::chown(folder.join("empty"), Some(1000), Some(65_534))?;
    let attributes = "import os, sys; os.setxattr(sys.argv[1], 'user.note', bytes(range(1, 200))); \
         os.setxattr(sys.argv[2], 'security.capability', bytes.fromhex('0100000200040000000000000000000000000000'))";
    run(Command::new("/usr/bin/python3").args(["-c", attributes]).arg(folder.join("größe")).arg(folder.join("empty")))?;
    run(Command::new("touch").args(["-h", "-d", "2001-02-03T04:05:06.789"]).arg(folder.join("dangling")))?;
    Ok(())
}

/// The images that the server has unpacked.
fn images(cluster: &Cluster) -> Result<Vec<PathBuf>> {
    let folder = cluster.servers[0].pool().join("images");
    std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?.map(|entry| Ok(entry?.path())).collect()
}

fn tree(root: &Path) -> Result<String> {
    let script = image::workspace().join("tests/tests/registry/tree.py");
    run(Command::new("/usr/bin/python3").arg(script).arg(root))
}

fn same(found: &str, expected: &str) -> Result<()> {
    let (ours, theirs): (BTreeSet<&str>, BTreeSet<&str>) = (found.lines().collect(), expected.lines().collect());
    let differences: Vec<String> = ours
        .difference(&theirs)
        .map(|line| format!("ours   {line}"))
        .chain(theirs.difference(&ours).map(|line| format!("umoci  {line}")))
        .collect();
    ensure!(
        differences.is_empty(),
        "{} differences, among them:\n{}",
        differences.len(),
        differences[..differences.len().min(20)].join("\n")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_pulls_into_the_catalogue() -> Result<()> {
    let registry = Registry::start().await?;
    let reference = registry.push(&web(&registry)?, "web", &[])?;
    // With a server: the nodes' address of a cluster without is the registry's, and the platform's own never open.
    let cluster = cluster(&registry).await?;
    let settings: Vec<(&str, &str)> = cluster.control_plane.environment.iter().map(|(k, v)| (&**k, &**v)).collect();
    let said =
        cluster.control_plane.cli_with(&settings, &["image", "pull", "web/1", &reference, "--env", "GREETING=bye"])?;
    ensure!(said.contains(" web/1 amd64 "), "{said}");
    let listed = cluster.admin.get("/api/v1/admin/images").await?.data()?;
    let pulled = listed["images"].as_array().into_iter().flatten().find(|image| image["alias"] == "web/1");
    ensure!(pulled.is_some_and(|image| image["layers"][0]["compression"] == "gzip"), "{listed}");
    // Without the operator's word no registry on this machine is asked.
    let refused =
        cluster.control_plane.cli(&["image", "pull", "web/2", &reference]).err().map(|error| error.to_string());
    ensure!(refused.as_ref().is_some_and(|text| text.contains("loopback")), "{refused:?}");
    Ok(())
}
