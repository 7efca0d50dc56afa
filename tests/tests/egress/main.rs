//! Egress through upstream proxies, and blocked: real upstreams, the real relay, the real kernel.

mod capture;
mod chaos;
mod names;
mod outside;

use anyhow::{Context, Result, ensure};
use capture::Capture;
use hoody_tests::{
    api::Api,
    cluster::{Cluster, Plan, Server},
    wait,
};
use outside::{Kind, NAME, Outside, PAGE, TO_WEB, WEB};
use serde_json::{Value, json};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(30);

/// A cluster with one server, its outside, and a running container without any settings inside.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) outside: Outside,
    pub(crate) container: String,
}

impl World {
    pub(crate) async fn start() -> Result<Self> {
        Self::allowing("10.241.0.0/16").await
    }

    /// With these networks allowed beyond the internet.
    pub(crate) async fn allowing(networks: &str) -> Result<Self> {
        let plan = Plan {
            settings: vec![("HOODY_EGRESS_ALLOWED_NETWORKS", networks.to_owned())],
            agent_settings: "drift_interval_s = 2".to_owned(),
            ..Plan::default()
        };
        let mut cluster = Cluster::start(plan).await?;
        let outside = Outside::make(&cluster.servers[0])?;
        // The authority of the upstream over TLS.
        cluster.servers[0].restart_proxy_trusting(&outside.certificate()?.0)?;
        let project = cluster.tenant.project("egress").await?;
        let container = cluster.tenant.container(&project, "busybox", json!({ "name": "subject" })).await?;
        cluster.tenant.operate(&container, "start").await?;
        cluster.tenant.wait_status(&container, "running").await?;
        Ok(Self { cluster, outside, container })
    }

    pub(crate) fn server(&self) -> &Server {
        &self.cluster.servers[0]
    }

    pub(crate) fn api(&self) -> &Api {
        &self.cluster.tenant
    }

    pub(crate) fn path(&self) -> String {
        format!("/api/v1/containers/{}/network", self.container)
    }

    /// Configures and starts.
    pub(crate) async fn put(&self, config: Value) -> Result<Value> {
        self.api().put(&self.path(), config).await?.data()?;
        self.api().post(&format!("{}/start", self.path()), json!({})).await?.data()
    }

    /// The page, as the container gets it.
    pub(crate) fn fetch(&self) -> Result<String> {
        // Its input never ends: some upstreams take the end of one direction for that of both.
        let script = format!(
            "rm -f /tmp/ask; mkfifo /tmp/ask; exec 3<>/tmp/ask; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3
             exec nc -w 5 {WEB} 80 <&3"
        );
        let page = self.server().exec(&self.container, &["sh", "-c", &script])?;
        ensure!(page.contains(PAGE), "another page: {page}");
        Ok(page)
    }

    /// The address of a name, as the container gets it.
    pub(crate) fn resolve(&self) -> Result<()> {
        let answer = self.server().exec(&self.container, &["nslookup", NAME])?;
        ensure!(answer.contains(&WEB.to_string()), "another answer: {answer}");
        Ok(())
    }

    /// Waits until the page comes.
    pub(crate) async fn fetched(&self) -> Result<()> {
        wait::until("the page comes through the upstream", DEADLINE, async || Ok(self.fetch().ok())).await.map(drop)
    }

    /// Waits for a status, and a cause where there is one; gives the configuration.
    pub(crate) async fn status(&self, status: &str, cause: Option<&str>) -> Result<Value> {
        let last = std::cell::RefCell::new(Value::Null);
        let found = wait::until("the status of the network", DEADLINE, async || {
            let data = self.api().get(&self.path()).await?.data()?;
            let fits = data["status"] == status && data["remote_status"]["cause"]["code"].as_str() == cause;
            *last.borrow_mut() = data.clone();
            Ok(fits.then_some(data))
        });
        found.await.with_context(|| format!("{status} {cause:?}, but {}", last.borrow()))
    }
}

