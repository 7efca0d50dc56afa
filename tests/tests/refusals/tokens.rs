//! Credentials: wrong, altered, of another kind, used before, logged out.

use super::{Problems, World};
use anyhow::{Context, Result, ensure};
use hoody_tests::{api::Api, cluster::TENANT};
use serde_json::json;

const LOGIN: &str = "/api/v1/users/auth/login";
const REFRESH: &str = "/api/v1/users/auth/refresh";
const ME: &str = "/api/v1/users/auth/me";

/// The token with one character of one of its three parts replaced.
fn altered(token: &str, part: usize) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    if let Some(part) = parts.get_mut(part) {
        let middle = part.len() / 2;
        let other = if part.as_bytes()[middle] == b'A' { "B" } else { "A" };
        part.replace_range(middle..=middle, other);
    }
    parts.join(".")
}

pub(super) async fn are_checked(world: &World) -> Result<()> {
    let mut problems = Problems::default();
    let nobody = world.api.with_token(None);
    let password = &world.cluster.password;
    // Login says the same of a wrong password and of an account that is not there.
    let mut messages = Vec::new();
    for (name, secret) in
        [(TENANT, "not-the-password"), ("nobody-here", password.as_str()), ("' OR 1=1 --", "' OR 1=1 --")]
    {
        let answer = nobody.post(LOGIN, json!({ "username": name, "password": secret })).await?;
        messages.push(answer.expect_refusal(401, "UNAUTHORIZED")?["message"].clone());
    }
    ensure!(messages.iter().all(|message| *message == messages[0]), "login tells accounts: {messages:?}");
    for (body, field) in [
        (json!({}), "username"),
        (json!({ "username": TENANT }), "password"),
        (json!({ "username": TENANT, "password": "short" }), "password"),
        (json!({ "username": TENANT, "password": "p".repeat(100_000) }), "password"),
        (json!({ "username": "u".repeat(300), "password": password }), "username"),
        (json!({ "username": 5, "password": password }), "username"),
        (json!({ "username": TENANT, "password": password, "response_mode": "odd" }), "response_mode"),
    ] {
        problems.note("login", nobody.post(LOGIN, body).await?.expect_detail(400, field));
    }

    let session = nobody.post(LOGIN, json!({ "username": TENANT, "password": password })).await?.data()?;
    let token = session["token"].as_str().context("no token")?;
    let refresh = session["refreshToken"].as_str().context("no refresh token")?;
    let claims = token.split('.').nth(1).context("not a JWT")?;
    // {"alg":"none","typ":"JWT"}
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.");
    for (what, bad) in [
        ("altered header", altered(token, 0)),
        ("altered claims", altered(token, 1)),
        ("altered signature", altered(token, 2)),
        ("unsigned", unsigned),
        ("cut short", token[..token.len() - 4].to_owned()),
        ("refresh token", refresh.to_owned()),
        ("auth token", "hdy_0123456789abcdef".to_owned()),
        ("nothing", String::new()),
        ("words", "let me in".to_owned()),
        ("long", "a".repeat(8000)),
    ] {
        let answer = nobody.with_token(Some(&bad)).get(ME).await?;
        problems.note(what, answer.expect_refusal(401, "UNAUTHORIZED").map(drop));
    }
    for header in ["Basic YWRtaW46YWRtaW4=", "Bearer", "bearer  ", token] {
        let answer = nobody.send_bytes(reqwest::Method::GET, ME, &[("authorization", header)], Vec::new()).await?;
        problems.note("scheme", answer.expect_refusal(401, "UNAUTHORIZED").map(drop));
    }
    for (what, bad) in [("access token", token.to_owned()), ("altered", altered(refresh, 2)), ("words", "x".to_owned())]
    {
        let answer = nobody.post(REFRESH, json!({ "refreshToken": bad })).await?;
        problems.note(what, answer.expect_refusal(401, "UNAUTHORIZED").map(drop));
    }
    problems.note("no refresh token", nobody.post(REFRESH, json!({})).await?.expect_detail(400, "refreshToken"));

    // A refresh token works once; the second use ends its session, and no other.
    let renewed = nobody.post(REFRESH, json!({ "refreshToken": refresh })).await?.data()?;
    let renewed = renewed["access_token"].as_str().context("no token")?;
    nobody.with_token(Some(renewed)).get(ME).await?.data()?;
    nobody.post(REFRESH, json!({ "refreshToken": refresh })).await?.expect_refusal(401, "UNAUTHORIZED")?;
    nobody.with_token(Some(renewed)).get(ME).await?.expect_refusal(401, "UNAUTHORIZED")?;
    world.api.get(ME).await?.data()?;
    problems.none()
}

