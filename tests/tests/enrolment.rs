//! Who may be a server: join tokens, certificates, revocation.

use anyhow::{Context, Result, bail, ensure};
use hoody_protocol::{
    bounded::Text,
    enrol::{EnrolReply, EnrolRequest},
    id::ServerId,
    image::Digest,
    join_token::JoinToken,
    link::{Hello, HelloReply, NodeFacts},
    stream,
    transport::{
        self, Authority, CertificateDer, Close, ENROL, Identity, NODE, SERVER_NAME, client_config, enrol_client_config,
        generate_node_key, signing_request,
    },
    version,
};
use hoody_tests::{
    cluster::{Cluster, Plan, Server, TENANT, run},
    probe, traces, wait,
};
use serde_json::json;
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant, SystemTime},
};

const PORT: u16 = 8000;
const NO_ANSWER: &str = "no answer in time";
const DEADLINE: Duration = Duration::from_secs(20);
/// Within this a revoked server's link is closed.
const REVOCATION: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn who_may_be_a_server() -> Result<()> {
    // The first is revoked on the command line, the second through the API, the third stays.
    let mut cluster = Cluster::start(Plan { servers: 3, ..Plan::default() }).await?;
    let outcome = async {
        join_tokens(&cluster).await.context("join tokens")?;
        certificates(&cluster).await.context("certificates")?;
        revocation(&mut cluster).await.context("revocation")
    };
    let outcome = outcome.await;
    outcome.with_context(|| cluster.log_tails())
}

/// Fails where joining succeeds, or fails for another reason.
fn refused(server: &Server, stranger: &str, token: &str, why: &str) -> Result<()> {
    match run(server.stranger(stranger)?.args(["join", token])) {
        Ok(printed) => bail!("{stranger} joined: {printed}"),
        Err(error) => {
            let text = error.to_string();
            ensure!(text.contains(why), "{stranger} was refused for another reason than {why:?}: {text}");
            Ok(())
        }
    }
}

async fn join_tokens(cluster: &Cluster) -> Result<()> {
    let server = &cluster.servers[2];
    let token = cluster.control_plane.join_token("extra", TENANT)?;
    let join = |stranger: &str, token: &str| run(server.stranger(stranger)?.args(["join", token]));

    // Damaged, of another control plane, not issued here: nobody is enrolled by them.
    let good: JoinToken = token.parse()?;
    refused(server, "first", &token[..token.len() - 8], "not a join token")?;
    refused(server, "first", "hoody-join-1.", "not a join token")?;
    let mut elsewhere = good.clone();
    elsewhere.authority = Digest::of(b"another control plane");
    refused(server, "first", &elsewhere.reveal(), "connect to")?;
    let mut foreign = good.clone();
    foreign.secret = Text::truncated("a secret of another control plane");
    refused(server, "first", &foreign.reveal(), "did not issue")?;
    let row = |name: &'static str| async move {
        let all = cluster.admin.get("/api/v1/admin/servers").await?.data()?;
        let found = all["servers"].as_array().into_iter().flatten().find(|row| row["name"] == name).cloned();
        found.with_context(|| format!("no server {name}"))
    };
    ensure!(row("extra").await?["status"] == "created", "{}", row("extra").await?);

    // Once; the same agent may ask again until its first hello, another may not.
    let first = join("first", &token)?;
    refused(server, "second", &token, "used before")?;
    ensure!(join("first", &token)? == first, "asking again gave another server");
    refused(server, "second", &token, "used before")?;
    let extra = row("extra").await?;
    ensure!(extra["status"] == "enrolled" && extra["online"] == false, "{extra}");
    // An identity is one server's: it does not become another one's.
    let other = cluster.control_plane.join_token("another", TENANT)?;
    refused(server, "first", &other, "identity of another server")?;
    // The token that a running server has joined with is spent, for itself too.
    for name in ["extra", "another"] {
        let id = row(name).await?["id"].as_str().context("no id")?.to_owned();
        cluster.admin.delete(&format!("/api/v1/admin/servers/{id}"), None).await?.data()?;
    }
    refused(server, "third", &other, "did not issue")?;
    refused(server, "third", &token, "did not issue")?;
    cluster.wait_online(server, true).await
}