fn proxy(kind: Kind, word: &str) -> Value {
    json!({ "type": word, "proxy": kind.address().to_string(), "dns_servers": [WEB.to_string()] })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_upstream_block_and_what_goes_wrong() -> Result<()> {
    let mut world = World::start().await?;
    let done = walk(&mut world).await;
    done.with_context(|| world.cluster.log_tails())?;
    world.cluster.check_logs()
}

async fn walk(world: &mut World) -> Result<()> {
    let capture = Capture::start(world.server())?;
    // It sees what leaves directly.
    let direct = world.fetch();
    assert!(direct.is_err());
    capture.sees(&WEB.to_string()).await.with_context(|| format!("{direct:?}"))?;

    for (kind, word) in
        [(Kind::Microsocks, "socks5"), (Kind::Tinyproxy, "http"), (Kind::Squid, "https"), (Kind::Dante, "socks5")]
    {
        world.outside.start(kind, None).await?;
        let started = world.put(proxy(kind, word)).await.with_context(|| kind.name())?;
        assert_eq!(started["status"], "running", "{started}");
        capture.forget();
        let before = world.outside.peers().len();
        world.fetched().await.with_context(|| kind.name())?;
        world.resolve().with_context(|| format!("a name through {}", kind.name()))?;
        let peers = world.outside.peers();
        let upstream = format!("{TO_WEB}.2");
        assert!(peers.len() > before && peers[before..].iter().all(|peer| peer.to_string() == upstream), "{peers:?}");
        let pinged = world.server().exec(&world.container, &["ping", "-c", "1", "-W", "1", &WEB.to_string()]);
        assert!(pinged.is_err(), "ICMP");
        assert_eq!(capture.strays(), Vec::<String>::new(), "with {}", kind.name());
    }

    world.put(json!({ "type": "block" })).await?;
    assert!(world.fetch().is_err() && world.resolve().is_err());
    assert_eq!(capture.strays(), Vec::<String>::new(), "blocked");

    // A wrong password, then the right one.
    world.outside.kill(Kind::Microsocks)?;
    world.outside.start(Kind::Microsocks, Some(("ann", "right"))).await?;
    let with = |password: &str| {
        let address = Kind::Microsocks.address();
        json!({ "type": "socks5", "proxy": format!("socks5://ann:{password}@{address}"), "dns_servers": [WEB.to_string()] })
    };
    world.put(with("wrong-password")).await?;
    assert!(world.fetch().is_err());
    world.status("error", Some("auth_failed")).await?;
    world.put(with("right")).await?;
    world.fetched().await?;
    world.status("running", None).await?;

    // The upstream goes and comes.
    world.outside.kill(Kind::Microsocks)?;
    assert!(world.fetch().is_err());
    world.status("error", Some("unreachable")).await?;
    world.outside.start(Kind::Microsocks, Some(("ann", "right"))).await?;
    world.fetched().await?;
    world.status("running", None).await?;

    // The relay goes and comes.
    world.cluster.servers[0].kill_proxy()?;
    assert!(world.fetch().is_err());
    world.status("error", Some("relay_unavailable")).await?;
    world.cluster.servers[0].start_proxy()?;
    world.fetched().await?;
    world.status("running", None).await?;

    let events = world.api().get("/api/v1/events?event_type=container.resource_updated&limit=500").await?.data()?;
    let told = events.to_string();
    for cause in ["auth_failed", "unreachable", "relay_unavailable", "egress_restored"] {
        assert!(told.contains(cause), "no event about {cause}");
    }
    assert!(!told.contains("wrong-password"));
    assert_eq!(capture.strays(), Vec::<String>::new(), "after everything");

    // Stopped, everything leaves directly again; removed, nothing of it is left.
    world.api().post(&format!("{}/stop", world.path()), json!({})).await?.data()?;
    assert!(world.fetch().is_err());
    capture.sees(&WEB.to_string()).await.context("still not direct")?;
    world.api().delete(&world.path(), None).await?.data()?;
    let listeners = hoody_tests::traces::listeners(world.server())?;
    assert_eq!(listeners, Vec::<String>::new());
    Ok(())
}
