//! `/auth/tokens`: what a token is made of, what it can give, and how it ends.

use crate::{
    api::testing::{Answer, Client},
    app::testing::{app, config, with_config},
    store::testing::{each_backend, sqlite},
};
use http::Method;
use serde_json::{Value, json};

const TOKENS: &str = "/api/v1/auth/tokens";
const REALM: &str = "0123456789abcdef01234567";
const OTHER_REALM: &str = "fedcba9876543210fedcba98";
/// The public key of RFC 8032's first test vector.
const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

fn id(answer: &Answer) -> String {
    answer.data()["id"].as_str().unwrap().to_owned()
}

async fn make(client: &Client, body: Value) -> (Client, String) {
    let made = client.post(TOKENS, body).await.expect(201);
    (client.with_token(made.data()["token"].as_str().unwrap()), format!("{TOKENS}/{}", id(&made)))
}

#[tokio::test]
async fn a_token_lives() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (ann, user) = Client::new_user(&app, "ann", false).await;
        let body = json!({"alias": "CI", "ip_restrictions": ["0.0.0.0", "2001:db8::1/32"], "expires_at": "tomorrow",
            "permission_template": "dev_team", "vault_access": true, "realm_ids": [REALM], "allow_no_realm": true});
        let made = ann.post(TOKENS, body).await.expect(201);
        let (data, path) = (made.data(), format!("{TOKENS}/{}", id(&made)));
        let value = data["token"].as_str().unwrap();
        assert!(value.starts_with("hdy_") && value.starts_with(data["prefix"].as_str().unwrap()));
        assert_eq!(data["ip_whitelist"], json!(["0.0.0.0/32", "2001:db8::/32"]));
        assert_eq!(data["permissions"]["containers"]["create"], true);
        assert_eq!(data["permissions"]["projects"]["delete"], false);
        assert_eq!((&data["vault_access"], &data["event_access"]), (&json!(true), &json!(false)));
        assert_eq!((&data["delegation_depth"], &data["created_by_token_id"]), (&json!(0), &json!(null)));

        // Only the hash is kept, and the value is in no other answer.
        let dump: Vec<(String, String)> =
            sqlx::query_as("SELECT secret_hash, prefix FROM auth_tokens").fetch_all(store.reader()).await.unwrap();
        assert!(dump.iter().all(|(hash, prefix)| !value.contains(hash) && prefix.len() < 16));
        let got = ann.get(&path).await.expect(200);
        assert!(!String::from_utf8_lossy(&got.bytes).contains(value));
        assert_eq!(ann.get(TOKENS).await.expect(200).data(), &json!([got.data()]));

        let token = ann.with_token(value);
        let me = token.get("/api/v1/users/auth/me").await.expect(200);
        assert_eq!(me.data()["id"], user.to_string());
        // With and without Bearer.
        let bare = Client::new(&app);
        bare.with(Method::GET, "/api/v1/projects", &[("authorization", value)], None).await.expect(200);
        let current = token.get(&format!("{TOKENS}/me")).await.expect(200);
        assert_eq!(current.data()["token"]["id"], got.data()["id"]);
        let restrictions = json!({"has_realm_restrictions": true, "requires_realm_scope": false,
            "allowed_realm_ids": [REALM], "allow_no_realm": true, "active_realm_id": null});
        assert_eq!(current.data()["restrictions"], restrictions);
        ann.get(&format!("{TOKENS}/me")).await.expect(403);
        app.token_uses.write(&store).await.unwrap();
        let used = ann.get(&path).await.expect(200);
        assert_eq!(used.data()["last_used_ip"], "0.0.0.0");
        assert!(used.data()["last_used_at"].is_string());

        let changed = ann.patch(&path, json!({"alias": "Renamed", "enabled": false})).await.expect(200);
        assert_eq!((&changed.data()["alias"], &changed.data()["is_enabled"]), (&json!("Renamed"), &json!(false)));
        token.get("/api/v1/projects").await.expect(401);
        ann.put(&path, json!({"is_enabled": true, "expires_at": null})).await.expect(200);
        token.get("/api/v1/projects").await.expect(200);

        let copied = ann.post(&format!("{path}/copy"), json!({})).await.expect(201);
        assert_ne!(copied.data()["token"], value);
        assert_eq!(copied.data()["permissions"], data["permissions"]);
        assert_eq!(copied.data()["alias"], "Renamed copy");

        let two = ann.post(&format!("{path}/add-realm"), json!({"realm_id": OTHER_REALM})).await.expect(200);
        assert_eq!(two.data()["realm_ids"], json!([REALM, OTHER_REALM]));
        for _ in 0..2 {
            let one = ann.post(&format!("{path}/remove-realm"), json!({"realm_id": REALM})).await.expect(200);
            assert_eq!(one.data()["realm_ids"], json!([OTHER_REALM]));
        }
        // Without its last realm it would be for all of them.
        ann.post(&format!("{path}/remove-realm"), json!({"realm_id": OTHER_REALM})).await.expect(409);
        ann.post(&format!("{path}/remove-realm"), json!({"realm_id": "x"})).await.expect_invalid(&["realm_id"]);

        ann.delete(&path).await.expect(200);
        token.get("/api/v1/projects").await.expect(401);
        ann.get(&path).await.expect(404);
        // Logging out ends sessions and no token.
        let copy = ann.with_token(copied.data()["token"].as_str().unwrap());
        ann.post("/api/v1/users/auth/logout", json!({})).await.expect(200);
        copy.get("/api/v1/projects").await.expect(200);
        let kinds: Vec<String> =
            sqlx::query_scalar("SELECT event_type FROM events WHERE resource_type = 'auth_token' ORDER BY position")
                .fetch_all(store.reader())
                .await
                .unwrap();
        for kind in ["auth.token.created", "auth.token.disabled", "auth.token.enabled", "auth.token.deleted"] {
            assert!(kinds.iter().any(|found| found == kind), "{kind}: {kinds:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn bad_input_is_named_all_at_once() {
    let (_folder, store) = sqlite().await;
    let app = app(&store).await;
    let (ann, _) = Client::new_user(&app, "ann", false).await;
    let body = json!({"alias": "a/b", "ip_whitelist": "10.0.0.0/33", "expires_at": "yesterday", "realm_ids": ["X"],
        "permissions": {"containers": {"fly": true}}, "public_key": "00", "public_storage": "text"});
    let fields = [
        "alias",
        "expires_at",
        "ip_whitelist",
        "permissions.containers.fly",
        "public_key",
        "public_storage",
        "realm_ids",
    ];
    ann.post(TOKENS, body).await.expect_invalid(&fields);
    ann.post(TOKENS, json!({"permission_template": "root"})).await.expect_invalid(&["permission_template"]);
    let both = json!({"permission_template": "read_only", "permissions": {}});
    ann.post(TOKENS, both).await.expect_invalid(&["permission_template"]);
    ann.post(TOKENS, json!({"ip_whitelist": ["::ffff:10.0.0.1"]})).await.expect_invalid(&["ip_whitelist"]);
    assert_eq!(ann.get(TOKENS).await.expect(200).data(), &json!([]));
    let (_, path) = make(&ann, json!({"ip_whitelist": "10.0.0.0/8, 192.0.2.7"})).await;
    assert_eq!(ann.get(&path).await.expect(200).data()["ip_whitelist"], json!(["10.0.0.0/8", "192.0.2.7/32"]));
    ann.put(&path, json!({"deny_reauthorization": true})).await.expect_invalid(&["deny_reauthorization"]);
    ann.get(&format!("{TOKENS}/x")).await.expect_invalid(&["id"]);

    // Whoever is no operator gives nobody an operator's permissions.
    ann.post(TOKENS, json!({"permissions": {"admin": {"servers": true}}})).await.expect(403);
    let (root, _) = Client::new_user(&app, "root", true).await;
    let (operator, _) = make(&root, json!({"permissions": {"admin": {"servers": true}}})).await;
    operator.get("/api/v1/admin/servers").await.expect(200);
    operator.get("/api/v1/admin/images").await.expect(403);
    let (plain, _) = make(&root, json!({})).await;
    plain.get("/api/v1/admin/servers").await.expect(403);
    // Tokens of others do not exist.
    root.get(&path).await.expect(404);
    root.delete(&path).await.expect(404);
    root.post(&format!("{path}/copy"), json!({})).await.expect(404);
}

#[tokio::test]
async fn a_token_gives_only_what_it_has_and_takes_its_own_along() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (ann, _) = Client::new_user(&app, "ann", false).await;
        let (stranger, stranger_path) = make(&ann, json!({})).await;
        let permissions =
            json!({"containers": {"read": true}, "projects": {"read": true}, "resources": {"create_tokens": true}});
        let (parent, parent_path) = make(
            &ann,
            json!({"permissions": permissions, "expires_at": "tomorrow", "realm_ids": [REALM], "allow_no_realm": true,
                "ip_whitelist": ["0.0.0.0/8"]}),
        )
        .await;
        for excess in [
            json!({"permissions": {"containers": {"delete": true}}}),
            json!({"permission_template": "full_access"}),
            json!({"vault_access": true}),
            json!({"event_access": true}),
            json!({"expires_at": null}),
            json!({"expires_at": "2999-01-01"}),
            json!({"realm_ids": []}),
            json!({"realm_ids": [REALM, OTHER_REALM]}),
            json!({"ip_whitelist": []}),
            json!({"ip_whitelist": ["0.0.0.0/7"]}),
        ] {
            let refused = parent.post(TOKENS, excess.clone()).await;
            assert_eq!(refused.status.as_u16(), 403, "{excess}: {}", refused.json);
        }
        let (child, child_path) = make(&parent, json!({"allow_no_realm": true})).await;
        let (grandchild, grandchild_path) =
            make(&child, json!({"permissions": {"containers": {"read": true}}, "allow_no_realm": true})).await;
        let seen = ann.get(&grandchild_path).await.expect(200);
        assert_eq!(seen.data()["delegation_depth"], 2);
        assert_eq!(seen.data()["realm_ids"], json!([REALM]));
        assert_eq!(seen.data()["ip_whitelist"], json!(["0.0.0.0/8"]));
        // The session as well cannot give a token more than its maker has.
        ann.put(&grandchild_path, json!({"vault_access": true})).await.expect(403);
        // A token sees and manages itself and what comes from it.
        assert_eq!(parent.get(TOKENS).await.expect(200).data().as_array().unwrap().len(), 3);
        child.get(&parent_path).await.expect(404);
        child.delete(&parent_path).await.expect(404);
        parent.get(&stranger_path).await.expect(404);
        child.put(&child_path, json!({"permission_template": "full_access"})).await.expect(403);
        child.put(&child_path, json!({"ip_whitelist": []})).await.expect(403);
        child.post(&format!("{child_path}/add-realm"), json!({"realm_id": OTHER_REALM})).await.expect(403);

        // What the parent loses, all lose; what it gets back, they do not.
        grandchild.get("/api/v1/containers").await.expect(200);
        ann.put(&parent_path, json!({"permissions": {"resources": {"create_tokens": true}}})).await.expect(200);
        grandchild.get("/api/v1/containers").await.expect(403);
        ann.put(&parent_path, json!({"permissions": permissions})).await.expect(200);
        grandchild.get("/api/v1/containers").await.expect(403);
        // Disabling suspends them all, enabling brings them back.
        ann.put(&parent_path, json!({"enabled": false})).await.expect(200);
        child.get(&child_path).await.expect(401);
        grandchild.get("/api/v1/containers").await.expect(401);
        ann.put(&parent_path, json!({"enabled": true})).await.expect(200);
        child.get(&child_path).await.expect(200);
        // Deleting ends them all.
        ann.delete(&parent_path).await.expect(200);
        for ended in [&parent, &child, &grandchild] {
            ended.get(&format!("{TOKENS}/me")).await.expect(401);
        }
        stranger.get(&format!("{TOKENS}/me")).await.expect(200);
        let (last, _) = make(&ann, json!({"deny_reauthorization": true})).await;
        last.post(TOKENS, json!({})).await.expect(403);
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_one_token_got_is_not_replayed_for_another() {
    let (_folder, store) = sqlite().await;
    let app = app(&store).await;
    let (ann, _) = Client::new_user(&app, "ann", false).await;
    let (token, _) = make(&ann, json!({})).await;
    let key = [("idempotency-key", "one")];
    let body = || Some(json!({"alias": "Shop"}));
    let first = token.with(Method::POST, "/api/v1/projects", &key, body()).await.expect(201);
    let again = token.with(Method::POST, "/api/v1/projects", &key, body()).await.expect(201);
    assert_eq!(again.bytes, first.bytes);
    ann.with(Method::POST, "/api/v1/projects", &key, body()).await.expect(422);
    let (blind, _) = make(&ann, json!({"permissions": {}})).await;
    blind.with(Method::POST, "/api/v1/projects", &key, body()).await.expect(403);
}

#[tokio::test]
async fn the_limit_holds_when_many_are_made_at_once() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (ann, _) = Client::new_user(&app, "ann", false).await;
        let making = (0..24).map(|_| {
            let ann = ann.clone();
            async move { ann.post(TOKENS, json!({})).await.status.as_u16() }
        });
        let mut statuses = futures::future::join_all(making).await;
        statuses.sort_unstable();
        assert_eq!((statuses[19], statuses[20], statuses[23]), (201, 422, 422));
    })
    .await;
}

