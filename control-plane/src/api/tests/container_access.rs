//! What reaches into a container: its SSH key, KVM, claims for it, and what is seen of its inside.

use super::world::{World, add_server, execute};
use crate::{
    api::testing::Client,
    store::testing::{each_backend, sqlite},
};
use serde_json::{Value, json};
use std::{
    io::Write,
    process::{Command, Stdio},
};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHR/1UO58RFkSpBJBmR2uu4b6++hMdsBeAmBwGMdZtkU";

async fn grant_facts(world: &World, kvm: bool) {
    let facts = json!({"kvm": kvm}).to_string();
    execute(&world.app.store, &format!("UPDATE servers SET facts = '{facts}'")).await;
}

#[tokio::test]
async fn an_ssh_key_is_one_containers_of_its_owner() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let remarked = format!("{KEY} ann@home");
        let path = world.create(json!({"name": "web", "ssh_public_key": format!(" {remarked}\n")})).await;
        let read = async || world.client.get(&path).await.expect(200).data().clone();
        assert_eq!((&read().await["ssh_public_key"], &read().await["ssh_hostname"]), (&json!(remarked), &Value::Null));
        // The same key with another remark is the same key.
        let taken = world.try_create(json!({"name": "second", "ssh_public_key": KEY})).await.expect(409);
        assert!(taken.json["message"].as_str().unwrap().contains("SSH key"), "{}", taken.json);
        let second = world.create(json!({"name": "second"})).await;
        world.client.patch(&second, json!({"ssh_public_key": KEY})).await.expect(409);
        assert_eq!(world.client.get(&second).await.data()["ssh_public_key"], Value::Null);
        // Another owner's keys are nobody else's business.
        let (bob, user) = Client::new_user(&world.app, "bob", false).await;
        add_server(&store, "bobs", user).await;
        world.offline().await;
        let project = bob.post("/api/v1/projects", json!({"alias": "Bobs"})).await.expect(201);
        let containers = format!("/api/v1/projects/{}/containers", project.data()["id"].as_str().unwrap());
        execute(&store, "UPDATE servers SET online = 1 WHERE name = 'bobs'").await;
        bob.post(&containers, json!({"ssh_public_key": KEY})).await.expect(200);
        world.online().await;

        let changed = world.client.patch(&path, json!({"ssh_public_key": OTHER})).await.expect(200);
        assert_eq!(changed.data()["ssh_public_key"], OTHER);
        world.client.patch(&path, json!({"comment": "x"})).await.expect(200);
        assert_eq!(read().await["ssh_public_key"], OTHER, "what is not named stays");
        for nothing in [json!(null), json!("")] {
            world.client.patch(&path, json!({"ssh_public_key": OTHER})).await.expect(200);
            let removed = world.client.put(&path, json!({"ssh_public_key": nothing})).await.expect(200);
            assert_eq!(removed.data()["ssh_public_key"], Value::Null);
        }
        world.client.patch(&second, json!({"ssh_public_key": KEY})).await.expect(200);
        // A container that is being deleted gives its key back, though its server is away.
        world.offline().await;
        world.client.delete(&second).await.expect(200);
        world.client.patch(&path, json!({"ssh_public_key": KEY})).await.expect(200);

        let events = world.client.get("/api/v1/events?limit=100").await.expect(200);
        let kinds = events.json.to_string();
        for kind in ["container.ssh_key.added", "container.ssh_key.removed"] {
            assert!(kinds.contains(kind), "{kind}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_no_key_is_refused() {
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    let path = world.create(json!({"name": "web"})).await;
    let options = format!("command=\"sh\" {KEY}");
    let two = format!("{KEY}\n{OTHER}");
    let cut = &KEY[..50];
    for bad in [options.as_str(), two.as_str(), cut, "ssh-dss AAAA", "hello"] {
        let body = json!({"ssh_public_key": bad});
        world.try_create(body.clone()).await.expect_invalid(&["ssh_public_key"]);
        world.client.put(&path, body).await.expect_invalid(&["ssh_public_key"]);
    }
    world.client.put(&path, json!({"ssh_public_key": 4})).await.expect_invalid(&["ssh_public_key"]);
}

#[tokio::test]
async fn kvm_is_given_to_stopped_containers_on_servers_that_have_it() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let path = world.create(json!({"name": "web"})).await;
        let kvm = format!("{path}/kvm");
        let put = async |body: Value| world.client.put(&kvm, body).await;
        put(json!({})).await.expect_invalid(&["kvm"]);
        put(json!({"kvm": true, "dev_kvm": false})).await.expect_invalid(&["dev_kvm"]);
        put(json!({"kvm": "yes"})).await.expect_invalid(&["kvm"]);
        let without = put(json!({"kvm": true})).await.expect(422);
        assert_eq!(without.json["error"]["details"]["one"], "it has no KVM");
        let refused = world.try_create(json!({"name": "vms", "dev_kvm": true})).await.expect(422);
        assert_eq!(refused.json["error"]["details"]["one"], "it has no KVM");

        grant_facts(&world, true).await;
        let given = put(json!({"dev_kvm": true, "kvm": true})).await.expect(200);
        assert_eq!((&given.data()["kvm"], &given.data()["status"]), (&json!(true), &json!("stopped")));
        assert_eq!(world.client.get(&path).await.data()["kvm"], true);
        world.client.post(&format!("{path}/start"), json!({})).await.expect(200);
        put(json!({"kvm": true})).await.expect(200);
        put(json!({"kvm": false})).await.expect(409);
        world.client.post(&format!("{path}/stop"), json!({})).await.expect(200);
        // Taken away also where the server has lost it.
        grant_facts(&world, false).await;
        assert_eq!(put(json!({"dev_kvm": false})).await.expect(200).data()["kvm"], false);

        grant_facts(&world, true).await;
        let made = world.try_create(json!({"name": "vms", "kvm": true})).await.expect(200);
        assert_eq!(made.data()["kvm"], true);
        assert!(made.data()["kvm_note"].is_string());
        world.try_create(json!({"kvm": true, "dev_kvm": false})).await.expect_invalid(&["dev_kvm"]);
    })
    .await;
}