/// Auth tokens of the running program: bound to permissions and networks, and ended at once.
pub(super) async fn of_the_api_are_bound(world: &World) -> Result<()> {
    const TOKENS: &str = "/api/v1/auth/tokens";
    let make = async |body| -> Result<(Api, String)> {
        let made = world.api.post(TOKENS, body).await?.data()?;
        let value = made["token"].as_str().context("no token")?;
        let id = made["id"].as_str().context("no id")?;
        Ok((world.api.with_token(Some(value)), format!("{TOKENS}/{id}")))
    };
    let (reader, path) = make(json!({ "permission_template": "read_only", "ip_whitelist": "0.0.0.0/0, ::/0" })).await?;
    reader.get(&world.path("")).await?.data()?;
    reader.get(ME).await?.data()?;
    reader.post(&world.path("/stop"), json!({})).await?.expect_refusal(403, "FORBIDDEN")?;
    reader.post("/api/v1/projects", json!({ "alias": "no" })).await?.expect_refusal(403, "FORBIDDEN")?;
    reader.post("/api/v1/users/auth/logout", json!({})).await?.expect_refusal(403, "FORBIDDEN")?;
    reader.get("/api/v1/admin/servers").await?.expect_refusal(403, "FORBIDDEN")?;
    let (elsewhere, _) = make(json!({ "ip_whitelist": ["203.0.113.0/24", "2001:db8::/32"] })).await?;
    elsewhere.get(ME).await?.expect_refusal(403, "FORBIDDEN")?;
    let (realm, _) = make(json!({ "realm_ids": [super::NOBODY] })).await?;
    realm.get(ME).await?.expect_refusal(403, "FORBIDDEN")?;
    world.api.put(&path, json!({ "enabled": false })).await?.data()?;
    reader.get(ME).await?.expect_refusal(401, "UNAUTHORIZED")?;
    world.api.put(&path, json!({ "enabled": true })).await?.data()?;
    reader.get(ME).await?.data()?;
    world.api.delete(&path, None).await?.data()?;
    reader.get(ME).await?.expect_refusal(401, "UNAUTHORIZED")?;
    Ok(())
}

pub(super) async fn end_at_logout(world: &World) -> Result<()> {
    let base_url = world.cluster.control_plane.base_url();
    let (name, password) = ("leaver", &world.cluster.password);
    let first = world.cluster.second_tenant(name).await?;
    let second = Api::login(base_url, name, password).await?;
    let body = json!({ "username": name, "password": password });
    let session = first.with_token(None).post(LOGIN, body).await?.data()?;
    first.post("/api/v1/users/auth/logout", json!({})).await?.data()?;
    for api in [&first, &second] {
        api.get(ME).await?.expect_refusal(401, "UNAUTHORIZED")?;
        api.post("/api/v1/projects", json!({ "alias": "too-late" })).await?.expect_refusal(401, "UNAUTHORIZED")?;
    }
    let refresh = json!({ "refreshToken": session["refreshToken"] });
    first.with_token(None).post(REFRESH, refresh).await?.expect_refusal(401, "UNAUTHORIZED")?;
    // The others stay in, and so can the user come back.
    world.api.get(ME).await?.data()?;
    let again = Api::login(world.cluster.control_plane.base_url(), name, password).await?;
    let projects = again.get("/api/v1/projects").await?.data()?;
    ensure!(projects["pagination"]["total"] == 0, "{projects}");
    Ok(())
}