#[tokio::test]
async fn a_public_profile_is_found_by_its_key_while_the_token_works() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (ann, _) = Client::new_user(&app, "ann", false).await;
        let (token, path) = make(&ann, json!({})).await;
        let (other, _) = make(&ann, json!({})).await;
        let profile = format!("{TOKENS}/me/public-profile");
        let body = json!({"public_key": KEY.to_uppercase(), "public_storage": "{\"name\": \"My Agent\"}"});
        assert_eq!(token.put(&profile, body).await.expect(200).data()["public_key"], KEY);
        let (bob, _) = Client::new_user(&app, "bob", false).await;
        let by_key = format!("{TOKENS}/public-profiles/{KEY}");
        let found = bob.get(&by_key).await.expect(200);
        assert_eq!(found.data(), &json!({"public_key": KEY, "public_storage": {"name": "My Agent"}}));
        other.put(&profile, json!({"public_key": KEY})).await.expect(409);
        bob.put(&profile, json!({})).await.expect(403);
        bob.get(&format!("{TOKENS}/public-profiles/zz")).await.expect_invalid(&["public_key"]);
        ann.put(&path, json!({"enabled": false})).await.expect(200);
        bob.get(&by_key).await.expect(404);
        ann.put(&path, json!({"enabled": true, "public_key": null})).await.expect(200);
        bob.get(&by_key).await.expect(404);
    })
    .await;
}