#[tokio::test]
async fn kvm_is_only_for_who_rents_the_server() {
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    let path = world.create(json!({"name": "web"})).await;
    grant_facts(&world, true).await;
    let (_, landlord) = Client::new_user(&world.app, "landlord", false).await;
    // Somebody else rents it now, and shares it.
    execute(&store, &format!("UPDATE servers SET owner_id = '{landlord}'")).await;
    world.client.put(&format!("{path}/kvm"), json!({"kvm": true})).await.expect(403);
    assert_eq!(world.client.get(&path).await.data()["kvm"], false);
}

#[tokio::test]
async fn a_token_without_the_permission_makes_no_container_with_kvm() {
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    grant_facts(&world, true).await;
    let body = json!({"alias": "CI", "permissions": {"containers": {"create": true, "read": true, "update": true}}});
    let made = world.client.post("/api/v1/auth/tokens", body).await.expect(201);
    let token = world.client.with_token(made.data()["token"].as_str().unwrap());
    token.post(&world.containers(), json!({"kvm": true})).await.expect(403);
    let plain = token.post(&world.containers(), json!({"name": "plain"})).await.expect(200);
    let path = format!("/api/v1/containers/{}", plain.data()["id"].as_str().unwrap());
    token.put(&format!("{path}/kvm"), json!({"kvm": true})).await.expect(403);
    // Nor one that it could log in to.
    token.post(&world.containers(), json!({"ssh_public_key": KEY})).await.expect(403);
    token.patch(&path, json!({"ssh_public_key": KEY})).await.expect(403);
    token.patch(&path, json!({"ssh_public_key": null})).await.expect(403);
    token.patch(&path, json!({"comment": "x"})).await.expect(200);
}

