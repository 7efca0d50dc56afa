//! Accounts: reading, changing, banning, removing; history, claims, the waitlist.

use crate::{
    api::testing::{Client, PASSWORD},
    app::testing::{app, config, with_config},
    store::testing::{each_backend, sqlite},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, VerifyingKey};
use hoody_protocol::id::UserId;
use serde_json::{Value, json};

const LOGIN: &str = "/api/v1/users/auth/login";
const REFRESH: &str = "/api/v1/users/auth/refresh";
const ME: &str = "/api/v1/users/auth/me";
const NEW_PASSWORD: &str = "another horse, another battery";

fn user(id: UserId) -> String {
    format!("/api/v1/users/{id}")
}

#[tokio::test]
async fn an_account_is_its_owners_and_operators_to_see_and_change() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (ann, ann_id) = Client::new_user(&app, "ann", false).await;
        let (bob, bob_id) = Client::new_user(&app, "bob", false).await;
        let (root, root_id) = Client::new_user(&app, "root", true).await;
        let key = "AB".repeat(32);
        let change = json!({"alias": " Ann ", "metadata": {"theme": "dark"}, "public_key": key});
        let answer = ann.patch(&user(ann_id), change).await.expect(200);
        let data = answer.data();
        assert_eq!((&data["alias"], &data["metadata"]), (&json!("Ann"), &json!({"theme": "dark"})));
        assert_eq!(data["public_key"], key.to_lowercase());
        assert_eq!(ann.get(&user(ann_id)).await.expect(200).data(), data);
        assert_eq!(root.get(&user(ann_id)).await.expect(200).data()["alias"], "Ann");

        bob.get(&user(ann_id)).await.expect(404);
        bob.put(&user(ann_id), json!({"alias": "mine"})).await.expect(404);
        bob.get(&user(UserId::generate())).await.expect(404);
        bob.get("/api/v1/users/nobody").await.expect_invalid(&["id"]);
        bob.put(&user(bob_id), json!({"is_admin": true})).await.expect(403);
        let bad = json!({
            "alias": "", "metadata": {"x": "y".repeat(17_000)}, "public_key": "zz", "password": "short",
            "current_password": "x"
        });
        let fields = ["alias", "current_password", "metadata", "password", "public_key"];
        bob.put(&user(bob_id), bad).await.expect_invalid(&fields);
        bob.put(&user(bob_id), json!({"metadata": 4})).await.expect_invalid(&["metadata"]);
        root.put(&user(root_id), json!({"is_admin": false})).await.expect(409);
        root.put(&user(root_id), json!({"is_banned": true})).await.expect(409);
        root.put(&user(bob_id), json!({"is_admin": true})).await.expect(200);
        root.put(&user(root_id), json!({"is_admin": false})).await.expect(200);
        assert_eq!(
            bob.get("/api/v1/admin/users?limit=2").await.expect(200).data()["users"].as_array().unwrap().len(),
            2
        );
        ann.get("/api/v1/admin/users").await.expect(403);
    })
    .await;
}

