//! The commands that look after a server's pool, run against the real one.

use super::execute;
use anyhow::{Context, Result, ensure};
use hoody_tests::{
    cluster::{self, Cluster, Plan},
    wait,
};
use nix::unistd::{Whence, lseek};
use rand::Rng;
use serde_json::Value;
use serde_json::json;
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

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

const BLOCK: usize = 4096;
const DEADLINE: Duration = Duration::from_secs(60);

/// Where the image of a disk holds this block.
fn find(image: &File, wanted: &[u8]) -> Result<u64> {
    let mut read = vec![0; 256 * BLOCK];
    let mut offset = 0;
    // Behind the last byte that was ever written there is no data.
    while let Ok(data) = lseek(image, offset, Whence::SeekData) {
        let count = image.read_at(&mut read, data as u64)?;
        if let Some(at) = read[..count].chunks(BLOCK).position(|block| block == wanted) {
            return Ok(data as u64 + (at * BLOCK) as u64);
        }
        offset = data + count as i64;
    }
    anyhow::bail!("the block is not in the image")
}

/// A file in the pool of which the disk returns something else than was written.
fn damage(pool: &Path, image: &Path) -> Result<()> {
    let mut block = vec![0; BLOCK];
    rand::rng().fill_bytes(&mut block);
    let file = pool.join("damaged");
    fs::write(&file, &block)?;
    cluster::run(Command::new("sync").arg("-f").arg(&file))?;
    let image = File::options().read(true).write(true).open(image)?;
    let at = find(&image, &block)?;
    Ok(image.write_all_at(&[!block[0]], at)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_found_by_a_scrub_and_told() -> Result<()> {
    let cluster = Cluster::start(Plan { commands: POLICY.to_owned(), images: Vec::new(), ..Plan::default() }).await?;
    let server = &cluster.servers[0];
    let uuid = cluster::run(Command::new("findmnt").args(["-no", "UUID"]).arg(server.pool()))?;
    let _progress = Progress(PathBuf::from(format!("/var/lib/btrfs/scrub.status.{}", uuid.trim())));
    let runtime = format!("/api/v1/servers/{}/runtime", server.id);
    let errors = async || {
        Ok::<_, anyhow::Error>(cluster.tenant.get(&runtime).await?.data()?["storage"]["device_errors"].clone())
    };
    wait::until("the disk is measured", DEADLINE, async || Ok((errors().await? == 0).then_some(()))).await?;
    damage(server.pool(), &server.folder.join("pool.img"))?;

    let scrubbed = execute(&cluster, json!({ "command_slug": "pool-scrub", "wait": true })).await?.data()?;
    // btrfs-scrub(8): there is damage that has no other copy.
    ensure!(scrubbed["status"] == "failed" && scrubbed["exit_code"] == 3, "{scrubbed}");
    ensure!(scrubbed["output"].to_string().contains("csum=1"), "{scrubbed}");
    let counted = execute(&cluster, json!({ "command_slug": "pool-errors", "wait": true })).await?.data()?;
    let counted = counted["output"].as_str().context("no output")?;
    let corrupt = counted.lines().find(|line| line.contains("corruption_errs"));
    ensure!(corrupt.is_some_and(|line| line.ends_with(" 1")), "{counted}");
    wait::until("it is counted", DEADLINE, async || Ok((errors().await? == 1).then_some(()))).await?;
    let told = wait::until("it is told", DEADLINE, async || {
        let told = cluster.tenant.get("/api/v1/events?event_type=server.health_changed").await?.data()?;
        Ok(told["events"].as_array().and_then(|events| events.first().cloned()))
    });
    let told: Value = told.await?;
    ensure!(told["payload"]["pool"]["new_device_errors"] == 1, "{told}");
    cluster.check_logs()
}
