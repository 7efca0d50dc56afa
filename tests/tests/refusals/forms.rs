//! The input forms that clients use beside the contract's names; idempotency keys; signed responses.

use super::World;
use anyhow::{Context, Result, ensure};
use ed25519_dalek::{Signature, VerifyingKey};
use hoody_tests::{
    api::{Answer, Api},
    cluster::TENANT,
};
use reqwest::Method;
use serde_json::{Value, json};

pub(super) async fn are_accepted(world: &World) -> Result<()> {
    login(world).await.context("login")?;
    projects(world).await.context("projects")?;
    creations(world).await.context("creations")?;
    rules(world).await.context("rules")
}

async fn login(world: &World) -> Result<()> {
    let nobody = world.api.with_token(None);
    let (email, password) = (format!("{TENANT}@example.com"), &world.cluster.password);
    for body in [
        json!({ "username": TENANT, "password": password }),
        json!({ "alias": TENANT, "password": password }),
        json!({ "email": email, "password": password }),
        json!({ "username": email, "password": password }),
        json!({ "username": TENANT, "email": email, "password": password, "response_mode": "tokens" }),
    ] {
        let data = nobody.post("/api/v1/users/auth/login/", body.clone()).await?.data()?;
        for (one, other) in [("token", "accessToken"), ("token", "access_token"), ("refreshToken", "refresh_token")] {
            ensure!(data[one].is_string() && data[one] == data[other], "{body}: {one} and {other} differ");
        }
        ensure!(data["user"]["username"] == TENANT, "{body}: {data}");
        let token = data["token"].as_str();
        for path in ["/api/v1/users/auth/me", "/api/v1/users/me"] {
            ensure!(nobody.with_token(token).get(path).await?.data()?["username"] == TENANT, "{path}");
        }
        // In the body, in the header, in both.
        let refresh = data["refreshToken"].as_str();
        let path = "/api/v1/users/auth/refresh";
        let data = nobody.with_token(refresh).post(path, json!({})).await?.data()?;
        let data = nobody.post(path, json!({ "refresh_token": data["refreshToken"] })).await?.data()?;
        let refresh = data["refreshToken"].clone();
        nobody.with_token(refresh.as_str()).post(path, json!({ "refreshToken": refresh })).await?.data()?;
    }
    Ok(())
}

async fn projects(world: &World) -> Result<()> {
    let api = &world.api;
    let path = format!("/api/v1/projects/{}", api.project("forms").await?);
    for (method, body, limit) in [
        (Method::PUT, json!({ "quotas": { "max_containers": 7 } }), json!(7)),
        (Method::PATCH, json!({ "max_containers": 8 }), json!(8)),
        (Method::PATCH, json!({ "color": "0af" }), json!(8)),
        (Method::PUT, json!({ "quotas": { "max_containers": null } }), Value::Null),
    ] {
        let data = api.send(method, &format!("{path}/"), Some(body.clone())).await?.data()?;
        ensure!(data["max_containers"] == limit && data["alias"] == "forms", "{body}: {data}");
    }
    ensure!(api.get(&path).await?.data()?["color"] == "#00AAFF");
    api.patch(&path, json!({ "quotas": { "max_containers": 0 } })).await?.data()?;
    let one = json!({ "image": "busybox", "name": "one-too-many" });
    api.post(&format!("{path}/containers"), one).await?.expect_refusal(409, "CONFLICT")?;
    api.delete(&format!("{path}/"), None).await?.data()?;
    Ok(())
}

async fn creations(world: &World) -> Result<()> {
    let api = &world.api;
    let specs = json!({ "cpu_cores": 0.25, "memory_mb": 48, "storage_mb": 96 });
    let server = &world.cluster.servers[0].id;
    for body in [
        json!({ "image": "busybox", "alias": "by-alias", "runtime": "docker", "specs": specs }),
        json!({ "container_image": "busybox", "name": "by-name", "runtime": "lxc", "server_id": server, "specs": specs }),
        json!({ "image": "busybox", "container_image": "busybox", "specs": specs, "hoody_kit": true, "ai": true, "prespawn": true }),
    ] {
        let data = api.post(&format!("{}/", world.creation()), body.clone()).await?.data()?;
        ensure!(data["container_image"] == "busybox" && data["server_id"] == *server, "{body}: {data}");
        ensure!(data["runtime"] == body.get("runtime").cloned().unwrap_or(json!("lxc")), "{body}: {data}");
        for (name, value) in specs.as_object().context("no specs")? {
            ensure!(data["specs"][name] == *value, "{body}: {data}");
        }
        if let Some(name) = body.get("alias").or(body.get("name")) {
            ensure!(data["name"] == *name, "{body}: {data}");
        }
        let id = data["id"].as_str().context("no id")?;
        let renamed =
            api.put(&format!("/api/v1/containers/{id}"), json!({ "alias": "renamed", "color": "#fff" })).await?;
        ensure!(renamed.data()?["name"] == "renamed");
        api.delete(&format!("/api/v1/containers/{id}/"), None).await?.data()?;
    }
    Ok(())
}