#[tokio::test]
async fn a_new_password_takes_the_old_one_and_ends_other_sessions() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (ann, id) = Client::new_user(&app, "ann", false).await;
        let login = |password: &str| json!({"username": "ann", "password": password});
        let elsewhere = ann.post(LOGIN, login(PASSWORD)).await.expect(200);
        ann.put(&user(id), json!({"password": NEW_PASSWORD})).await.expect_invalid(&["current_password"]);
        let wrong = json!({"password": NEW_PASSWORD, "current_password": "not her password"});
        ann.put(&user(id), wrong).await.expect(401);
        let weak = json!({"password": "password1234", "current_password": PASSWORD});
        ann.put(&user(id), weak).await.expect_invalid(&["password"]);
        let right = json!({"password": NEW_PASSWORD, "current_password": PASSWORD});
        ann.put(&user(id), right).await.expect(200);
        ann.get(ME).await.expect(200);
        ann.with_token(elsewhere.data()["token"].as_str().unwrap()).get(ME).await.expect(401);
        ann.post(REFRESH, json!({"refreshToken": elsewhere.data()["refreshToken"]})).await.expect(401);
        ann.post(LOGIN, login(PASSWORD)).await.expect(401);
        ann.post(LOGIN, login(NEW_PASSWORD)).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn bans_and_removal_end_sessions_at_once() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (ann, ann_id) = Client::new_user(&app, "ann", false).await;
        let (root, root_id) = Client::new_user(&app, "root", true).await;
        let login = json!({"username": "ann", "password": PASSWORD});
        root.put(&user(ann_id), json!({"is_banned": true})).await.expect(200);
        ann.get(ME).await.expect(401);
        ann.post(LOGIN, login.clone()).await.expect(403);
        let wrong = json!({"username": "ann", "password": "not her password"});
        ann.post(LOGIN, wrong).await.expect(401);
        root.put(&user(ann_id), json!({"is_banned": false})).await.expect(200);
        ann.get(ME).await.expect(401);
        let answer = ann.post(LOGIN, login.clone()).await.expect(200);
        let ann = ann.with_token(answer.data()["token"].as_str().unwrap());
        ann.post("/api/v1/projects", json!({"alias": "Shop"})).await.expect(201);

        let admin = |id: UserId| format!("/api/v1/admin/users/{id}");
        ann.delete(&admin(root_id)).await.expect(403);
        root.delete(&admin(root_id)).await.expect(409);
        root.delete(&admin(ann_id)).await.expect(200);
        root.delete(&admin(ann_id)).await.expect(404);
        ann.get(ME).await.expect(401);
        ann.post(REFRESH, json!({"refreshToken": answer.data()["refreshToken"]})).await.expect(401);
        ann.post(LOGIN, login).await.expect(401);
        for table in ["projects", "sessions"] {
            let sql = format!("SELECT CAST(COUNT(*) AS BIGINT) FROM {table} WHERE user_id = '{ann_id}'");
            let left: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(store.reader()).await.unwrap();
            assert_eq!(left, 0, "{table}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_history_shows_logins_and_on_request_failures_and_changes() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (ann, id) = Client::new_user(&app, "ann", false).await;
        ann.post(LOGIN, json!({"username": "ann", "password": "not her password"})).await.expect(401);
        let login = json!({"username": "ann", "password": PASSWORD, "client": "my laptop"});
        let again = ann.post(LOGIN, login).await.expect(200);
        assert_eq!(again.data()["client_ip"], "0.0.0.0");
        assert_eq!(again.data()["recent_login_ips"].as_array().unwrap().len(), 2);
        ann.put(&user(id), json!({"password": NEW_PASSWORD, "current_password": PASSWORD})).await.expect(200);
        let path = "/api/v1/users/me/security-history";
        let events = async |query: &str| -> Vec<(String, String)> {
            let answer = ann.get(&format!("{path}?{query}")).await.expect(200);
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            answer.data().as_array().unwrap().iter().map(|e| (text(&e["event"]), text(&e["outcome"]))).collect()
        };
        let answer = ann.get(&format!("{path}?limit=1")).await.expect(200);
        assert_eq!(answer.json["metadata"], json!({"page": 1, "limit": 1, "total": 2, "pages": 2}));
        assert_eq!((&answer.data()[0]["client"], &answer.data()[0]["event"]), (&json!("my laptop"), &json!("login")));
        // The failed login is written down after its answer.
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        while events("include_failed=true").await.len() < 3 {
            assert!(tokio::time::Instant::now() < deadline, "the failed login was never written down");
            tokio::task::yield_now().await;
        }
        let all = events("include_failed=true&include_security=true").await;
        assert_eq!(all.len(), 4);
        assert_eq!(all[0], ("password_changed".to_owned(), "success".to_owned()));
        assert!(all.contains(&("login".to_owned(), "failed".to_owned())));
        ann.get(&format!("{path}?include_failed=maybe")).await.expect_invalid(&["include_failed"]);
        ann.get(&format!("{path}?page=0")).await.expect_invalid(&["page"]);
        let (bob, _) = Client::new_user(&app, "bob", false).await;
        assert_eq!(bob.get(path).await.expect(200).data().as_array().unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn milestones_keep_the_first_time() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (ann, _) = Client::new_user(&app, "ann", false).await;
        let path = "/api/v1/users/me/onboarding";
        let first = ann.post(path, json!({"milestone": "hub_tour_v1"})).await.expect(200);
        let second = ann.post(path, json!({"milestone": "dashboard_open"})).await.expect(200);
        ann.post(path, json!({"milestone": "hub_tour_v1"})).await.expect(200);
        assert_eq!(second.data()["onboarding"]["hub_tour_v1"], first.data()["onboarding"]["hub_tour_v1"]);
        assert_eq!(ann.get(ME).await.expect(200).data()["onboarding"], second.data()["onboarding"]);
        ann.post(path, json!({"milestone": "other"})).await.expect_invalid(&["milestone"]);
        ann.post(path, json!({})).await.expect_invalid(&["milestone"]);
    })
    .await;
}

