//! Signing in with a provider and letting devices in, against the real control plane, a real OpenID provider
//! and a real browser.

use anyhow::{Context, Result, ensure};
use hoody_tests::{
    api::Api,
    browser::{Provider, walk},
    cluster::{Cluster, Plan},
    secrets, wait,
};
use serde_json::{Value, json};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);
const PASSWORD: &str = "correct horse battery staple";
const APPLICATION: &str = "https://app.example/signed-in";
/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str> {
    value[name].as_str().with_context(|| format!("no {name} in {value}"))
}

/// A certificate for this machine that signs itself, and its key.
fn certificate() -> Result<(String, String)> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    Ok((made.cert.pem(), made.signing_key.serialize_pem()))
}

async fn started() -> Result<(Cluster, Provider)> {
    let mut cluster = Cluster::start(Plan { servers: 0, images: Vec::new(), ..Plan::default() }).await?;
    let (certificate, key) = certificate()?;
    let provider = Provider::start(cluster.folder(), &cluster.control_plane.base_url(), &certificate, &key).await?;
    provider.use_for(&mut cluster.control_plane);
    cluster.control_plane.set("HOODY_OAUTH_REDIRECT_URIS", APPLICATION);
    cluster.control_plane.set("RUST_LOG", "trace");
    cluster.control_plane.stop()?;
    cluster.control_plane.start().await?;
    Ok((cluster, provider))
}

/// Who answers in a provider's place without a certificate of an authority that is trusted gets no secret, and
/// nobody in.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_whose_certificate_is_not_trusted_lets_nobody_in() -> Result<()> {
    let (mut cluster, _provider) = started().await?;
    let stranger = Api::anonymous(cluster.control_plane.base_url())?;
    let others = cluster.folder().join("others.pem");
    std::fs::write(&others, certificate()?.0)?;
    for (what, trusted) in
        [("another authority", others.display().to_string()), ("a file that is gone", "/gone".to_owned())]
    {
        cluster.control_plane.set("HOODY_OAUTH_CERTIFICATE", trusted);
        cluster.control_plane.stop()?;
        cluster.control_plane.start().await?;
        let refused = sign_in(&cluster, &stranger, "google", "eve").await.with_context(|| cluster.log_tails())?;
        ensure!(text(&refused, "refused")?.contains("error=server_error"), "{what}: {refused}");
    }
    cluster.admin =
        Api::login(cluster.control_plane.base_url(), hoody_tests::cluster::ADMIN, &cluster.password).await?;
    let users = cluster.admin.get("/api/v1/admin/users").await?.data()?;
    ensure!(!users.to_string().contains("eve"), "{users}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn people_sign_in_with_providers_and_let_devices_in() -> Result<()> {
    let (mut cluster, _provider) = started().await?;
    let outcome = async {
        let stranger = Api::anonymous(cluster.control_plane.base_url())?;
        applications(&cluster, &stranger).await.context("applications")?;
        devices(&cluster, &stranger).await.context("devices")
    };
    outcome.await.with_context(|| cluster.log_tails())?;
    cluster.control_plane.stop()?;
    cluster.check_logs()
}

/// Walks to a provider for the application; where the browser is then.
async fn arrive(cluster: &Cluster, word: &str, account: &str, more: &str) -> Result<String> {
    let base = cluster.control_plane.base_url();
    let url = format!("{base}/api/v1/auth/{word}?redirect_uri={APPLICATION}&code_challenge={CHALLENGE}{more}");
    let arrived = walk(&json!({ "url": url, "provider": { "account": account } })).await?;
    Ok(text(&arrived, "application")?.to_owned())
}

/// Walks to a provider for the application and exchanges the code.
async fn sign_in(cluster: &Cluster, stranger: &Api, word: &str, account: &str) -> Result<Value> {
    let address = arrive(cluster, word, account, "").await?;
    let Some(code) = address.strip_prefix(&format!("{APPLICATION}?code=")) else {
        return Ok(json!({ "refused": address }));
    };
    secrets::note(code);
    let body = json!({ "code": code, "code_verifier": VERIFIER, "redirect_uri": APPLICATION });
    stranger.post("/api/v1/auth/exchange", body).await?.data()
}

