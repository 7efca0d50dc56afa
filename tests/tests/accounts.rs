//! Accounts against the real control plane and a real mail server, and no secret in any log.

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::Api,
    cluster::{Cluster, Database, Plan},
    postgres::FreshDatabase,
    secrets,
    smtp::{self, MailServer, Tls},
    totp::code,
    wait,
};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

const LOGIN: &str = "/api/v1/users/auth/login";
const ME: &str = "/api/v1/users/auth/me";
const TWO_FACTOR: &str = "/api/v1/users/auth/2fa";
const FIRST: &str = "correct horse battery staple";
const SECOND: &str = "another horse, another battery";
const DEADLINE: Duration = Duration::from_secs(60);

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    value[name].as_str().with_context(|| format!("no {name} in {value}"))
}

async fn cluster(database: Database) -> Result<Cluster> {
    Cluster::start(Plan { servers: 0, images: Vec::new(), database, ..Plan::default() }).await
}

async fn with_mail_server(cluster: &mut Cluster, tls: Tls) -> Result<MailServer> {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let folder = cluster.folder().join("mail-server");
    let server = MailServer::start(&folder, tls, &certified.cert.pem(), &certified.signing_key.serialize_pem()).await?;
    server.use_for(&mut cluster.control_plane);
    // Everything that is ever logged.
    cluster.control_plane.set("RUST_LOG", "trace");
    cluster.control_plane.stop()?;
    cluster.control_plane.start().await?;
    Ok(server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_of_an_account_leaves_no_secret_in_a_log() -> Result<()> {
    let mut cluster = cluster(Database::Sqlite).await?;
    let server = with_mail_server(&mut cluster, Tls::Starttls).await?;
    life(&cluster, &server).await.with_context(|| cluster.log_tails())?;
    ensure!(secrets::count() > 20, "only {} secrets were noted", secrets::count());
    // What is still buffered is written at the end.
    cluster.control_plane.stop()?;
    cluster.check_logs()
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_and_implicit_tls_do_the_same() -> Result<()> {
    let database = FreshDatabase::create()?;
    let mut cluster = cluster(Database::Postgres(database.url())).await?;
    let server = with_mail_server(&mut cluster, Tls::Implicit).await?;
    life(&cluster, &server).await.with_context(|| cluster.log_tails())?;
    cluster.control_plane.stop()?;
    cluster.check_logs()?;
    drop(cluster);
    Ok(())
}

async fn life(cluster: &Cluster, server: &MailServer) -> Result<()> {
    let mails = server.mails();
    let ann = cluster.sign_up("ann", FIRST, &mails).await?;
    let me = ann.get(ME).await?.data()?;
    ensure!(me["username"] == "ann" && me["email_verified"] == true, "{me}");

    // A forgotten password: the old one and every session end.
    let stranger = Api::anonymous(cluster.control_plane.base_url())?;
    let email = json!({ "email": "ann@example.com" });
    stranger.post("/api/v1/auth/forgot-password", email).await?.data()?;
    let token = smtp::take_token(&mails, "ann@example.com").await?;
    let reset = json!({ "token": token, "password": SECOND });
    stranger.post("/api/v1/auth/reset-password", reset).await?.data()?;
    ann.get(ME).await?.expect_refusal(401, "UNAUTHORIZED")?;
    let old = json!({ "username": "ann", "password": FIRST });
    stranger.post(LOGIN, old).await?.expect_refusal(401, "UNAUTHORIZED")?;

    // A second factor.
    let ann = Api::login(cluster.control_plane.base_url(), "ann", SECOND).await?;
    let setup = ann.post(&format!("{TWO_FACTOR}/setup"), json!({ "password": SECOND })).await?.data()?;
    let shown = code(text(&setup, "manual_entry_key")?)?;
    let on = ann.post(&format!("{TWO_FACTOR}/verify-setup"), json!({ "code": shown })).await?.data()?;
    let ann = ann.with_token(Some(text(&on, "token")?));
    ann.get(&format!("{TWO_FACTOR}/status")).await?.data()?;
    let login = json!({ "username": "ann", "password": SECOND });
    let challenge = stranger.post(LOGIN, login).await?.data()?;
    ensure!(challenge["requires_2fa"] == true && challenge.get("token").is_none(), "{challenge}");
    let again = json!({ "temp_token": challenge["temp_token"], "code": shown });
    stranger.post(&format!("{TWO_FACTOR}/verify"), again).await?.expect_refusal(401, "UNAUTHORIZED")?;
    let backup = json!({ "temp_token": challenge["temp_token"], "code": setup["backup_codes"][0] });
    stranger.post(&format!("{TWO_FACTOR}/verify"), backup).await?.data()?;
    let off = json!({ "password": SECOND, "code": setup["backup_codes"][1] });
    let off = ann.delete(TWO_FACTOR, Some(off)).await?.data()?;
    let ann = ann.with_token(Some(text(&off, "token")?));

    // User name and password in the request itself.
    let basic = base64_of(&format!("ann:{SECOND}"));
    secrets::note(&basic);
    let header = format!("Basic {basic}");
    stranger.send_bytes(Method::GET, ME, &[("authorization", &header)], Vec::new()).await?.data()?;
    let claim = json!({ "audience": "https://shop.example" });
    ann.post("/api/v1/users/auth/identity-claim", claim).await?.data()?;
    let history = ann.get("/api/v1/users/me/security-history?include_failed=true&include_security=true").await?;
    let events = history.body["data"].as_array().context("no events")?.len();
    ensure!(events >= 8, "{events} events: {}", history.body);
    ann.get("/api/v1/users/me/free-tier-status").await?.data()?;
    ann.post("/api/v1/users/me/onboarding", json!({ "milestone": "hub_tour_v1" })).await?.data()?;
    stranger.get("/api/v1/auth/available-regions").await?.data()?;
    stranger.post("/api/v1/waitlist", json!({ "email": "bob@example.com" })).await?.data()?;
    stranger.get("/api/v1/meta/social-stats").await?.expect_refusal(503, "UNAVAILABLE")?;

    // A ban holds at once.
    let id = text(&me, "id")?;
    let path = format!("/api/v1/users/{id}");
    cluster.admin.put(&path, json!({ "is_banned": true })).await?.data()?;
    ann.get(ME).await?.expect_refusal(401, "UNAUTHORIZED")?;
    cluster.admin.delete(&format!("/api/v1/admin/users/{id}"), None).await?.data()?;
    Ok(())
}

fn base64_of(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            encoded.push(char::from(ALPHABET[(bits >> (18 - 6 * place) & 63) as usize]));
        }
        encoded.push_str(&"=".repeat(3 - chunk.len()));
    }
    encoded
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_is_taken_up_by_the_running_process_and_old_tokens_stay_good() -> Result<()> {
    let cluster = cluster(Database::Sqlite).await?;
    let kids = async || -> Result<Vec<String>> {
        let keys = cluster.tenant.get("/api/v1/meta/public-key").await?.data()?;
        let keys = keys["keys"].as_array().context("no keys")?.clone();
        Ok(keys.iter().filter_map(|key| key["kid"].as_str().map(str::to_owned)).collect())
    };
    let before = kids().await?;
    let made = cluster.control_plane.cli(&["keys", "rotate", "response-signing"])?.trim().to_owned();
    cluster.control_plane.cli(&["keys", "rotate", "token-signing"])?;
    ensure!(cluster.control_plane.cli(&["keys", "rotate", "node-authority"]).is_err(), "it cannot be rotated");
    let after = wait::until("the new key is shown", DEADLINE, async || {
        let now = kids().await?;
        Ok(now.contains(&made).then_some(now))
    })
    .await?;
    ensure!(after.contains(&before[0]), "the old key must go on verifying: {after:?}");
    cluster.tenant.get(ME).await?.data()?;
    Ok(())
}