/// Connects and says hello; why not, where it is not let in.
async fn attempt(cluster: &Cluster, config: quinn::ClientConfig) -> Result<(), String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, cluster.control_plane.node_port()));
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).map_err(|error| error.to_string())?;
    let connecting = endpoint.connect_with(config, address, SERVER_NAME).map_err(|error| error.to_string())?;
    let work = async {
        let connection = connecting.await.map_err(|error| error.to_string())?;
        let reply = say(&connection).await;
        Close::Done.close(&connection);
        match reply.map_err(|error| format!("{error:#}"))? {
            HelloReply::Refused { cause, .. } => Err(cause.message.to_string()),
            _ => Ok(()),
        }
    };
    tokio::time::timeout(DEADLINE, work).await.map_err(|_| NO_ANSWER.to_owned())?
}

/// The control stream stays open until the answer is there.
async fn say(connection: &quinn::Connection) -> Result<HelloReply> {
    let (mut send, mut recv) = connection.open_bi().await?;
    stream::write(&mut send, &hello()).await?;
    Ok(stream::read(&mut recv).await?)
}

fn hello() -> Hello {
    Hello {
        protocol: version::SUPPORTED,
        agent_version: Text::truncated("test"),
        boot_id: Text::truncated("boot"),
        instance: None,
        facts: NodeFacts {
            hostname: Text::truncated("by-hand"),
            architecture: Text::truncated("amd64"),
            kernel: Text::truncated("6"),
            os: Text::truncated("none"),
            cpu_model: Text::truncated("none"),
            cpu_cores: 1,
            memory_bytes: 1 << 30,
            disk_bytes: 1 << 30,
            kvm: false,
        },
        inventory: Default::default(),
        journal_lost: 0,
    }
}

async fn certificates(cluster: &Cluster) -> Result<()> {
    let token: JoinToken = cluster.control_plane.join_token("by-hand", TENANT)?.parse()?;
    let key = generate_node_key()?;
    let request = EnrolRequest {
        secret: token.secret.clone(),
        csr: signing_request(&key)?.try_into()?,
        agent_version: Text::truncated("test"),
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, cluster.control_plane.node_port()));
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
    let connection = endpoint.connect_with(enrol_client_config(token.authority)?, address, SERVER_NAME)?.await?;
    let reply: EnrolReply = stream::ask(&connection, &request, DEADLINE).await?;
    Close::Done.close(&connection);
    let EnrolReply::Issued { server, chain, authorities } = reply else { bail!("not enrolled: {reply:?}") };
    let ders = |list: Vec<hoody_protocol::bounded::Bytes<_>>| -> Vec<CertificateDer<'static>> {
        list.into_iter().map(|der| CertificateDer::from(der.into_inner())).collect()
    };
    let (chain, authorities) = (ders(chain.into_inner()), ders(authorities.into_inner()));
    let own = Identity::of_node(chain.clone(), &key);
    let foreign_authority = Authority::create(SystemTime::now())?;
    let forged = foreign_authority.issue_node(server, &key.public_key(), SystemTime::now())?;
    let forged = Identity::of_node(forged, &key);
    let config = |identity: Option<&Identity>, alpn| client_config(identity, &authorities, alpn);

    ensure!(attempt(cluster, config(Some(&own), NODE)?).await.is_ok(), "the real certificate is refused");
    for (what, identity) in [("no certificate", None), ("a foreign one", Some(&forged))] {
        for alpn in [NODE, transport::BULK] {
            let outcome = attempt(cluster, config(identity, alpn)?).await;
            ensure!(outcome.is_err(), "{what} was let in");
            ensure!(outcome != Err(NO_ANSWER.to_owned()), "{what} is left waiting");
        }
    }
    // Enrolment alone takes nobody's certificate, and gives nothing but an answer.
    attempt(cluster, config(Some(&forged), ENROL)?).await.err().context("a foreign certificate enrols")?;
    // The agents saw nothing of it.
    for server in &cluster.servers {
        ensure!(cluster.server_row(server).await?["online"] == true, "{} was cut off", server.name);
    }
    let spare: ServerId = server;
    cluster.admin.delete(&format!("/api/v1/admin/servers/{spare}"), None).await?.data()?;
    // With the server its certificate is worth nothing.
    ensure!(attempt(cluster, config(Some(&own), NODE)?).await.is_err(), "a deleted server's certificate is let in");
    Ok(())
}

