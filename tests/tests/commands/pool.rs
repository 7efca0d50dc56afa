//! The commands that look after a server's pool, run against the real one.

use super::execute;
use anyhow::{Context, Result, ensure};
use hoody_tests::cluster::{self, Cluster, Plan};
use serde_json::json;
use std::{fs, path::PathBuf, process::Command};

const POLICY: &str = "built_in = ['pool-balance', 'pool-errors', 'pool-scrub', 'pool-scrub-status']\n";

/// Where btrfs(8) writes down how far the scrub of a file system came; gone with the test.
struct Progress(PathBuf);

impl Drop for Progress {
    fn drop(&mut self) {
        // Where there was no scrub there is none.
        let _ = fs::remove_file(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_scrubbed_balanced_and_asked_for_errors() -> Result<()> {
    let cluster = Cluster::start(Plan { commands: POLICY.to_owned(), images: Vec::new(), ..Plan::default() }).await?;
    let pool = cluster.servers[0].pool().to_owned();
    let about = |column: &str| {
        let mut findmnt = Command::new("findmnt");
        Ok::<_, anyhow::Error>(cluster::run(findmnt.args(["-no", column]).arg(&pool))?.trim().to_owned())
    };
    let (device, uuid) = (about("SOURCE")?, about("UUID")?);
    let _progress = Progress(PathBuf::from(format!("/var/lib/btrfs/scrub.status.{uuid}")));
    let completed = async |slug: &str, parameters: serde_json::Value| -> Result<String> {
        let body = json!({ "command_slug": slug, "parameters": parameters, "wait": true });
        let done = execute(&cluster, body).await?.data()?;
        ensure!(done["status"] == "completed" && done["exit_code"] == 0, "{done}");
        Ok(done["output"].as_str().context("no output")?.to_owned())
    };
    let errors = async || completed("pool-errors", json!({})).await;

    // Of this server's pool, and of no other on the machine.
    let counted = errors().await?;
    ensure!(counted.contains(&format!("[{device}].corruption_errs")), "{device}: {counted}");
    ensure!(counted.lines().all(|line| line.contains(&device) && line.ends_with(" 0")), "{counted}");
    let never = completed("pool-scrub-status", json!({})).await?;
    ensure!(never.contains(&uuid) && never.contains("no stats available"), "{never}");
    let scrubbed = completed("pool-scrub", json!({ "action": "start" })).await?;
    ensure!(scrubbed.contains(&device) && scrubbed.contains("no errors found"), "{scrubbed}");
    let last = completed("pool-scrub-status", json!({})).await?;
    ensure!(last.contains(&uuid) && last.contains("finished") && last.contains("no errors found"), "{last}");
    let balanced = completed("pool-balance", json!({ "percent": 50 })).await?;
    ensure!(balanced.contains("Done, had to relocate"), "{balanced}");

    let again = execute(&cluster, json!({ "command_slug": "pool-scrub", "wait": true })).await?;
    again.expect_refusal(429, "RATE_LIMITED")?;
    ensure!(errors().await? == counted, "errors were counted");
    cluster.check_logs()
}
