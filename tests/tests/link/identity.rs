//! Who a server is when clocks are wrong, certificates end, the authority changes, a disk is copied, or a
//! join is cut short.

use crate::{DEADLINE, first_process, small};
use anyhow::{Context, Result, bail, ensure};
use hoody_tests::{
    api::Api,
    cluster::{ADMIN, Cluster, Plan, TENANT, run},
    wait,
};
use serde_json::Value;
use std::{fs, path::Path};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_stays_itself_and_nobody_else_becomes_it() -> Result<()> {
    let mut cluster = Cluster::start(Plan { servers: 2, ..Plan::default() }).await?;
    let outcome = async {
        let api = cluster.tenant.clone();
        let project = api.project("identity").await?;
        let mut body = small("runs");
        body["server_id"] = Value::from(cluster.servers[0].id.clone());
        let container = api.container(&project, "busybox", body).await?;
        api.operate(&container, "start").await?;
        api.wait_status(&container, "running").await?;
        let before = first_process(&cluster.servers[0], &container)?;
        a_join_that_was_cut_short(&cluster).await.context("a join that was cut short")?;
        a_copied_server(&mut cluster, &container).await.context("a copied server")?;
        another_authority(&mut cluster).await.context("another authority")?;
        wrong_clocks(&mut cluster).await.context("wrong clocks")?;
        ensure!(first_process(&cluster.servers[0], &container)? == before, "the container did not run through");
        away_for_long(&mut cluster).await.context("away for long")?;
        ensure!(first_process(&cluster.servers[0], &container)? == before, "the container did not run through");
        Ok::<_, anyhow::Error>(())
    };
    let outcome = outcome.await;
    outcome.with_context(|| cluster.log_tails())
}

/// The token was used, and the certificate was not saved: the same agent asks again and is the same server.
async fn a_join_that_was_cut_short(cluster: &Cluster) -> Result<()> {
    let server = &cluster.servers[1];
    let token = cluster.control_plane.join_token("cut-short", TENANT)?;
    let join = || run(server.stranger("cut-short")?.args(["join", &token]));
    let first = join()?;
    fs::remove_file(server.folder.join("cut-short/state/identity/certificates.json"))?;
    ensure!(join()? == first, "another server came of the same token");
    let id = first.split_whitespace().find(|word| word.trim_matches(';').len() == 24).context("no id")?;
    let row = format!("/api/v1/admin/servers/{}", id.trim_matches(';'));
    cluster.admin.delete(&row, None).await?.data()?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for name in ["key", "certificates.json"] {
        fs::copy(from.join(name), to.join(name))?;
    }
    Ok(())
}

/// What the agent says about its link once it is down for a reason with this word.
async fn down(cluster: &Cluster, number: usize, word: &str) -> Result<String> {
    wait::until("the agent knows why", DEADLINE, async || {
        let Ok(status) = cluster.servers[number].status() else { return Ok(None) };
        let reason = status["link"]["reason"].as_str().unwrap_or_default().to_owned();
        Ok(reason.contains(word).then_some(reason))
    })
    .await
    .with_context(|| format!("{:?}", cluster.servers[number].status()))
}

/// The second server with a copy of the first one's identity: it is refused and reported, the first works on.
async fn a_copied_server(cluster: &mut Cluster, container: &str) -> Result<()> {
    let own = tempfile::tempdir()?;
    cluster.servers[1].stop_agent()?;
    copy(&cluster.servers[1].identity_dir(), own.path())?;
    copy(&cluster.servers[0].identity_dir(), &cluster.servers[1].identity_dir())?;
    cluster.servers[1].start()?;
    down(cluster, 1, "copied").await?;
    let conflict = cluster.server_row(&cluster.servers[0]).await?["identity_conflict"].clone();
    let remote = conflict["remote_address"].as_str().unwrap_or_default();
    ensure!(remote.starts_with(&format!("{}:", cluster.servers[1].address)), "{conflict}");
    let link = cluster.servers[0].status()?["link"].clone();
    ensure!(link["state"] == "up", "the first was cut off: {link}");
    let row = cluster.tenant.get(&format!("/api/v1/containers/{container}")).await?.data()?;
    ensure!(row["status"] == "running" && row["server_online"] == true, "{row}");
    cluster.servers[1].stop_agent()?;
    copy(own.path(), &cluster.servers[1].identity_dir())?;
    cluster.servers[1].start()?;
    cluster.wait_online(&cluster.servers[1], true).await
}

