//! The free tier: claims, invite codes, regions.

use super::{
    mailbox::Mailbox,
    world::{add_server, execute},
};
use crate::{
    api::testing::{Client, PASSWORD},
    store::{
        Store,
        image::tests::{image, put_image},
        testing::{each_backend, sqlite},
    },
};
use hoody_protocol::id::UserId;
use serde_json::json;

const STATUS: &str = "/api/v1/users/me/free-tier-status";
const RETRY: &str = "/api/v1/users/me/retry-setup";
const REDEEM: &str = "/api/v1/users/me/redeem-invite";
const CODES: &str = "/api/v1/admin/invite-codes";

/// Free servers in these regions; `any` is some account's id.
async fn free_servers(store: &Store, any: UserId, regions: &[&str]) {
    for (number, region) in regions.iter().enumerate() {
        let id = add_server(store, &format!("free-{number}"), any).await;
        let sql = format!("UPDATE servers SET owner_id = NULL, is_free = 1, region = '{region}' WHERE id = '{id}'");
        execute(store, &sql).await;
    }
    put_image(store, &image("debian/12", b"debian")).await;
}

#[tokio::test]
async fn an_account_gets_one_server_with_project_and_container() {
    each_backend(|store| async move {
        let mailbox = Mailbox::new(&store).await;
        let (ann, id) = Client::new_user(&mailbox.app, "ann", false).await;
        ann.post(RETRY, json!({})).await.expect(409);
        assert_eq!(ann.get(STATUS).await.expect(200).data()["claim_blocked_reason"], "pool_empty");
        free_servers(&store, id, &["us-east", "eu-west"]).await;
        let regions = ann.get("/api/v1/auth/available-regions").await.expect(200);
        assert_eq!(regions.data()["regions"][0]["region"], "eu-west");
        assert_eq!(regions.data()["regions"][0]["available"], true);
        assert_eq!(ann.get(STATUS).await.expect(200).data()["can_claim"], true);
        // Free ones are not for rent.
        assert_eq!(ann.get("/api/v1/servers/available").await.json["data"].as_array().map_or(0, Vec::len), 0);

        ann.post(RETRY, json!({"region": "EU"})).await.expect_invalid(&["region"]);
        let claimed = ann.post(RETRY, json!({"region": "eu-west"})).await.expect(200);
        let data = claimed.data();
        assert_eq!((&data["server"]["region"], &data["project"]["alias"]), (&json!("eu-west"), &json!("default")));
        assert_eq!((&data["container"]["name"], &data["blocked_reason"]), (&json!("default"), &json!(null)));
        let again = ann.post(RETRY, json!({})).await.expect(200);
        for what in ["server", "project", "container"] {
            assert_eq!(again.data()[what]["id"], data[what]["id"], "{what}");
        }
        let status = ann.get(STATUS).await.expect(200);
        let expected = json!({
            "can_claim": false, "claim_blocked_reason": "already_claimed", "gate_enabled": false,
            "has_free_server": true, "signup_code_failed": false, "unlocked": true
        });
        assert_eq!(status.data(), &expected);
        let login = json!({"username": "ann", "password": PASSWORD});
        let login = ann.post("/api/v1/users/auth/login", login).await.expect(200);
        assert_eq!(login.data()["server"]["id"], data["server"]["id"]);

        // Gone once, it is gone.
        execute(&store, &format!("UPDATE servers SET owner_id = NULL WHERE owner_id = '{id}'")).await;
        let gone = ann.post(RETRY, json!({})).await.expect(200);
        assert_eq!(gone.data()["blocked_reason"], "admin_recovery_required");
        assert!(gone.data()["server"].is_null());
    })
    .await;
}

#[tokio::test]
async fn the_last_server_is_given_once() {
    each_backend(|store| async move {
        let mailbox = Mailbox::new(&store).await;
        let mut clients = Vec::new();
        let mut last = None;
        for name in ["ann", "bob", "cat"] {
            let (client, id) = Client::new_user(&mailbox.app, name, false).await;
            clients.push(client);
            last = Some(id);
        }
        free_servers(&store, last.unwrap(), &["eu-west"]).await;
        let claims = clients.iter().map(|client| client.post(RETRY, json!({})));
        let mut statuses: Vec<u16> =
            futures::future::join_all(claims).await.iter().map(|answer| answer.status.as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409, 409]);
        // Who came too late may try again.
        let (claims,): (i64,) =
            sqlx::query_as("SELECT CAST(COUNT(*) AS BIGINT) FROM users WHERE free_tier_claimed_at IS NOT NULL")
                .fetch_one(store.reader())
                .await
                .unwrap();
        assert_eq!(claims, 1);
    })
    .await;
}

