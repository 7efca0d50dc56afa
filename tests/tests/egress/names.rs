//! Egress rules that name hosts: where a container may go follows what the names lead to, and nothing else.

use super::{
    World,
    outside::{Kind, NAME, PAGE, WEB},
};
use anyhow::{Context, Result, ensure};
use hoody_tests::wait;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, UdpSocket},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

const DEADLINE: Duration = Duration::from_secs(60);
/// Places that the server reaches without a proxy. Names may lead to the first two.
const HERE: Ipv4Addr = Ipv4Addr::new(10, 243, 0, 2);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 243, 0, 3);
const CLOSED: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 2);

/// The name server of the server's containers: names that it does not know fail.
#[derive(Clone, Default)]
struct NameServer(Arc<Mutex<BTreeMap<&'static str, Vec<Ipv4Addr>>>>);

impl NameServer {
    fn start(address: Ipv4Addr) -> Result<Self> {
        let server = Self::default();
        let socket = UdpSocket::bind((address, 53)).with_context(|| format!("a name server at {address}"))?;
        let known = server.0.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let answer = answer(&buffer[..length], &known.lock().expect("nobody panics with it"));
                let _ = socket.send_to(&answer, from);
            }
        });
        Ok(server)
    }

    /// From now on the name leads there.
    fn lead(&self, name: &'static str, to: &[Ipv4Addr]) {
        self.0.lock().expect("nobody panics with it").insert(name, to.to_vec());
    }
}

fn answer(query: &[u8], known: &BTreeMap<&'static str, Vec<Ipv4Addr>>) -> Vec<u8> {
    let mut labels = Vec::new();
    let mut at = 12;
    while let Some(length) = query.get(at).copied().map(usize::from).filter(|length| *length > 0) {
        labels.push(String::from_utf8_lossy(query.get(at + 1..at + 1 + length).unwrap_or_default()).into_owned());
        at += 1 + length;
    }
    let found = known.get(labels.join(".").as_str());
    let mut answer = query.to_vec();
    answer[2..4].copy_from_slice(&[0x81, if found.is_some() { 0x80 } else { 0x82 }]);
    answer[7] = found.map_or(0, |found| found.len() as u8);
    for address in found.into_iter().flatten() {
        // One second.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(address.octets());
    }
    answer
}

impl World {
    /// Whether the container gets the page there.
    fn reaches(&self, address: Ipv4Addr) -> bool {
        let script = format!(
            "rm -f /tmp/ask; mkfifo /tmp/ask; exec 3<>/tmp/ask; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3
             exec nc -w 2 {address} 80 <&3"
        );
        self.server().exec(&self.container, &["sh", "-c", &script]).is_ok_and(|page| page.contains(PAGE))
    }

    async fn rule(&self, action: &str, destination: &str) -> Result<Value> {
        let path = format!("/api/v1/containers/{}/firewall/egress", self.container);
        let rule = json!({ "action": action, "protocol": "tcp", "destination": destination, "port": 80 });
        self.api().post(&path, rule).await?.data()
    }

    async fn no_rules(&self) -> Result<()> {
        let path = format!("/api/v1/containers/{}/firewall/reset", self.container);
        self.api().post(&path, json!({})).await?.data().map(drop)
    }

    async fn comes(&self, what: &str, is: impl Fn(&Self) -> bool) -> Result<()> {
        wait::until(what, DEADLINE, async || Ok(is(self).then_some(()))).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_follow_the_names_that_they_speak_of() -> Result<()> {
    let mut world = World::allowing("10.241.0.0/16,10.243.0.0/16,203.0.113.0/24").await?;
    let done = walk(&mut world).await;
    done.with_context(|| world.cluster.log_tails())
}

async fn walk(world: &mut World) -> Result<()> {
    let server = world.server();
    let settings = std::fs::read_to_string(server.folder.join("agent.toml"))?;
    let resolver = settings.split("dns = [\"").nth(1).and_then(|rest| rest.split('"').next()).context("a resolver")?;
    let names = NameServer::start(resolver.parse()?)?;
    for address in [HERE, THERE, CLOSED] {
        world.outside.serve_near(address)?;
        let line = format!("-n {} route add {address} via 10.241.0.2", server.name);
        ensure!(Command::new("ip").args(line.split_whitespace()).status()?.success(), "{line}");
        ensure!(world.reaches(address), "without rules {address} is open");
    }

    // Allowed is where the name leads, from the answer to the request on; and where it leads later.
    names.lead("api.test", &[HERE]);
    world.rule("allow", "api.test").await?;
    ensure!(world.reaches(HERE) && !world.reaches(THERE));
    names.lead("api.test", &[THERE]);
    world.comes("the new address", |world| world.reaches(THERE)).await?;
    world.cluster.servers[0].kill_agent()?;
    ensure!(world.reaches(THERE), "without an agent");
    world.cluster.servers[0].start()?;
    ensure!(world.reaches(THERE), "with another one");
    world.no_rules().await?;

    // A name that leads where none may lead, and one that leads nowhere.
    names.lead("rebinds.test", &[CLOSED]);
    for name in ["rebinds.test", "unknown.test"] {
        world.rule("allow", name).await?;
        for address in [HERE, CLOSED] {
            ensure!(!world.reaches(address), "{name} opens {address}");
        }
        world.no_rules().await?;
    }

    // Refused is everything until the name is known, and then where it leads.
    world.rule("drop", "bad.test").await?;
    ensure!(!world.reaches(HERE) && !world.reaches(THERE));
    names.lead("bad.test", &[THERE]);
    world.comes("the other address", |world| world.reaches(HERE)).await?;
    ensure!(!world.reaches(THERE));
    world.no_rules().await?;

    // Through a proxy the name is asked for through it: this name server does not know it.
    world.outside.start(Kind::Microsocks, None).await?;
    let proxy = json!({ "type": "socks5", "proxy": Kind::Microsocks.address().to_string(),
        "dns_servers": [WEB.to_string()] });
    world.put(proxy).await?;
    world.fetched().await?;
    world.rule("allow", "unknown.example").await?;
    ensure!(world.reaches(WEB), "the upstream's name server leads every name there");
    world.no_rules().await?;
    world.rule("allow", "10.99.0.1").await?;
    ensure!(!world.reaches(WEB));
    world.rule("allow", NAME).await?;
    world.comes("the name through the proxy", |world| world.reaches(WEB)).await
}
