//! Commands on servers through the public API, with real programs and real crashes. No policy here names a command
//! that changes the machine, but where its program is another one.

#[path = "commands/crashes.rs"]
mod crashes;
#[path = "commands/pool.rs"]
mod pool;
#[path = "commands/system.rs"]
mod system;

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::{Answer, Api},
    cluster::{Cluster, Plan},
    wait,
};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

const DEADLINE: Duration = Duration::from_secs(60);
const POLICY: &str = "built_in = ['disk-usage', 'log-tail', 'network-diagnosis', 'packages-available', \
    'agent-restart']\nprograms = ['/bin/sh']\nprograms_as_root = true\nmemory_mib = 128\nprocesses = 50\n";
/// Bytes that are kept of an output.
const MAX_OUTPUT: usize = 1 << 20;

/// A cluster whose server runs shell scripts, which no real policy should allow.
async fn cluster() -> Result<Cluster> {
    Cluster::start(Plan { commands: POLICY.to_owned(), images: Vec::new(), ..Plan::default() }).await
}

/// A command of the operators' that runs a script.
async fn script(admin: &Api, slug: &str, script: &str, more: Value) -> Result<()> {
    let mut body = json!({ "slug": slug, "argv": ["/bin/sh", "-c", script], "account": "root" });
    if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
        body.extend(more.clone());
    }
    admin.post("/api/v1/admin/commands", body).await?.expect(201).map(drop)
}

async fn execute(cluster: &Cluster, body: Value) -> Result<Answer> {
    cluster.tenant.post(&format!("/api/v1/servers/{}/execute-command", cluster.servers[0].id), body).await
}

/// Runs a command to its end.
async fn run(cluster: &Cluster, slug: &str) -> Result<Value> {
    execute(cluster, json!({ "command_slug": slug, "wait": true })).await?.data()
}

fn path(cluster: &Cluster, execution: &Value) -> String {
    let id = execution["command_log_id"].as_str().unwrap_or_default();
    format!("/api/v1/servers/{}/command-executions/{id}", cluster.servers[0].id)
}

/// Waits until an execution has this status.
async fn until(cluster: &Cluster, execution: &Value, status: &str) -> Result<Value> {
    let path = path(cluster, execution);
    let mut last = Value::Null;
    let what = format!("the command is {status}");
    let found = wait::until(&what, DEADLINE, async || {
        last = cluster.tenant.get(&path).await?.data()?;
        Ok((last["status"] == status).then(|| last.clone()))
    });
    let found = found.await;
    found.with_context(|| format!("last seen: {last}"))
}

/// Processes of any kind with this text in their command line.
fn processes(text: &str) -> Result<usize> {
    let mut found = 0;
    for entry in std::fs::read_dir("/proc")? {
        let line = std::fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        let own = line.starts_with(std::env::current_exe()?.as_os_str().as_encoded_bytes());
        found += usize::from(!own && String::from_utf8_lossy(&line).contains(text));
    }
    Ok(found)
}