async fn applications(cluster: &Cluster, stranger: &Api) -> Result<()> {
    let new = sign_in(cluster, stranger, "github", "bob").await?;
    ensure!(new["user"]["username"] == "bob" && new["user"]["signup_method"] == "github", "{new}");
    ensure!(new["user"]["email_verified"] == true && new["user"]["avatar_url"] == "https://avatars.example/1", "{new}");
    let again = sign_in(cluster, stranger, "github", "bob").await?;
    ensure!(again["user"]["id"] == new["user"]["id"], "{again}");
    // The same verified address opens the same account.
    let google = sign_in(cluster, stranger, "google", "bob").await?;
    ensure!(google["user"]["id"] == new["user"]["id"], "{google}");
    // Its owner is told by mail.
    let told = wait::until("the mail about Google", DEADLINE, async || {
        let mails = std::fs::read_dir(cluster.control_plane.mails()).into_iter().flatten().flatten();
        let texts = mails.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
        Ok(texts.into_iter().find(|mail| mail.contains("Another way into your account")))
    });
    let told = told.await?;
    ensure!(told.contains("To: bob@example.com") && told.contains("Google opens your Hoody account"), "{told}");
    let bob = stranger.with_token(google["token"].as_str());
    let history = bob.get("/api/v1/users/me/security-history?include_security=true").await?.data()?;
    for word in ["signup", "login_github", "login_google", "identity_linked"] {
        ensure!(history.to_string().contains(word), "no {word} in {history}");
    }
    let refused = sign_in(cluster, stranger, "github", "unverified").await?;
    ensure!(text(&refused, "refused")?.contains("error=email_not_verified"), "{refused}");

    // Whether they starred the repository stands beside the code, and opens the free tier.
    for (account, starred) in [("bob", false), ("starry", true)] {
        let address = arrive(cluster, "github", account, "&intent=star_check").await?;
        let (code, said) = address
            .strip_prefix(&format!("{APPLICATION}?code="))
            .and_then(|rest| rest.split_once("&starred="))
            .with_context(|| format!("{account} arrived at {address}"))?;
        ensure!(said == starred.to_string(), "{account}: {said}");
        secrets::note(code);
        let body = json!({ "code": code, "code_verifier": VERIFIER, "redirect_uri": APPLICATION });
        let done = stranger.post("/api/v1/auth/exchange", body).await?.data()?;
        let source = if starred { json!("github_star") } else { Value::Null };
        ensure!(done["user"]["free_tier_unlock_source"] == source, "{account}: {}", done["user"]);
    }
    Ok(())
}

/// Begins at a device; gives what it polls with, and where its code is typed.
async fn begin(stranger: &Api) -> Result<(String, Value)> {
    let begun = stranger.post("/api/v1/auth/device/code", json!({ "client": "a television" })).await?.data()?;
    let device = text(&begun, "device_code")?.to_owned();
    secrets::note(&device);
    Ok((device, begun))
}

/// Polls as a device does; gives the session, or the word that ended it.
async fn poll(stranger: &Api, device: &str) -> Result<Value> {
    wait::until("the device is let in or refused", DEADLINE, async || {
        let answer = stranger.post("/api/v1/auth/device/token", json!({ "device_code": device })).await?;
        if answer.status == 200 {
            return answer.data().map(Some);
        }
        let code = answer.expect(400)?["code"].clone();
        let goes_on = ["authorization_pending", "slow_down"].contains(&code.as_str().unwrap_or_default());
        Ok((!goes_on).then_some(code))
    })
    .await
}

async fn devices(cluster: &Cluster, stranger: &Api) -> Result<()> {
    cluster.control_plane.create_user("ann", PASSWORD, false)?;
    // Password, with the code in the address.
    let (device, begun) = begin(stranger).await?;
    let login = json!({ "username": "ann", "password": PASSWORD });
    let seen = walk(&json!({ "url": begun["verification_uri_complete"], "login": login })).await?;
    ensure!(seen["title"] == "Sign in a device" && text(&seen, "outcome")?.starts_with("Done"), "{seen}");
    let done = poll(stranger, &device).await?;
    ensure!(done["user"]["username"] == "ann", "{done}");

    // A wrong password is told, and the code typed.
    let (_, begun) = begin(stranger).await?;
    let wrong = json!({ "username": "ann", "password": "not the password" });
    let url = &begun["verification_uri"];
    let seen = walk(&json!({ "url": url, "code": begun["user_code"], "login": wrong })).await?;
    ensure!(text(&seen, "problem")?.contains("wrong") && seen["outcome"] == "", "{seen}");

    // Turned away.
    let (device, begun) = begin(stranger).await?;
    walk(&json!({ "url": begun["verification_uri_complete"], "deny": true })).await?;
    ensure!(poll(stranger, &device).await? == "access_denied");

    // With a provider, and a second factor besides.
    let ann = stranger.with_token(done["token"].as_str());
    let setup = ann.post("/api/v1/users/auth/2fa/setup", json!({ "password": PASSWORD })).await?.data()?;
    let shown = hoody_tests::totp::code(text(&setup, "manual_entry_key")?)?;
    ann.post("/api/v1/users/auth/2fa/verify-setup", json!({ "code": shown })).await?.data()?;
    let (device, begun) = begin(stranger).await?;
    let seen = walk(&json!({ "url": begun["verification_uri_complete"],
        "provider": { "name": "Google", "account": "ann" }, "second": setup["backup_codes"][0] }))
    .await?;
    ensure!(text(&seen, "outcome")?.starts_with("Done"), "{seen}");
    let done = poll(stranger, &device).await?;
    ensure!(done["user"]["username"] == "ann", "{done}");
    // So does an application: a code of the provider alone gives no session.
    let half = sign_in(cluster, stranger, "google", "ann").await?;
    ensure!(half["requires_2fa"] == true && half.get("token").is_none(), "{half}");
    Ok(())
}
