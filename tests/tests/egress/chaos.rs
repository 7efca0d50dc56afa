//! Nothing leaves directly, whatever befalls agent, relay, upstreams and configuration. `EGRESS_SECONDS` is how
//! long, `EGRESS_SEED` repeats the decisions of a run.

use super::{World, capture::Capture, outside::Kind, proxy};
use anyhow::{Context, Result};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

const SECONDS: u64 = 30;

/// Tries everything, for ever: the web, a name, UDP, ICMP.
const RESTLESS: &str = "while :; do
    nc -w 1 203.0.113.80 80 </dev/null >/dev/null 2>&1 &
    nslookup web.test >/dev/null 2>&1 &
    echo x | nc -u -w 1 203.0.113.80 4444 >/dev/null 2>&1 &
    ping -c 1 -W 1 203.0.113.80 >/dev/null 2>&1
    wait
done";

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaves_directly_whatever_happens() -> Result<()> {
    let seed = number("EGRESS_SEED").unwrap_or_else(rand::random);
    let length = Duration::from_secs(number("EGRESS_SECONDS").unwrap_or(SECONDS));
    println!("egress: {} s with EGRESS_SEED={seed}", length.as_secs());
    let mut world = World::start().await?;
    let done = chaos(&mut world, length, seed).await;
    done.with_context(|| format!("EGRESS_SEED={seed}\n{}", world.cluster.log_tails()))
}

async fn chaos(world: &mut World, length: Duration, seed: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let kinds = [(Kind::Microsocks, "socks5"), (Kind::Tinyproxy, "http")];
    for (kind, _) in kinds {
        world.outside.start(kind, None).await?;
    }
    world.put(proxy(Kind::Microsocks, "socks5")).await?;
    let capture = Capture::start(world.server())?;
    restless(world)?;
    let mut down = BTreeMap::from([("microsocks", false), ("tinyproxy", false)]);
    let (end, mut done) = (Instant::now() + length, BTreeMap::<&str, u32>::new());
    while Instant::now() < end {
        let what = match random.random_range(0..6) {
            0 => {
                world.cluster.servers[0].kill_agent()?;
                world.cluster.servers[0].start()?;
                "agent killed"
            }
            1 => {
                world.cluster.servers[0].kill_proxy()?;
                world.cluster.servers[0].start_proxy()?;
                "relay killed"
            }
            2 => {
                let (kind, _) = kinds[random.random_range(0..kinds.len())];
                let is_down = down.get_mut(kind.name()).context("a known upstream")?;
                match *is_down {
                    true => world.outside.start(kind, None).await?,
                    false => world.outside.kill(kind)?,
                }
                *is_down = !*is_down;
                "upstream flapped"
            }
            3 => {
                let (kind, word) = kinds[random.random_range(0..kinds.len())];
                // Answers while the agent is away, too.
                let config = if random.random_bool(0.3) { json!({ "type": "block" }) } else { proxy(kind, word) };
                world.api().put(&world.path(), config).await?.data()?;
                "configuration changed"
            }
            4 => {
                // The agent may be away: then it is refused, and never done.
                let answer =
                    world.api().post(&format!("/api/v1/containers/{}/restart", world.container), json!({})).await?;
                if answer.status < 300 {
                    restless(world)?;
                }
                "restarted"
            }
            _ => {
                tokio::time::sleep(Duration::from_millis(random.random_range(50..500))).await;
                "left alone"
            }
        };
        *done.entry(what).or_default() += 1;
        assert_eq!(capture.strays(), Vec::<String>::new(), "after: {what}; {done:?}");
    }
    println!("egress: {done:?}");
    for (kind, _) in kinds {
        if down[kind.name()] {
            world.outside.start(kind, None).await?;
        }
    }
    world.cluster.wait_online(world.server(), true).await?;
    world.put(proxy(Kind::Tinyproxy, "http")).await?;
    world.api().operate(&world.container, "start").await?;
    world.api().wait_status(&world.container, "running").await?;
    world.fetched().await?;
    world.status("running", None).await?;
    assert_eq!(capture.strays(), Vec::<String>::new(), "at the end");
    Ok(())
}

/// Leaves the container trying; one that is just restarting tries again when it is asked the next time.
fn restless(world: &World) -> Result<()> {
    // It may have ended meanwhile.
    let _ = world.server().exec_detached(&world.container, &["sh", "-c", RESTLESS]);
    Ok(())
}