#[tokio::test]
async fn one_account_that_claims_twice_at_once_gets_one_server() {
    each_backend(|store| async move {
        let mailbox = Mailbox::new(&store).await;
        let (ann, id) = Client::new_user(&mailbox.app, "ann", false).await;
        free_servers(&store, id, &["eu-west", "eu-west", "eu-west"]).await;
        futures::future::join_all((0..3).map(|_| ann.post(RETRY, json!({})))).await;
        let counts: (i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT CAST(COUNT(*) AS BIGINT) FROM servers WHERE owner_id IS NOT NULL), \
             (SELECT CAST(COUNT(*) AS BIGINT) FROM projects), (SELECT CAST(COUNT(*) AS BIGINT) FROM containers)",
        )
        .fetch_one(store.reader())
        .await
        .unwrap();
        assert_eq!(counts, (1, 1, 1));
    })
    .await;
}

#[tokio::test]
async fn where_codes_are_needed_one_opens_the_free_tier() {
    each_backend(|store| async move {
        let mailbox = Mailbox::with(&store, |config| config.free_tier.needs_invite = true).await;
        let (root, _) = Client::new_user(&mailbox.app, "root", true).await;
        let (ann, id) = Client::new_user(&mailbox.app, "ann", false).await;
        let (bob, _) = Client::new_user(&mailbox.app, "bob", false).await;
        free_servers(&store, id, &["eu-west"]).await;
        ann.post(RETRY, json!({})).await.expect(403);
        assert_eq!(ann.get(STATUS).await.expect(200).data()["claim_blocked_reason"], "invite_required");
        ann.post(CODES, json!({})).await.expect(403);
        root.post(CODES, json!({"max_uses": 0, "note": "x".repeat(300)})).await.expect_invalid(&["max_uses", "note"]);
        let made = root.post(CODES, json!({"note": "friends"})).await.expect(201);
        let code = made.data()["code"].as_str().unwrap().to_uppercase();
        ann.post(REDEEM, json!({"code": "wrong"})).await.expect_invalid(&["code"]);
        ann.post(REDEEM, json!({})).await.expect_invalid(&["code"]);
        let redeemed = ann.post(REDEEM, json!({"code": code})).await.expect(200);
        assert_eq!((&redeemed.data()["unlocked"], &redeemed.data()["required"]), (&json!(true), &json!(true)));
        assert_eq!(redeemed.data()["claim_blocked_reason"], "none");
        assert!(redeemed.data()["server"]["id"].is_string());
        // Once more, it neither fails nor counts; for another account it is used up.
        ann.post(REDEEM, json!({"code": code})).await.expect(200);
        bob.post(REDEEM, json!({"code": code})).await.expect_invalid(&["code"]);
        let list = root.get(CODES).await.expect(200);
        assert_eq!(
            (&list.data()["invite_codes"][0]["uses"], list.data().to_string().contains(&code)),
            (&json!(1), false)
        );
        let path = format!("{CODES}/{}", made.data()["id"].as_str().unwrap());
        root.delete(&path).await.expect(200);
        root.delete(&path).await.expect(404);
        let me = ann.get("/api/v1/users/me").await.expect(200);
        assert_eq!(
            (&me.data()["free_tier_unlocked"], &me.data()["free_tier_unlock_source"]),
            (&json!(true), &json!("invite_code"))
        );
    })
    .await;
}

#[tokio::test]
async fn a_sign_up_with_a_code_and_a_region_ends_in_a_running_home() {
    let (_folder, store) = sqlite().await;
    let mailbox = Mailbox::with(&store, |config| config.free_tier.needs_invite = true).await;
    let (root, id) = Client::new_user(&mailbox.app, "root", true).await;
    free_servers(&store, id, &["us-east", "eu-west"]).await;
    let made = root.post(CODES, json!({})).await.expect(201);
    let client = Client::new(&mailbox.app);
    let mut verified = Vec::new();
    for (email, code) in [("ann@example.org", made.data()["code"].clone()), ("bob@example.org", json!("wrong"))] {
        let body = json!({"email": email, "password": PASSWORD, "region": "eu-west", "invite_code": code});
        client.post("/api/v1/auth/signup", body).await.expect(200);
        let answer =
            client.post("/api/v1/auth/verify-email", json!({"token": mailbox.token().await})).await.expect(200);
        verified.push(answer);
    }
    let ann = verified[0].data();
    assert_eq!((&ann["server"]["region"], &ann["container"]["name"]), (&json!("eu-west"), &json!("default")));
    assert_eq!(ann["user"]["free_tier_unlock_source"], "signup_code");
    let bob = verified[1].data();
    assert!(bob["server"].is_null());
    let status = client.with_token(bob["token"].as_str().unwrap()).get(STATUS).await.expect(200);
    assert_eq!((&status.data()["signup_code_failed"], &status.data()["unlocked"]), (&json!(true), &json!(false)));
}