async fn revocation(cluster: &mut Cluster) -> Result<()> {
    let api = cluster.tenant.clone();
    let project = api.project("revoked").await?;
    let mut containers = Vec::new();
    for (number, server) in cluster.servers.iter().enumerate() {
        let specs = json!({ "cpu_cores": 0.2, "memory_mb": 64, "storage_mb": 64 });
        let more = json!({ "name": format!("web-{number}"), "server_id": server.id, "specs": specs });
        let id = api.container(&project, "busybox", more).await?;
        api.operate(&id, "start").await?;
        api.wait_status(&id, "running").await?;
        let web = probe::web(server, &id, PORT, "hello")?;
        probe::answers(&web, true).await?;
        containers.push((id, web));
    }
    let ids: Vec<String> = cluster.servers.iter().map(|server| server.id.clone()).collect();
    let row = |number: usize| format!("/api/v1/admin/servers/{}", ids[number]);
    let begun = Instant::now();
    cluster.control_plane.cli(&["admin", "revoke-node", &cluster.servers[0].name])?;
    cluster.wait_online(&cluster.servers[0], false).await?;
    ensure!(begun.elapsed() < REVOCATION, "revoked on the command line: closed after {:?}", begun.elapsed());
    let begun = Instant::now();
    cluster.admin.post(&format!("{}/revoke", row(1)), json!({})).await?.data()?;
    cluster.wait_online(&cluster.servers[1], false).await?;
    ensure!(begun.elapsed() < REVOCATION, "revoked through the API: closed after {:?}", begun.elapsed());
    // For good.
    for number in [0, 1] {
        for word in ["enable", "disable", "join-token"] {
            let answer = cluster.admin.post(&format!("{}/{word}", row(number)), json!({})).await?;
            answer.expect_refusal(409, "CONFLICT")?;
        }
    }

    // The agents run on with their containers, also after a restart, and are refused.
    cluster.servers[1].kill_agent()?;
    cluster.servers[1].start()?;
    for number in [0, 1] {
        let server = &mut cluster.servers[number];
        server.agent()?.check()?;
        let reason = wait::until("the agent knows why", DEADLINE, async || {
            let Ok(status) = server.status() else { return Ok(None) };
            let reason = status["link"]["reason"].as_str().unwrap_or_default().to_owned();
            Ok(reason.contains("revoked").then_some(reason))
        });
        let reason = reason.await.with_context(|| format!("{:?}", server.status()))?;
        ensure!(cluster.server_row(&cluster.servers[number]).await?["online"] == false, "let in again: {reason}");
        probe::answers_now(&containers[number].1, true)?;
    }

    // Nothing is placed there, nothing runs later; but what is there can be deleted at once.
    for (number, (id, web)) in containers.iter().enumerate().take(2) {
        let path = format!("/api/v1/containers/{id}");
        api.post(&format!("{path}/restart"), json!({})).await?.expect_refusal(503, "UNAVAILABLE")?;
        let more = json!({ "image": "busybox", "server_id": cluster.servers[number].id });
        let creation = api.post(&format!("/api/v1/projects/{project}/containers"), more).await?;
        creation.expect_detail(422, &cluster.servers[number].name)?;
        let begun = Instant::now();
        api.delete(&path, None).await?.expect(200)?;
        ensure!(begun.elapsed() < Duration::from_secs(2), "the deletion waited for a revoked server");
        api.get(&path).await?.expect_refusal(404, "NOT_FOUND")?;
        ensure!(cluster.admin.get(&row(number)).await?.data()?["used"]["containers"] == 0);
        // What the agent was not told it does not destroy.
        probe::answers_now(web, true)?;
        ensure!(!traces::processes_of(id)?.is_empty());
    }
    cluster.admin.delete(&row(0), None).await?.data()?;

    // The third is untouched.
    let (id, web) = &containers[2];
    probe::answers_now(web, true)?;
    api.operate(id, "restart").await?;
    api.delete(&format!("/api/v1/projects/{project}"), None).await?.data()?;
    ensure!(traces::of_container(&cluster.servers[2], id)?.is_empty());
    Ok(())
}