async fn rules(world: &World) -> Result<()> {
    let api = &world.api;
    api.post(&world.path("/firewall/reset/"), json!({})).await?.data()?;
    let (ingress, egress) = (world.path("/firewall/ingress"), world.path("/firewall/egress"));
    for (path, rule, port) in [
        (&ingress, json!({ "action": "allow", "protocol": "tcp", "port": 80 }), Some("80")),
        (&ingress, json!({ "action": "allow", "protocol": "tcp", "port": "81" }), Some("81")),
        (&ingress, json!({ "action": "drop", "protocol": "udp", "port_range": "8000-8100" }), Some("8000-8100")),
        (
            &ingress,
            json!({ "action": "reject", "protocol": "tcp", "destination_port": "90,92", "source": "10.0.0.0/8" }),
            Some("90,92"),
        ),
        (&ingress, json!({ "action": "allow", "protocol": "icmp4", "icmp_type": 8, "icmp_code": 0 }), None),
        (
            &egress,
            json!({ "action": "allow", "protocol": "tcp", "destination": "192.0.2.1", "port": 443, "state": "disabled" }),
            Some("443"),
        ),
        (
            &egress,
            json!({ "action": "allow", "protocol": "tcp", "source_port": "1024-65535", "description": "any" }),
            None,
        ),
    ] {
        let data = api.post(path, rule.clone()).await?.data()?;
        let shown = &data["destination_port"];
        ensure!(port.is_none_or(|port| shown == port), "{rule}: {data}");
        ensure!(data["duplicate"] == false, "{rule}: {data}");
        ensure!(api.post(path, rule.clone()).await?.data()?["duplicate"] == true, "{rule} was added twice");
    }
    let count = async |path: &str| -> Result<(usize, usize)> {
        let rules = api.get(&world.path(path)).await?.data()?;
        let length = |name: &str| rules[name].as_array().map_or(0, Vec::len);
        Ok((length("ingress"), length("egress")))
    };
    ensure!(count("/firewall/rules").await? == (5, 2));
    for (selector, updated) in [
        (json!({ "port": 80, "state": "disabled" }), 1),
        (json!({ "destination_port": "81", "protocol": "tcp", "state": "disabled" }), 1),
        (json!({ "source": "10.0.0.0/8", "state": "disabled" }), 1),
        (json!({ "action": "allow", "state": "enabled" }), 3),
        (json!({ "protocol": "icmp4", "icmp_type": "8", "state": "disabled" }), 1),
    ] {
        let data = api.patch(&ingress, selector.clone()).await?.data()?;
        ensure!(data["updated_count"] == updated, "{selector}: {data}");
    }
    for (path, selector, removed) in [
        (&ingress, json!({ "port": "8000-8100" }), 1),
        (&ingress, json!({ "protocol": "tcp", "action": "allow" }), 2),
        (&egress, json!({ "description": "any" }), 1),
        (&egress, json!({ "destination": "192.0.2.1/32" }), 1),
        (&ingress, json!({ "all": true }), 2),
    ] {
        let data = api.delete(path, Some(selector.clone())).await?.data()?;
        ensure!(data["removed_count"] == removed, "{selector}: {data}");
    }
    ensure!(count("/firewall/rules/").await? == (0, 0));
    Ok(())
}

