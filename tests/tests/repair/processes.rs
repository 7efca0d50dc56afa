//! First process, monitor, programs, files of the bundle, cgroups.

use super::LOOKS;
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{Cluster, Plan, Server, run},
    damage::{REPAIR, bundle, first_process, logged},
    probe, traces, wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use std::{fs, path::Path, process::Command};

const PORT: u16 = 8000;

#[tokio::test(flavor = "multi_thread")]
async fn lost_processes_programs_and_files_are_repaired_or_named() -> Result<()> {
    let programs = tempfile::tempdir()?;
    for program in ["/usr/sbin/runc", "/usr/bin/conmon"] {
        run(Command::new("cp").arg(program).arg(programs.path()))?;
    }
    let [runc, conmon] = ["runc", "conmon"].map(|name| programs.path().join(name));
    let agent_settings = format!("{LOOKS}\nruntime = {runc:?}\nconmon = {conmon:?}");
    let cluster = Cluster::start(Plan { agent_settings, ..Plan::default() }).await?;
    let (server, api) = (&cluster.servers[0], &cluster.tenant);
    let project = api.project("repair").await?;
    let id = api.container(&project, "busybox", json!({ "name": "web" })).await?;

    // A program that is missing.
    for program in [&runc, &conmon] {
        let away = program.with_extension("away");
        fs::rename(program, &away)?;
        api.operate(&id, "start").await?;
        api.wait_status(&id, "failed").await?;
        let log = logged(api, &id, "failed", "program_missing").await?;
        let name = program.file_name().and_then(|name| name.to_str()).context("no name")?;
        ensure!(log["metadata"]["cause"]["message"].as_str().is_some_and(|text| text.contains(name)), "{log}");
        fs::rename(&away, program)?;
        api.operate(&id, "start").await?;
        api.wait_status(&id, "running").await?;
        api.operate(&id, "stop").await?;
        api.wait_status(&id, "stopped").await?;
    }

    // Cgroups that are removed while nothing runs.
    remove_cgroups(server);
    ensure!(traces::cgroups(&server.name).is_empty(), "cgroups stay: {:?}", traces::cgroups(&server.name));
    api.operate(&id, "start").await?;
    api.wait_status(&id, "running").await?;
    let web = probe::web(server, &id, PORT, "hello")?;
    probe::answers(&web, true).await?;

    // Files of the bundle: the container goes on, and what reads them works again.
    let folder = bundle(server, &id);
    let pid = first_process(server, &id)?;
    let resolver = server.exec(&id, &["cat", "/etc/resolv.conf"])?;
    for name in ["config.json", "record.json", "conmon.pid", "exit", "etc/resolv.conf", "etc/hosts"] {
        let path = folder.join(name);
        if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
    }
    logged(api, &id, "running", "repaired").await?;
    ensure!(server.exec(&id, &["cat", "/etc/resolv.conf"])? == resolver, "another resolv.conf");
    fs::write(folder.join("record.json"), "{ torn")?;
    wait::until("the record is made anew", REPAIR, async || {
        let text = fs::read_to_string(folder.join("record.json")).unwrap_or_default();
        Ok(text.contains(&format!("\"pid\":{pid}")).then_some(()))
    })
    .await?;
    probe::answers_now(&web, true)?;
    ensure!(first_process(server, &id)? == pid, "the first process is another one");
    // Its stop signal is known: it ends when it is asked.
    api.operate(&id, "stop").await?;
    api.wait_status(&id, "stopped").await?;
    api.operate(&id, "start").await?;
    api.wait_status(&id, "running").await?;
    ensure!(server.exec(&id, &["cat", "/etc/resolv.conf"])? == resolver, "another resolv.conf after a start");

    // The first process is killed: that is the container's end, and a start is the way back.
    kill(Pid::from_raw(first_process(server, &id)?), Signal::SIGKILL)?;
    api.wait_status(&id, "stopped").await?;
    logged(api, &id, "stopped", "exited").await?;
    api.operate(&id, "start").await?;
    api.wait_status(&id, "running").await?;

    // The monitor is killed: the container goes on, and its owner is told what is lost.
    let web = probe::web(server, &id, PORT, "again")?;
    probe::answers(&web, true).await?;
    let monitor: i32 = fs::read_to_string(folder.join("conmon.pid"))?.trim().parse()?;
    kill(Pid::from_raw(monitor), Signal::SIGKILL)?;
    logged(api, &id, "running", "monitor_lost").await?;
    probe::answers_now(&web, true)?;
    kill(Pid::from_raw(first_process(server, &id)?), Signal::SIGKILL)?;
    logged(api, &id, "stopped", "process_lost").await?;
    api.operate(&id, "start").await?;
    api.wait_status(&id, "running").await?;
    let monitor: i32 = fs::read_to_string(folder.join("conmon.pid"))?.trim().parse()?;
    ensure!(Path::new(&format!("/proc/{monitor}")).exists(), "no monitor after a start");

    api.delete(&format!("/api/v1/containers/{id}"), None).await?.data()?;
    wait::until("no trace is left", REPAIR, async || Ok(traces::of_container(server, &id)?.is_empty().then_some(())))
        .await
        .with_context(|| format!("{:#?}", traces::of_container(server, &id)))
}

/// Removes every cgroup of the server, in which no process is.
fn remove_cgroups(server: &Server) {
    for path in traces::cgroups(&server.name) {
        // Gone with another name of the same hierarchy.
        let _ = fs::remove_dir(path);
    }
}