/// How often a script has run that adds a line to this file.
fn runs(marker: &Path) -> usize {
    std::fs::read_to_string(marker).unwrap_or_default().lines().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn built_in_commands_run_on_the_server() -> Result<()> {
    let cluster = cluster().await?;
    let listed = cluster.tenant.get(&format!("/api/v1/servers/{}/available-commands", cluster.servers[0].id)).await?;
    let listed = listed.data()?;
    ensure!(listed["server_info"]["is_ready"] == true, "{listed}");

    let usage = run(&cluster, "disk-usage").await?;
    ensure!(usage["status"] == "completed" && usage["exit_code"] == 0, "{usage}");
    let pool = cluster.servers[0].pool().display().to_string();
    ensure!(usage["output"].as_str().is_some_and(|text| text.contains(&pool)), "the pool is missing: {usage}");
    ensure!(usage["execution_time"].as_f64().is_some_and(|seconds| seconds < 60.0), "{usage}");

    let parameters = json!({ "object": "route" });
    let body = json!({ "command": "network-diagnosis", "parameters": parameters, "wait": true, "timeout": 30 });
    let routes = execute(&cluster, body).await?.data()?;
    ensure!(routes["output"].as_str().is_some_and(|text| text.contains("uplink")), "{routes}");

    // Its journal may be empty here; what counts is that it was asked.
    let body = json!({ "command": "log-tail", "parameters": { "lines": 5 }, "wait": true });
    let log = execute(&cluster, body).await?.data()?;
    ensure!(log["exit_code"].is_number(), "{log}");
    let upgrades = run(&cluster, "packages-available").await?;
    ensure!(upgrades["exit_code"].is_number(), "{upgrades}");

    let refused = execute(&cluster, json!({ "command": "storage-devices", "wait": true })).await?;
    let refused = refused.expect_refusal(502, "NODE_FAILED")?;
    ensure!(refused["error"]["details"]["cause"] == "not_allowed", "{refused}");

    // Whoever has nothing to do with the server does not see it.
    let stranger = cluster.second_tenant("stranger").await?;
    let body = json!({ "command": "disk-usage" });
    stranger.post(&format!("/api/v1/servers/{}/execute-command", cluster.servers[0].id), body).await?.expect(404)?;
    cluster.check_logs()
}

#[tokio::test(flavor = "multi_thread")]
async fn output_time_and_number_are_bounded() -> Result<()> {
    let cluster = cluster().await?;
    let admin = &cluster.admin;
    script(admin, "much", "head -c 10485760 /dev/zero | tr '\\0' x; echo end >&2", json!({})).await?;
    let much = run(&cluster, "much").await?;
    ensure!(much["output"].as_str().map(str::len) == Some(MAX_OUTPUT), "{}", much["output_truncated"]);
    ensure!(much["output_truncated"] == true && much["status"] == "completed");

    // Two that do not want to end, one of which has left session and process group.
    let stubborn =
        "trap '' TERM; (setsid sh -c 'trap \"\" TERM; sleep 27182.81' &); echo up; sleep 27182.81; sleep 27182.82";
    script(admin, "stubborn", stubborn, json!({})).await?;
    let late = execute(&cluster, json!({ "command": "stubborn", "timeout": 1, "wait": true })).await?.data()?;
    ensure!(late["status"] == "timeout" && late["exit_code"].is_null() && late["output"] == "up\n", "{late}");
    ensure!(processes("27182.8")? == 0, "something of it is left");

    // Neither takes the server's memory nor its processes, and it is told what it was.
    let bomb = "f() ( while :; do f & f & wait; done ); : 31415.92; f 2>/dev/null";
    script(admin, "bomb", bomb, json!({})).await?;
    let ended = execute(&cluster, json!({ "command": "bomb", "timeout": 2, "wait": true })).await?.data()?;
    ensure!(ended["error"]["code"] == "process_limit", "{ended}");
    ensure!(processes("31415.92")? == 0, "something of it is left");
    script(admin, "hog", "head -c 2147483648 /dev/zero | tail -n 1 | wc -c; exit 9", json!({})).await?;
    let ended = run(&cluster, "hog").await?;
    ensure!(ended["status"] == "failed" && ended["error"]["code"] == "memory_limit", "{ended}");
    ensure!(!ended["output"].as_str().is_some_and(|text| text.contains("2147483648")), "{ended}");

    script(admin, "short", "sleep 0.3; echo $PPID", json!({})).await?;
    let all = (0..8).map(|_| run(&cluster, "short"));
    for done in futures_all(all).await {
        let done = done?;
        ensure!(done["status"] == "completed", "{done}");
    }

    let marker = cluster.folder().join("limited");
    let limited = format!("echo run >> {}", marker.display());
    script(admin, "limited", &limited, json!({ "rate_limit_per_hour": 2, "risk_level": "high" })).await?;
    for time in 1..=3 {
        let asked = execute(&cluster, json!({ "command": "limited" })).await?.expect(409)?;
        let token = asked["error"]["details"]["confirmation_token"].clone();
        let body = json!({ "command": "limited", "confirmation_token": token, "wait": true });
        let answer = execute(&cluster, body.clone()).await?;
        if time <= 2 {
            answer.data()?;
            execute(&cluster, body).await?.expect_refusal(409, "CONFLICT")?;
        } else {
            ensure!(answer.headers.contains_key("retry-after"), "no Retry-After");
            answer.expect_refusal(429, "RATE_LIMITED")?;
        }
    }
    ensure!(runs(&marker) == 2, "it ran {} times", runs(&marker));
    Ok(())
}

async fn futures_all<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut pending: Vec<_> = all.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        pending.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(value) => {
                done.push(value);
                false
            }
            std::task::Poll::Pending => true,
        });
        if pending.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_followed_and_ended_while_it_runs() -> Result<()> {
    let cluster = cluster().await?;
    script(&cluster.admin, "ticks", "echo one; sleep 0.3; echo two >&2; sleep 16180.33", json!({})).await?;
    let started = execute(&cluster, json!({ "command": "ticks" })).await?.data()?;
    let path = path(&cluster, &started);
    wait::until("both lines are there while it runs", DEADLINE, async || {
        let now = cluster.tenant.get(&path).await?.data()?;
        Ok((now["status"] == "running" && now["output"] == "one\ntwo\n").then_some(()))
    })
    .await?;
    cluster.tenant.post(&format!("{path}/cancel"), json!({})).await?.data()?;
    let stream = cluster.tenant.get(&format!("{path}/stream")).await?;
    let text = String::from_utf8(stream.bytes)?;
    ensure!(text.contains(r#"{"stream":"stdout","content":"one\n"}"#), "{text}");
    ensure!(text.contains(r#"{"stream":"stderr","content":"two\n"}"#), "{text}");
    ensure!(text.contains("event: end") && text.contains(r#""status":"cancelled""#), "{text}");
    let done = until(&cluster, &started, "cancelled").await?;
    ensure!(done["cancel_requested"] == true && done["end_time"].is_string(), "{done}");
    ensure!(processes("16180.33")? == 0, "something of it is left");
    cluster.tenant.post(&format!("{path}/cancel"), json!({})).await?.expect(409).map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_a_command_is_sent_away_with_their_credential() -> Result<()> {
    let cluster = cluster().await?;
    script(&cluster.admin, "ticks", "echo one; sleep 16180.34", json!({})).await?;
    let started = execute(&cluster, json!({ "command": "ticks" })).await?.data()?;
    let path = path(&cluster, &started);
    let body = json!({ "alias": "follower", "permissions": {
        "containers": { "actions": { "logs": true } }, "financial": { "server_rental": { "view_marketplace": true } }
    } });
    let made = cluster.tenant.post("/api/v1/auth/tokens", body).await?.data()?;
    let found = if made["auth_token"].is_object() { &made["auth_token"] } else { &made };
    let secret = made["token"].as_str().or(found["token"].as_str()).context("a token")?;
    let id = found["id"].as_str().context("an id")?;
    let response = reqwest::Client::new()
        .get(format!("{}{path}/stream", cluster.control_plane.base_url()))
        .bearer_auth(secret)
        .send()
        .await?;
    ensure!(response.status() == 200, "{}", response.status());
    let mut response = response;
    let mut text = String::new();
    while !text.contains("one") {
        let chunk = tokio::time::timeout(DEADLINE, response.chunk()).await??.context("it ended")?;
        text.push_str(std::str::from_utf8(&chunk)?);
    }
    cluster.tenant.delete(&format!("/api/v1/auth/tokens/{id}"), None).await?.expect(200)?;
    // Before the next look that is not asked for, after 30 s.
    let rest = async {
        while let Some(chunk) = response.chunk().await? {
            text.push_str(std::str::from_utf8(&chunk)?);
        }
        Ok::<(), anyhow::Error>(())
    };
    tokio::time::timeout(Duration::from_secs(12), rest).await.context("it goes on")??;
    ensure!(!text.contains("event: end"), "{text}");
    cluster.tenant.post(&format!("{path}/cancel"), json!({})).await?.data().map(drop)
}