#[tokio::test]
async fn a_claim_verifies_with_the_public_keys_and_names_its_audience() {
    let (_folder, store) = sqlite().await;
    let app = app(&store).await;
    let (ann, id) = Client::new_user(&app, "ann", false).await;
    let path = "/api/v1/users/auth/identity-claim";
    let answer = ann.post(path, json!({"audience": "https://shop.example", "expires_in": 60})).await.expect(200);
    let claim = &answer.data()["identity_claim"];
    let keys = ann.get("/api/v1/meta/public-key").await.expect(200);
    let key = keys.data()["keys"].as_array().unwrap().iter().find(|key| key["kid"] == claim["kid"]).unwrap();
    let key: [u8; 32] = hex::decode(key["public_key_hex"].as_str().unwrap()).unwrap().try_into().unwrap();
    let key = VerifyingKey::from_bytes(&key).unwrap();
    let payload = STANDARD.decode(claim["payload_b64"].as_str().unwrap()).unwrap();
    let signature = hex::decode(claim["signature_hex"].as_str().unwrap()).unwrap();
    key.verify_strict(&payload, &Signature::from_slice(&signature).unwrap()).unwrap();
    let payload: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!((&payload["aud"], &payload["sub"]), (&json!("https://shop.example"), &json!(id.to_string())));
    // Not to be taken for a container's, nor for another issuer's; each is told apart.
    assert_eq!((&payload["typ"], &payload["username"]), (&json!("identity"), &json!("ann")));
    assert_eq!(payload["iss"], app.config.public_url);
    assert!(payload["jti"].as_str().is_some_and(|jti| jti.len() >= 24));
    assert_eq!(payload["exp"].as_u64().unwrap() - payload["iat"].as_u64().unwrap(), 60);
    ann.post(path, json!({"audience": "a b", "expires_in": 59})).await.expect_invalid(&["audience", "expires_in"]);
    ann.post(path, json!({})).await.expect_invalid(&["audience"]);
    Client::new(&app).post(path, json!({"audience": "x"})).await.expect(401);
}

#[tokio::test]
async fn the_waitlist_answers_everybody_alike() {
    each_backend(|store| async move {
        let client = Client::new(&app(&store).await);
        let path = "/api/v1/waitlist";
        let joined = client.post(path, json!({"email": "Ann@Example.org"})).await.expect(200);
        let again = client.post(path, json!({"email": "ann@example.org"})).await.expect(200);
        assert_eq!(joined.json, again.json);
        let more = json!({"email": "ann@example.org", "role": "founder", "industry": "saas"});
        let known = client.patch(path, more).await.expect(200);
        let unknown = client.patch(path, json!({"email": "bob@example.org", "role": "founder"})).await.expect(200);
        assert_eq!(known.json["message"], unknown.json["message"]);
        client.patch(path, json!({"email": "ann@example.org", "interest": "ai"})).await.expect(200);
        let rows: Vec<(String, String, String, String)> =
            sqlx::query_as("SELECT email, role, industry, interest FROM waitlist")
                .fetch_all(store.reader())
                .await
                .unwrap();
        let row = ["ann@example.org", "founder", "saas", "ai"].map(str::to_owned);
        assert_eq!(rows, [row.into()]);
        client.post(path, json!({"email": "ann"})).await.expect_invalid(&["email"]);
        client.patch(path, json!({"role": "king", "context": 4})).await.expect_invalid(&["context"]);
        client.patch(path, json!({"role": "king"})).await.expect_invalid(&["email", "role"]);
    })
    .await;
}

#[tokio::test]
async fn follower_numbers_come_from_a_file_or_are_not_configured() {
    let (folder, store) = sqlite().await;
    let path = "/api/v1/meta/social-stats";
    Client::new(&app(&store).await).get(path).await.expect(503);
    let mut config = config();
    let file = folder.path().join("stats.json");
    config.social_stats_file = Some(file.clone());
    let client = Client::new(&with_config(&store, config).await);
    client.get(path).await.expect(503);
    std::fs::write(&file, r#"{"github": 4321, "x": null}"#).unwrap();
    let answer = client.get(path).await.expect(200);
    assert_eq!((&answer.data()["github"], &answer.data()["x"]), (&json!(4321), &Value::Null));
    assert!(answer.data()["fetchedAt"].is_string());
}
