//! Operations that the table opens to everybody, and pages outside of it: each looks at what the request brings, and
//! nothing else opens it. `refreshToken`, `oauthAuthorize` and `oauthCancelIntent` take credentials that are none of
//! the table's kinds, hence they cannot be tried with the others ([`super::access`]).

use crate::{
    api::testing::{Client, PASSWORD},
    app::testing::{config, with_config},
    store::{auth_token::testing::token, testing::sqlite},
};
use http::Method;
use serde_json::json;

const AUTHORIZE: &str = "/api/v1/auth/authorize";
const CANCEL: &str = "/api/v1/auth/intent/cancel";
const REFRESH: &str = "/api/v1/users/auth/refresh";
const DEVICE: &str = "/api/v1/auth/device";
const URI: &str = "https://app.example/signed-in";
/// RFC 7636, appendix B.
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

#[tokio::test]
async fn a_login_is_handed_over_by_an_intent_or_a_session_and_by_nothing_else() {
    let (_folder, store) = sqlite().await;
    let mut config = config();
    config.oauth.redirect_uris = vec![URI.to_owned()];
    let app = with_config(&store, config).await;
    let nobody = Client::new(&app);
    let (session, user) = Client::new_user(&app, "ann", false).await;
    let login = json!({"username": "ann", "password": PASSWORD});
    let logged_in = nobody.post("/api/v1/users/auth/login", login).await.expect(200);
    let refresh = logged_in.data()["refreshToken"].as_str().unwrap();
    let auth_token = token(&store, user, |_| {}).await;
    let body = json!({"code_challenge": CHALLENGE, "redirect_uri": URI});

    // Neither an auth token, which has less than the account, nor a refresh token becomes a login elsewhere.
    for (what, client) in [
        ("nobody", nobody.clone()),
        ("a forged session", nobody.with_token("x.y.z")),
        ("an unknown intent", nobody.with_token(&"0".repeat(64))),
        ("a refresh token", nobody.with_token(refresh)),
    ] {
        let answer = client.post(AUTHORIZE, body.clone()).await;
        assert_eq!(answer.status, 401, "{what}: {}", answer.json);
        let answer = client.post(REFRESH, json!({"refreshToken": "nonsense"})).await;
        assert!(matches!(answer.status.as_u16(), 401), "{what}: {}", answer.json);
    }
    let refused = nobody.with_token(&auth_token).post(AUTHORIZE, body.clone()).await;
    assert!(matches!(refused.status.as_u16(), 401 | 403), "{}", refused.json);
    session.post(AUTHORIZE, body).await.expect(200);

    // An intent is given up by whoever has it; there is no other way to name one.
    nobody.post(CANCEL, json!({})).await.expect(401);
    for token in [auth_token.as_str(), session.token.as_deref().unwrap()] {
        nobody.with_token(token).post(CANCEL, json!({})).await.expect(401);
    }
    // Access and auth tokens refresh nothing.
    nobody.post(REFRESH, json!({})).await.expect_invalid(&["refreshToken"]);
    for token in [auth_token.as_str(), session.token.as_deref().unwrap()] {
        nobody.post(REFRESH, json!({"refreshToken": token})).await.expect(401);
        nobody.with_token(token).post(REFRESH, json!({})).await.expect(401);
    }
    nobody.post(REFRESH, json!({"refreshToken": refresh})).await.expect(200);
}

#[tokio::test]
async fn a_device_is_turned_away_by_who_typed_its_code_and_only_that_one() {
    let (_folder, store) = sqlite().await;
    let app = with_config(&store, config()).await;
    let (session, _) = Client::new_user(&app, "ann", false).await;
    let nobody = Client::new(&app);
    let mut devices = Vec::new();
    for _ in 0..2 {
        let begun = nobody.post(&format!("{DEVICE}/code"), json!({})).await.expect(200);
        let typed = json!({"user_code": begun.data()["user_code"]});
        let found = nobody.post(&format!("{DEVICE}/verify_code"), typed).await.expect(200);
        devices.push((begun.data()["device_code"].clone(), found.data()["ticket"].clone()));
    }
    let deny = format!("{DEVICE}/deny");
    // What the device itself knows is not enough, nor is a session.
    nobody.post(&deny, json!({"ticket": devices[0].0})).await.expect(404);
    session.post(&deny, json!({})).await.expect_invalid(&["ticket"]);
    session.post(&deny, json!({"ticket": "0".repeat(64)})).await.expect(404);
    nobody.post(&deny, json!({"ticket": devices[0].1})).await.expect(200);
    let state = async |device: &serde_json::Value| {
        let answer = nobody.post(&format!("{DEVICE}/token"), json!({"device_code": device})).await.expect(400);
        answer.json["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(state(&devices[0].0).await, "access_denied");
    assert_eq!(state(&devices[1].0).await, "authorization_pending");
}

#[tokio::test]
async fn a_launch_leads_only_to_applications_that_the_operator_lists() {
    let (_folder, store) = sqlite().await;
    let app = with_config(&store, config()).await;
    let nobody = Client::new(&app);
    let launch = json!({"provider": "github", "code_challenge": CHALLENGE,
        "state_id": "01234567-89ab-4def-8123-456789abcdef"});
    let refused = nobody.post("/api/v1/auth/launch/initiate", launch).await;
    assert!(matches!(refused.status.as_u16(), 400 | 503), "no application is listed: {}", refused.json);
    for ticket in ["", "x", &"0".repeat(64)] {
        nobody.get(&format!("/api/v1/auth/launch/start?ticket={ticket}")).await.expect_invalid(&["ticket"]);
    }
}

#[tokio::test]
async fn the_page_for_devices_is_a_file_and_nothing_more() {
    let (_folder, store) = sqlite().await;
    let app = with_config(&store, config()).await;
    let (session, _) = Client::new_user(&app, "ann", false).await;
    let nobody = Client::new(&app);
    for path in ["/device", "/device/page.js", "/device/page.css"] {
        let pages =
            [nobody.get(path).await, session.get(path).await, nobody.get(&format!("{path}?code=A&ticket=B")).await];
        for page in &pages {
            assert_eq!(page.status, 200, "{path}");
            // The same for everybody: nothing of the request, and nothing of an account, is in it.
            assert_eq!(page.bytes, pages[0].bytes, "{path}");
            assert!(!page.headers.contains_key("set-cookie"), "{path}");
            assert!(page.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
        }
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let answer = session.with(method.clone(), path, &[], Some(json!({}))).await;
            assert_eq!(answer.status, 405, "{method} {path}");
        }
    }
    nobody.get("/device/../api/v1/projects").await.expect(404);
    nobody.get("/device/other").await.expect(404);
}