pub(super) async fn a_key_makes_one_container(world: &World) -> Result<()> {
    let body = json!({ "image": "busybox", "specs": { "cpu_cores": 0.1, "memory_mb": 32, "storage_mb": 64 } });
    let create = async |api: &Api, key: &str, body: &Value| -> Result<Answer> {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        api.send_bytes(Method::POST, &world.creation(), &headers, serde_json::to_vec(body)?).await
    };
    let total = async || -> Result<Value> {
        Ok(world.api.get(&world.creation()).await?.data()?["pagination"]["total"].clone())
    };
    let before = total().await?.as_u64().context("no total")?;
    // Two at the same time: one makes it, the other waits its turn (409) or gets the same answer.
    let (one, other) = tokio::join!(create(&world.api, "key-1", &body), create(&world.api, "key-1", &body));
    let (one, other) = (one?, other?);
    let (made, late) = if one.status == 200 { (one, other) } else { (other, one) };
    ensure!(matches!(late.status, 200 | 409), "{}", late.body);
    let made_body = made.expect(200)?;
    let again = create(&world.api, "key-1", &body).await?;
    ensure!(again.headers.contains_key("idempotency-replayed") && again.body == made_body, "{}", again.body);
    let mut different = body.clone();
    different["name"] = json!("another");
    create(&world.api, "key-1", &different).await?.expect_detail(422, "idempotency-key")?;
    create(&world.api, &"k".repeat(256), &body).await?.expect_detail(400, "idempotency-key")?;
    ensure!(total().await? == before + 1, "{} containers, {before} before", total().await?);
    // A refusal is not kept, and another user's key is another key.
    create(&world.api, "key-2", &json!({ "image": "../x" })).await?.expect_detail(400, "image")?;
    create(&world.api, "key-2", &body).await?.data()?;
    create(&world.stranger, "key-1", &body).await?.expect_refusal(404, "NOT_FOUND")?;
    ensure!(total().await? == before + 2);
    Ok(())
}

pub(super) async fn responses_are_signed(world: &World) -> Result<()> {
    let nobody = world.api.with_token(None);
    let keys = nobody.get("/api/v1/meta/public-key").await?;
    let data = keys.clone().data()?;
    let key = data["keys"].as_array().into_iter().flatten().find(|key| key["kid"] == data["active_kid"]);
    let hex_key = key.context("the active key is not listed")?["public_key_hex"].as_str().context("no key")?;
    let bytes: [u8; 32] = hex::decode(hex_key)?.try_into().ok().context("not a key of 32 bytes")?;
    let key = VerifyingKey::from_bytes(&bytes)?;
    let kid = data["active_kid"].as_str().context("no kid")?;
    let mine = format!("{}?include_proxy_domains=true", world.path(""));
    let absent = format!("/api/v1/containers/{}", super::NOBODY);
    let answers = [
        ("GET", "/api/v1/meta/public-key", keys),
        ("GET", mine.as_str(), world.api.get(&mine).await?),
        ("GET", absent.as_str(), world.api.get(&absent).await?),
        ("GET", "/api/v1/projects/", world.api.get("/api/v1/projects/").await?),
        ("POST", "/api/v1/projects", world.api.post("/api/v1/projects", json!({ "alias": "" })).await?),
        ("GET", "/api/v1/users/me", nobody.get("/api/v1/users/me").await?),
    ];
    for (method, path, answer) in answers {
        verify(&key, kid, method, path, &answer).with_context(|| format!("{method} {path}"))?;
        let mut forged = answer.clone();
        forged.bytes.push(b' ');
        ensure!(verify(&key, kid, method, path, &forged).is_err(), "{method} {path}: another body verifies");
        forged = answer;
        forged.status += 1;
        ensure!(verify(&key, kid, method, path, &forged).is_err(), "{method} {path}: another status verifies");
    }
    Ok(())
}

/// As a client does it: from the header, the key and what it asked for and got.
fn verify(key: &VerifyingKey, kid: &str, method: &str, path: &str, answer: &Answer) -> Result<()> {
    ensure!(answer.headers.contains_key("x-request-id"), "no request id");
    let header = answer.headers.get("x-hoody-signature").context("not signed")?.to_str()?;
    let field = |name: &str| {
        let found = header.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        found.with_context(|| format!("no {name} in {header}"))
    };
    let path = path.split('?').next().unwrap_or(path);
    ensure!(field("kid")? == kid && field("m")? == method && field("path")? == path, "{header}");
    let time: u64 = field("t")?.parse()?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    ensure!(now.abs_diff(time) < 300, "signed at {time}, now {now}");
    let mut signed = format!("{time}\n{method}\n{}\n{path}\n", answer.status).into_bytes();
    signed.extend_from_slice(&answer.bytes);
    let signature = Signature::from_slice(&hex::decode(field("sig")?)?)?;
    Ok(key.verify_strict(&signed, &signature)?)
}