fn certificates(cluster: &Cluster, number: usize) -> Result<Value> {
    let path = cluster.servers[number].identity_dir().join("certificates.json");
    // Behind the header with its checksum.
    let text = fs::read_to_string(path)?;
    Ok(serde_json::from_str(text.split_once('\n').context("no header")?.1)?)
}

fn authority(cluster: &Cluster, command: &[&str]) -> Result<Vec<String>> {
    let printed = cluster.control_plane.cli(&[&["admin", "authority"], command].concat())?;
    Ok(printed.lines().map(str::to_owned).collect())
}

/// Linked servers move while they work; one that is away keeps the old authority until it is back.
async fn another_authority(cluster: &mut Cluster) -> Result<()> {
    let present = authority(cluster, &["status"])?[0].clone();
    cluster.servers[1].stop_agent()?;
    cluster.wait_online(&cluster.servers[1], false).await?;
    let said = authority(cluster, &["rotate"])?;
    ensure!(said[0] == present && said[1].starts_with("next: sha256"), "{said:?}");
    wait::until("the first server moves", DEADLINE, async || {
        let said = authority(cluster, &["status"])?;
        Ok(said.contains(&"servers that have not moved: 1".to_owned()).then_some(()))
    })
    .await?;
    ensure!(certificates(cluster, 0)?["authorities"].as_array().map(Vec::len) == Some(2));
    cluster.wait_online(&cluster.servers[0], true).await?;
    let refused = authority(cluster, &["retire"]).err().context("retired though a server has not moved")?;
    ensure!(format!("{refused:#}").contains(&cluster.servers[1].name), "{refused:#}");
    cluster.servers[1].start()?;
    wait::until("the old authority is retired", DEADLINE, async || {
        let said = authority(cluster, &["status"])?;
        Ok((said[0] != present && said[1] == "next: none").then_some(()))
    })
    .await?;
    // Both come back, also after a restart of either side, and a new server joins by the new authority.
    cluster.control_plane.stop()?;
    cluster.control_plane.start().await?;
    for server in &cluster.servers {
        cluster.wait_online(server, true).await?;
    }
    let token = cluster.control_plane.join_token("after", TENANT)?;
    run(cluster.servers[1].stranger("after")?.args(["join", &token])).map(|_| ())
}

/// Minutes either way change nothing.
async fn wrong_clocks(cluster: &mut Cluster) -> Result<()> {
    for clock in ["-8m", "+8m"] {
        cluster.servers[1].stop_agent()?;
        cluster.servers[1].clock = Some(clock.to_owned());
        cluster.servers[1].start()?;
        wait::until("the link is up", DEADLINE, async || {
            let status = cluster.servers[1].status();
            Ok(status.is_ok_and(|status| status["link"]["state"] == "up").then_some(()))
        })
        .await
        .with_context(|| format!("with a clock off by {clock}"))?;
    }
    Ok(())
}

/// Both certificates have ended when the servers are back: they are renewed, and nothing else is needed.
async fn away_for_long(cluster: &mut Cluster) -> Result<()> {
    let before = certificates(cluster, 0)?["chain"][0].clone();
    for server in &mut cluster.servers {
        server.stop_agent()?;
        server.clock = Some("+40d".to_owned());
    }
    cluster.control_plane.stop()?;
    cluster.control_plane.clock = Some("+40d".to_owned());
    cluster.control_plane.start().await?;
    // A login of forty days ago has ended.
    cluster.admin.get("/api/v1/admin/servers").await?.expect_refusal(401, "UNAUTHORIZED")?;
    cluster.admin = Api::login(cluster.control_plane.base_url(), ADMIN, &cluster.password).await?;
    for server in &mut cluster.servers {
        server.start()?;
    }
    for number in 0..cluster.servers.len() {
        cluster.wait_online(&cluster.servers[number], true).await?;
    }
    if certificates(cluster, 0)?["chain"][0] == before {
        bail!("linked with the old certificate");
    }
    Ok(())
}
