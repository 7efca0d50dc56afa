//! What every request passes.

use crate::{
    api::testing::Client,
    app::testing::{app, config, with_config},
    store::testing::sqlite,
};
use axum::body::Body;
use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use http::{Method, Request};
use serde_json::json;
use std::collections::BTreeMap;

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_in_the_envelope() {
    let (_folder, store) = sqlite().await;
    let client = Client::new(&app(&store).await);
    assert_eq!(client.get("/api/v1/nothing").await.expect(404).json["code"], "NOT_FOUND");
    assert_eq!(client.delete("/api/v1/ip").await.expect(405).json["code"], "METHOD_NOT_ALLOWED");
    client.get("/healthz").await.expect(200);
    client.get("/readyz/").await.expect(200);
    store.close().await;
    client.get("/healthz").await.expect(200);
    client.get("/readyz").await.expect(503);
}

#[tokio::test]
async fn a_fault_of_ours_shows_nothing_of_it() {
    let (_folder, store) = sqlite().await;
    let (client, _) = Client::new_user(&app(&store).await, "ann", false).await;
    store.close().await;
    let answer = client.get("/api/v1/projects").await.expect(500);
    assert_eq!(answer.json["code"], "INTERNAL_ERROR");
    let text = String::from_utf8(answer.bytes).unwrap().to_lowercase();
    assert!(!text.contains("pool") && !text.contains("sqlite") && !text.contains("database"), "{text}");
}

#[tokio::test]
async fn request_ids_are_taken_where_harmless_and_made_otherwise() {
    let (_folder, store) = sqlite().await;
    let client = Client::new(&app(&store).await);
    let id = |answer: crate::api::testing::Answer| answer.headers["x-request-id"].to_str().unwrap().to_owned();
    let send = |value: &'static str| {
        let client = client.clone();
        async move { client.with(Method::GET, "/api/v1/ip", &[("x-request-id", value)], None).await }
    };
    assert_eq!(id(send("my-request.1").await), "my-request.1");
    assert_eq!(id(send("a b").await).len(), 24);
    assert_eq!(id(client.get("/api/v1/ip").await).len(), 24);
}

#[tokio::test]
async fn responses_verify_with_the_published_key() {
    let (_folder, store) = sqlite().await;
    let app = app(&store).await;
    let (client, _) = Client::new_user(&app, "ann", false).await;
    let published = client.get("/api/v1/meta/public-key").await.expect(200);
    let key = &published.data()["keys"][0];
    assert_eq!(key["kid"], published.data()["active_kid"]);
    let bytes: [u8; 32] = hex::decode(key["public_key_hex"].as_str().unwrap()).unwrap().try_into().unwrap();
    let verifying = VerifyingKey::from_bytes(&bytes).unwrap();
    for (method, path, signed_path, body) in [
        (Method::GET, "/api/v1/projects/?limit=1", "/api/v1/projects/", None),
        (Method::GET, "/api/v1/projects", "/api/v1/projects", None),
        (Method::POST, "/api/v1/projects/", "/api/v1/projects/", Some(json!({"alias": "a"}))),
        (Method::GET, "/api/v1/projects/x", "/api/v1/projects/x", None),
        (Method::GET, "/nothing", "/nothing", None),
    ] {
        let answer = client.with(method.clone(), path, &[], body).await;
        let header = answer.headers["x-hoody-signature"].to_str().unwrap();
        let parts: BTreeMap<&str, &str> = header.split(',').map(|part| part.split_once('=').unwrap()).collect();
        assert_eq!((parts["m"], parts["path"]), (method.as_str(), signed_path));
        assert_eq!(parts["s"], answer.status.as_str());
        assert_eq!(parts["kid"], key["kid"]);
        let mut signed = format!("{}\n{method}\n{}\n{signed_path}\n", parts["t"], answer.status.as_u16()).into_bytes();
        signed.extend_from_slice(&answer.bytes);
        let signature = Signature::from_slice(&hex::decode(parts["sig"]).unwrap()).unwrap();
        verifying.verify(&signed, &signature).unwrap();
        signed.push(b' ');
        assert!(verifying.verify(&signed, &signature).is_err());
    }
}

#[tokio::test]
async fn limits_count_users_and_addresses_apart() {
    let (_folder, store) = sqlite().await;
    let mut config = config();
    config.rate_limits.anonymous = 3;
    config.rate_limits.authenticated = 1_000;
    let app = with_config(&store, config).await;
    let (client, _) = Client::new_user(&app, "ann", false).await;
    let stranger = Client::new(&app);
    let mut refused = None;
    for _ in 0..9 {
        let answer = stranger.get("/api/v1/ip").await;
        assert_eq!(answer.headers["x-ratelimit-limit"], "3");
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.unwrap().expect(429);
    assert_eq!(refused.json["code"], "RATE_LIMITED");
    assert!(refused.headers.contains_key("retry-after") && refused.headers.contains_key("x-hoody-signature"));
    assert_eq!(refused.headers["x-ratelimit-remaining"], "0");
    assert_eq!(client.get("/api/v1/ip").await.expect(200).headers["x-ratelimit-limit"], "1000");
}

#[tokio::test]
async fn only_listed_origins_may_call_from_a_browser() {
    let (_folder, store) = sqlite().await;
    let mut config = config();
    config.cors_origins = vec!["https://app.example.org".to_owned()];
    let client = Client::new(&with_config(&store, config).await);
    let allowed = |origin: &'static str| {
        let headers = [("origin", origin), ("access-control-request-method", "POST")];
        let client = client.clone();
        async move {
            let answer = client.with(Method::OPTIONS, "/api/v1/projects", &headers, None).await;
            answer.headers.get("access-control-allow-origin").map(|value| value.to_str().unwrap().to_owned())
        }
    };
    assert_eq!(allowed("https://app.example.org").await.as_deref(), Some("https://app.example.org"));
    assert_eq!(allowed("https://evil.example.org").await, None);
}

#[tokio::test]
async fn bodies_over_the_limit_and_nonsense_are_refused() {
    let (_folder, store) = sqlite().await;
    let (client, _) = Client::new_user(&app(&store).await, "ann", false).await;
    let send = |body: Vec<u8>| client.send(Request::post("/api/v1/projects").body(Body::from(body)).unwrap());
    send(vec![b' '; super::super::layer::MAX_BODY_BYTES + 1]).await.expect_invalid(&["body"]);
    send(b"{".to_vec()).await.expect_invalid(&["body"]);
    send(b"\xff\xfe".to_vec()).await.expect_invalid(&["body"]);
    send(b"[]".to_vec()).await.expect(400);
    send([b"{\"alias\":".repeat(300), b"1".to_vec()].concat()).await.expect(400);
}

#[tokio::test]
async fn ip_shows_the_caller_without_credentials() {
    let (_folder, store) = sqlite().await;
    let (client, _) = Client::new_user(&app(&store).await, "ann", false).await;
    let headers = [("user-agent", "test/1"), ("cookie", "secret=1")];
    let answer = client.with(Method::GET, "/api/v1/ip", &headers, None).await.expect(200);
    assert_eq!(answer.data()["user_agent"], "test/1");
    assert_eq!(answer.data()["ip"], "0.0.0.0");
    let shown = answer.data()["headers"].as_object().unwrap();
    assert!(!shown.contains_key("authorization") && !shown.contains_key("cookie"));
}
