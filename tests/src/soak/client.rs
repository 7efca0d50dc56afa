//! One client: its containers, what it asked of each, and the next thing it asks. Nobody else touches its
//! containers, so what it was answered last is what they must come to.

use crate::api::{Answer, Api};
use anyhow::{Context, Result, bail, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// Containers of a client at once.
const CONTAINERS: usize = 2;
/// A request that is cut off is asked again for this long: a control plane that was killed comes back.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause before a request is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// Refusals kept for messages, the last ones.
const STORY: usize = 60;

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) api: Api,
    random: StdRng,
    number: u64,
    project: String,
    /// Those that are there.
    pub(super) containers: Vec<Asked>,
    /// Ids of all that were ever made.
    pub(super) made: Vec<String>,
    pub(super) requests: u64,
    pub(super) cut_off: u64,
    /// What was asked and answered, for messages.
    story: Vec<String>,
}

/// A container as its client asked for it.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) id: String,
    /// The status it must come to.
    pub(super) status: &'static str,
    /// Ports that it drops.
    pub(super) drops: BTreeSet<u16>,
    pub(super) environment: BTreeMap<String, String>,
    /// Restarts that were answered with success.
    pub(super) restarts: usize,
}

impl Client {
    pub(super) async fn new(api: Api, number: u64, seed: u64) -> Result<Self> {
        let project = api.project(&format!("soak-{number}")).await?;
        Ok(Self {
            api,
            random: StdRng::seed_from_u64(seed.wrapping_mul(1000).wrapping_add(number)),
            number,
            project,
            containers: Vec::new(),
            made: Vec::new(),
            requests: 0,
            cut_off: 0,
            story: Vec::new(),
        })
    }

    /// Asks until it is told to stop.
    pub(super) async fn run(mut self, stop: watch::Receiver<bool>) -> Result<Self> {
        while !*stop.borrow() {
            if let Err(error) = self.step().await {
                return Err(error.context(format!("client {}:\n{}", self.number, self.story.join("\n"))));
            }
            let pause = Duration::from_millis(self.random.random_range(0..400));
            tokio::time::sleep(pause).await;
        }
        Ok(self)
    }

    async fn step(&mut self) -> Result<()> {
        if self.containers.is_empty() || (self.containers.len() < CONTAINERS && self.random.random_ratio(1, 8)) {
            return self.create().await;
        }
        let which = self.random.random_range(0..self.containers.len());
        match self.random.random_range(0..100) {
            0..20 => self.operate(which, "start", "running").await,
            20..32 => self.operate(which, "stop", "stopped").await,
            32..38 => self.operate(which, "force-stop", "stopped").await,
            38..52 => self.restart(which).await,
            52..58 => self.operate(which, "pause", "paused").await,
            58..62 => self.operate(which, "resume", "running").await,
            62..78 => self.firewall(which).await,
            78..88 => self.environment(which).await,
            88..95 => self.read(which).await,
            _ => self.delete(which).await,
        }
    }

    async fn create(&mut self) -> Result<()> {
        let name = format!("soak-{}-{}", self.number, self.made.len());
        let autostart = self.random.random_bool(0.5);
        let body = json!({
            "name": name, "container_image": "busybox", "autostart": autostart,
            "specs": { "cpu_cores": 0.2, "memory_mb": 64, "storage_mb": 256 },
        });
        let path = format!("/api/v1/projects/{}/containers", self.project);
        let answer = self.ask(Method::POST, &path, Some(body)).await?;
        let row = match answer.status {
            // A request that was cut off has made it.
            409 => self.find(&name).await?,
            200 | 201 => Some(answer.clone().data()?),
            _ => None,
        };
        match answer.status {
            200 | 201 | 409 => {
                let row = row.with_context(|| format!("no container is named {name}, and the name is taken"))?;
                let id = row["id"].as_str().context("a container without id")?.to_owned();
                self.made.push(id.clone());
                let status = if autostart { "running" } else { "stopped" };
                self.containers.push(Asked { id, status, ..Asked::default() });
                Ok(())
            }
            // No server is connected, or none has room.
            422 => Ok(()),
            _ => unexpected(&answer),
        }
    }

    async fn find(&mut self, name: &str) -> Result<Option<Value>> {
        let answer = self.ask(Method::GET, &format!("/api/v1/projects/{}/containers", self.project), None).await?;
        let rows = answer.data()?["containers"].as_array().cloned().unwrap_or_default();
        Ok(rows.into_iter().find(|row| row["name"] == name))
    }