#[tokio::test]
async fn a_claim_is_verified_without_asking_us() {
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    let path = world.create(json!({"name": "web"})).await;
    let id = path.rsplit('/').next().unwrap();
    let authorize = format!("{path}/authorize");
    let issued = world.client.post(&authorize, json!({"audience": "https://door.example", "expires_in": 120})).await;
    let issued = issued.expect(200);
    let (data, claim) = (issued.data(), &issued.data()["container_claim"]);
    assert_eq!((&data["container_id"], &data["project_id"]), (&json!(id), &json!(world.project)));
    assert_eq!(data["expires_in"], 120);
    let payload = decode(claim["payload_b64"].as_str().unwrap());
    let signature = hex::decode(claim["signature_hex"].as_str().unwrap()).unwrap();
    let keys = world.client.get("/api/v1/meta/public-key").await.expect(200);
    assert_eq!(keys.data()["active_kid"], claim["kid"]);
    let key = published(keys.data(), claim["kid"].as_str().unwrap());
    assert!(openssl_verifies(&key, &payload, &signature));
    let said: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!((&said["typ"], &said["aud"]), (&json!("container"), &json!("https://door.example")));
    assert_eq!((&said["container_id"], &said["project_id"]), (&json!(id), &json!(world.project)));
    assert_eq!((&said["sub"], &said["owner_id"]), (&json!(world.user.to_string()), &json!(world.user.to_string())));
    assert_eq!(said["iss"], world.app.config.public_url);
    assert_eq!(said["exp"].as_u64().unwrap() - said["iat"].as_u64().unwrap(), 120);
    // Another container's, or a longer life, is another payload.
    for (word, other) in [(id, "0123456789abcdef01234567"), ("\"exp\":1", "\"exp\":9")] {
        let altered = String::from_utf8(payload.clone()).unwrap().replace(word, other);
        assert_ne!(altered.as_bytes(), payload);
        assert!(!openssl_verifies(&key, altered.as_bytes(), &signature), "{word}");
    }
    // Without a body it is for the container itself.
    let plain = world.client.post(&authorize, json!({})).await.expect(200);
    let said: Value =
        serde_json::from_slice(&decode(plain.data()["container_claim"]["payload_b64"].as_str().unwrap())).unwrap();
    assert!(said["aud"].as_str().unwrap().ends_with(&path), "{said}");
    let again = world.client.post(&authorize, json!({})).await.expect(200);
    let again = decode(again.data()["container_claim"]["payload_b64"].as_str().unwrap());
    let again: Value = serde_json::from_slice(&again).unwrap();
    assert!(said["jti"].is_string() && said["jti"] != again["jti"], "each claim is told apart");
    let bad = json!({"audience": "a b", "expires_in": 5});
    world.client.post(&authorize, bad).await.expect_invalid(&["audience", "expires_in"]);
    let (stranger, _) = Client::new_user(&world.app, "stranger", false).await;
    stranger.post(&authorize, json!({})).await.expect(404);
    world.offline().await;
    world.client.delete(&path).await.expect(200);
    world.client.post(&authorize, json!({})).await.expect(409);
}

fn decode(text: &str) -> Vec<u8> {
    use base64::{
        Engine,
        engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
    };
    STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)).unwrap()
}

fn published(keys: &Value, kid: &str) -> Vec<u8> {
    let list = keys["keys"].as_array().expect("keys");
    let key = list.iter().find(|key| key["kid"] == kid).expect("the claim's key");
    hex::decode(key["public_key_hex"].as_str().unwrap()).unwrap()
}

/// By another implementation than ours.
fn openssl_verifies(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    // An Ed25519 public key in DER, RFC 8410.
    let der = [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00], key].concat();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
        path
    };
    let verified = Command::new("openssl")
        .args(["pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER", "-inkey"])
        .arg(file("key", &der))
        .arg("-in")
        .arg(file("message", message))
        .arg("-sigfile")
        .arg(file("signature", signature))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    verified.expect("openssl is there").success()
}

#[tokio::test]
async fn what_runs_inside_is_a_warning_where_the_node_cannot_be_asked() {
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    let path = world.running().await;
    let stopped = world.create(json!({"name": "stopped"})).await;
    let plain = world.client.get(&path).await.expect(200);
    assert_eq!(plain.data().get("runtime_info"), None, "only where it is asked for");
    // The simulated node has no link.
    let asked = world.client.get(&format!("{path}?runtime=true")).await.expect(200);
    assert_eq!(asked.data()["runtime_info"], Value::Null);
    assert_eq!(asked.data()["warnings"][0]["type"], "runtime_info_unavailable", "{}", asked.json);
    let asked = world.client.get(&format!("{stopped}?runtime=1")).await.expect(200);
    assert_eq!(asked.data()["runtime_info"], Value::Null);
    assert_eq!(asked.data().get("warnings"), None, "nothing runs, and that is known");
    world.client.get(&format!("{path}?runtime=maybe")).await.expect_invalid(&["runtime"]);
    for list in ["/api/v1/containers".to_owned(), world.containers()] {
        let listed = world.client.get(&format!("{list}?runtime=true&sort_by=name&sort_order=asc")).await.expect(200);
        let rows = listed.data()["containers"].as_array().unwrap();
        assert_eq!(rows.len(), 2);
        assert!(rows.iter().all(|row| row["runtime_info"].is_null() && row.get("runtime_info").is_some()));
        assert_eq!(rows[1]["warnings"][0]["type"], "runtime_info_unavailable");
        let filtered = world.client.get(&format!("{list}?runtime=docker")).await.expect(200);
        assert_eq!(filtered.json["pagination"]["total"], 0);
    }
    // The pool of its server is its renter's default pool.
    assert_eq!(plain.data()["pool_id"], world.user.to_string());
    assert_eq!(plain.data()["server"]["is_free"], false);
}