#[tokio::test]
async fn a_token_for_a_realm_sees_and_changes_nothing_of_another() {
    each_backend(|store| async move {
        let mut config = config();
        config.public_url = "https://api.example.org".to_owned();
        let app = with_config(&store, config).await;
        let (ann, _) = Client::new_user(&app, "ann", false).await;
        let project = |alias: &'static str, realms: Value| {
            let ann = ann.clone();
            async move {
                let body = json!({"alias": alias, "realm_ids": realms});
                format!("/api/v1/projects/{}", id(&ann.post("/api/v1/projects", body).await.expect(201)))
            }
        };
        let (mine, other) = (project("mine", json!([REALM])).await, project("other", json!([OTHER_REALM])).await);
        let none = project("none", json!([])).await;
        let host = format!("{REALM}.api.example.org");
        let inside = [("host", host.as_str())];
        let (token, _) = make(&ann, json!({"realm_ids": [REALM]})).await;
        token.get(&mine).await.expect(403);
        token.with(Method::GET, &mine, &inside, None).await.expect(200);
        for hidden in [&other, &none] {
            token.with(Method::GET, hidden, &inside, None).await.expect(404);
        }
        let listed = token.with(Method::GET, "/api/v1/projects", &inside, None).await.expect(200);
        assert_eq!(listed.json["pagination"]["total"], 1);
        // Nothing is moved out of the scope, or into another.
        let moved = Some(json!({"realm_ids": [REALM, OTHER_REALM]}));
        token.with(Method::PUT, &mine, &inside, moved).await.expect(403);
        let realms = token.with(Method::GET, "/api/v1/realms", &inside, None).await.expect(200);
        assert_eq!(realms.data(), &json!({"realm_ids": [REALM], "total": 1}));

        // Outside of realms: what is in its realms, and what is in none.
        let (outside, _) = make(&ann, json!({"realm_ids": [REALM], "allow_no_realm": true})).await;
        outside.get(&mine).await.expect(200);
        outside.get(&none).await.expect(200);
        outside.get(&other).await.expect(404);
        assert_eq!(outside.get("/api/v1/projects").await.expect(200).json["pagination"]["total"], 2);
        let usage = ann.get("/api/v1/realms/?include_usage=true").await.expect(200);
        assert_eq!(usage.data()["realm_ids"], json!([REALM, OTHER_REALM]));
        let expected = json!({"projects": 1, "containers": 0, "auth_tokens": 2, "total": 3});
        assert_eq!(usage.data()["usage"][REALM], expected);
    })
    .await;
}