    async fn operate(&mut self, which: usize, operation: &str, status: &'static str) -> Result<()> {
        let path = format!("{}/{operation}", self.path(which));
        let answer = self.ask(Method::POST, &path, Some(json!({}))).await?;
        match answer.status {
            200 => self.containers[which].status = status,
            // Pause and resume need a container that runs, or is paused.
            409 if matches!(operation, "pause" | "resume") => {}
            _ => return unexpected(&answer),
        }
        Ok(())
    }

    async fn restart(&mut self, which: usize) -> Result<()> {
        let path = format!("{}/restart", self.path(which));
        let answer = self.ask(Method::POST, &path, Some(json!({}))).await?;
        match answer.status {
            200 => self.containers[which].restarts += 1,
            // It does not run; its server failed, is offline, or is too slow.
            409 | 502 | 503 | 504 => {}
            _ => return unexpected(&answer),
        }
        Ok(())
    }

    async fn firewall(&mut self, which: usize) -> Result<()> {
        let port = self.random.random_range(8000..8006_u16);
        let path = format!("{}/firewall/ingress", self.path(which));
        match self.random.random_range(0..6) {
            0 => {
                let answer = self.ask(Method::DELETE, &path, Some(json!({ "all": true }))).await?;
                if answer.status != 200 {
                    return unexpected(&answer);
                }
                self.containers[which].drops.clear();
            }
            1 => {
                let body = json!({ "port": port, "protocol": "tcp", "action": "drop" });
                let answer = self.ask(Method::DELETE, &path, Some(body)).await?;
                // 404: there is none, or a request that was cut off has removed it.
                if !matches!(answer.status, 200 | 404) {
                    return unexpected(&answer);
                }
                self.containers[which].drops.remove(&port);
            }
            _ => {
                let body = json!({ "action": "drop", "protocol": "tcp", "port": port, "description": "" });
                let answer = self.ask(Method::POST, &path, Some(body)).await?;
                if !matches!(answer.status, 200 | 201) {
                    return unexpected(&answer);
                }
                self.containers[which].drops.insert(port);
            }
        }
        Ok(())
    }

    async fn environment(&mut self, which: usize) -> Result<()> {
        let key = format!("KEY_{}", self.random.random_range(0..4));
        let value = self.random.random_range(0..1000).to_string();
        let path = format!("{}/env/{key}", self.path(which));
        let answer = self.ask(Method::PUT, &path, Some(json!({ "value": value }))).await?;
        if answer.status != 200 {
            return unexpected(&answer);
        }
        self.containers[which].environment.insert(key, value);
        Ok(())
    }

    async fn read(&mut self, which: usize) -> Result<()> {
        let what = ["", "/stats", "/status-logs", "/firewall/rules", "/env"][self.random.random_range(0..5)];
        let answer = self.ask(Method::GET, &format!("{}{what}", self.path(which)), None).await?;
        if answer.status != 200 {
            return unexpected(&answer);
        }
        Ok(())
    }

    async fn delete(&mut self, which: usize) -> Result<()> {
        let answer = self.ask(Method::DELETE, &self.path(which), None).await?;
        // 404: a request that was cut off has deleted it.
        if !matches!(answer.status, 200 | 202 | 404) {
            return unexpected(&answer);
        }
        self.containers.swap_remove(which);
        Ok(())
    }

    /// Deletes what is left.
    pub(super) async fn clear(&self) -> Result<()> {
        self.api.delete(&format!("/api/v1/projects/{}", self.project), None).await?.data().map(drop)
    }

    fn path(&self, which: usize) -> String {
        format!("/api/v1/containers/{}", self.containers[which].id)
    }

    /// Asks until there is an answer: the control plane may be killed at any moment. Whoever asks the same
    /// twice gets what one request would have come to.
    async fn ask(&mut self, method: Method, path: &str, body: Option<Value>) -> Result<Answer> {
        let end = Instant::now() + PATIENCE;
        let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let headers = [("content-type", "application/json")];
        loop {
            let asked = self.api.send_bytes(method.clone(), path, &headers, body.clone()).await;
            let story = match &asked {
                Ok(answer) => format!("{} {}", answer.status, answer.body["message"]),
                Err(error) => format!("{error:#}"),
            };
            self.story.push(format!("{method} {path} {}: {story}", String::from_utf8_lossy(&body)));
            let excess = self.story.len().saturating_sub(STORY);
            self.story.drain(..excess);
            match asked {
                Ok(answer) => {
                    self.requests += 1;
                    return Ok(answer);
                }
                Err(error) => {
                    let transport = error.downcast_ref::<reqwest::Error>().is_some();
                    ensure!(transport && Instant::now() < end, error.context("no answer"));
                    self.cut_off += 1;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn unexpected(answer: &Answer) -> Result<()> {
    bail!("{} answered {}, which nothing here allows: {}", answer.asked, answer.status, answer.body)
}
