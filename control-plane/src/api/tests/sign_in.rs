//! Intents, codes, and devices. Providers are in the black-box tests, with a real one.

use super::{two_factor::Protected, world::execute};
use crate::{
    api::testing::{Answer, Client, PASSWORD},
    app::{
        App,
        testing::{app, config, with_config},
    },
    config::{OAuthClient, Secret},
    store::{Store, testing::each_backend},
};
use http::{Method, header};
use serde_json::{Value, json};

const LOGIN: &str = "/api/v1/users/auth/login";
const LOGOUT: &str = "/api/v1/users/auth/logout";
const VERIFY: &str = "/api/v1/users/auth/2fa/verify";
const AUTHORIZE: &str = "/api/v1/auth/authorize";
const EXCHANGE: &str = "/api/v1/auth/exchange";
const CANCEL: &str = "/api/v1/auth/intent/cancel";
const DEVICE: &str = "/api/v1/auth/device";
const URI: &str = "https://app.example/signed-in";
/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const OTHER_CHALLENGE: &str = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";

async fn listed(store: &Store) -> App {
    let mut config = config();
    config.oauth.redirect_uris = vec![URI.to_owned()];
    with_config(store, config).await
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

async fn intent(client: &Client) -> String {
    let body = json!({"username": "ann", "password": PASSWORD, "response_mode": "intent", "code_challenge": CHALLENGE});
    let answer = client.post(LOGIN, body).await.expect(200);
    assert!(answer.data().get("token").is_none() && answer.data().get("refreshToken").is_none(), "{}", answer.json);
    text(&answer.data()["auth_intent_token"])
}

async fn authorize(client: &Client, token: &str) -> Answer {
    client.with_token(token).post(AUTHORIZE, json!({"code_challenge": CHALLENGE, "redirect_uri": URI})).await
}

async fn exchange(client: &Client, code: &str, verifier: &str, uri: &str) -> Answer {
    client.post(EXCHANGE, json!({"code": code, "code_verifier": verifier, "redirect_uri": uri})).await
}

#[tokio::test]
async fn an_intent_becomes_a_code_and_the_code_a_session_each_once() {
    each_backend(|store| async move {
        let app = listed(&store).await;
        let (session, _) = Client::new_user(&app, "ann", false).await;
        let client = Client::new(&app);
        let token = intent(&client).await;
        // It opens nothing itself.
        client.with_token(&token).get("/api/v1/users/auth/me").await.expect(401);
        let code = authorize(&client, &token).await.expect(200);
        assert_eq!(text(&code.data()["redirect_url"]), format!("{URI}?code={}", text(&code.data()["code"])));
        authorize(&client, &token).await.expect(401);
        let code = text(&code.data()["code"]);
        let done = exchange(&client, &code, VERIFIER, URI).await.expect(200);
        client.with_token(&text(&done.data()["token"])).get("/api/v1/users/auth/me").await.expect(200);
        let again = exchange(&client, &code, VERIFIER, URI).await.expect(400);
        assert_eq!(again.json["code"], "invalid_grant");
        // A session does it too, and says so in the history.
        let code = authorize(&client, session.token.as_deref().unwrap()).await.expect(200);
        exchange(&client, &text(&code.data()["code"]), VERIFIER, URI).await.expect(200);
        let history = session.get("/api/v1/users/me/security-history").await.expect(200);
        assert!(history.json.to_string().contains("login_handed_over"), "{}", history.json);
    })
    .await;
}

#[tokio::test]
async fn codes_are_for_one_verifier_one_address_and_one_try() {
    each_backend(|store| async move {
        let app = listed(&store).await;
        let (session, _) = Client::new_user(&app, "ann", false).await;
        let client = Client::new(&app);
        let own = session.token.as_deref().unwrap();
        for (verifier, uri) in [("x".repeat(43), URI), (VERIFIER.to_owned(), "https://app.example/other")] {
            let code = text(&authorize(&client, own).await.expect(200).data()["code"]);
            let refused = exchange(&client, &code, &verifier, uri).await.expect(400);
            assert_eq!(refused.json["code"], "invalid_grant");
            // Whoever had it wrong has spoilt it.
            exchange(&client, &code, VERIFIER, URI).await.expect(400);
        }
        let token = intent(&client).await;
        let other = json!({"code_challenge": OTHER_CHALLENGE, "redirect_uri": URI});
        client.with_token(&token).post(AUTHORIZE, other).await.expect_invalid(&["code_challenge"]);
        for uri in ["https://app.example/", "https://app.example/signed-in/", "https://evil.example", ""] {
            let body = json!({"code_challenge": CHALLENGE, "redirect_uri": uri});
            session.post(AUTHORIZE, body).await.expect_invalid(&["redirect_uri"]);
        }
        session.post(AUTHORIZE, json!({})).await.expect_invalid(&["code_challenge", "redirect_uri"]);
        client.post(EXCHANGE, json!({})).await.expect_invalid(&["code", "code_verifier", "redirect_uri"]);
        client.post(AUTHORIZE, json!({"code_challenge": CHALLENGE, "redirect_uri": URI})).await.expect(401);
        // Given up.
        let token = intent(&client).await;
        client.with_token(&token).post(CANCEL, json!({})).await.expect(200);
        authorize(&client, &token).await.expect(401);
        client.post(CANCEL, json!({})).await.expect(401);
        // A logout voids what is under way.
        let token = intent(&client).await;
        let code = text(&authorize(&client, own).await.expect(200).data()["code"]);
        session.post(LOGOUT, json!({})).await.expect(200);
        authorize(&client, &token).await.expect(401);
        exchange(&client, &code, VERIFIER, URI).await.expect(400);
    })
    .await;
}

#[tokio::test]
async fn an_intent_waits_for_the_second_factor() {
    each_backend(|store| async move {
        let app = listed(&store).await;
        let codes = Protected::new(&app).await.backup_codes;
        let client = Client::new(&app);
        let mut body = json!({"username": "ann", "password": PASSWORD});
        let challenge = client.post(LOGIN, body.clone()).await.expect(200);
        let verify = json!({"temp_token": challenge.data()["temp_token"], "code": codes[0], "response_mode": "intent"});
        client.post(VERIFY, verify).await.expect_invalid(&["response_mode"]);
        body["response_mode"] = "intent".into();
        body["code_challenge"] = CHALLENGE.into();
        let challenge = client.post(LOGIN, body).await.expect(200);
        assert!(challenge.data().get("auth_intent_token").is_none());
        let verify = json!({"temp_token": challenge.data()["temp_token"], "code": codes[0]});
        let done = client.post(VERIFY, verify).await.expect(200);
        assert!(done.data().get("token").is_none());
        let code = authorize(&client, &text(&done.data()["auth_intent_token"])).await.expect(200);
        exchange(&client, &text(&code.data()["code"]), VERIFIER, URI).await.expect(200);
    })
    .await;
}

async fn begin(client: &Client, body: Value) -> (String, String) {
    let begun = client.post(&format!("{DEVICE}/code"), body).await.expect(200);
    assert_eq!((begun.data()["interval"].as_u64(), begun.data()["expires_in"].as_u64()), (Some(5), Some(900)));
    (text(&begun.data()["device_code"]), text(&begun.data()["user_code"]))
}

async fn ticket(client: &Client, user_code: &str) -> String {
    let found = client.post(&format!("{DEVICE}/verify_code"), json!({"user_code": user_code})).await.expect(200);
    text(&found.data()["ticket"])
}

async fn poll(app: &App, body: Value) -> Answer {
    // As if the interval had passed.
    execute(&app.store, "UPDATE device_logins SET polled_at = polled_at - 600000").await;
    Client::new(app).post(&format!("{DEVICE}/token"), body).await
}

#[tokio::test]
async fn a_device_gets_its_session_once_when_its_owner_says_so() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (_, id) = Client::new_user(&app, "ann", false).await;
        let client = Client::new(&app);
        let (device, typed) = begin(&client, json!({"client_name": "hoody on tv"})).await;
        let body = json!({"device_code": device});
        assert_eq!(poll(&app, body.clone()).await.expect(400).json["code"], "authorization_pending");
        // At once again: too early, and the interval grows.
        let path = format!("{DEVICE}/token");
        assert_eq!(client.post(&path, body.clone()).await.expect(400).json["code"], "slow_down");
        execute(&app.store, "UPDATE device_logins SET polled_at = polled_at - 6000").await;
        assert_eq!(client.post(&path, body.clone()).await.expect(400).json["code"], "slow_down");
        let ticket = ticket(&client, &typed.to_lowercase().replace('-', " ")).await;
        let login = json!({"ticket": ticket, "username": "ann", "password": PASSWORD});
        let wrong = json!({"ticket": ticket, "username": "ann", "password": "not the password"});
        client.post(&format!("{DEVICE}/login"), wrong).await.expect(401);
        let approved = client.post(&format!("{DEVICE}/login"), login.clone()).await.expect(200);
        assert_eq!(approved.json["data"], json!({"status": "approved"}));
        client.post(&format!("{DEVICE}/login"), login).await.expect(404);
        let done = poll(&app, body.clone()).await.expect(200);
        assert_eq!(done.data()["user"]["id"], id.to_string());
        let ann = client.with_token(&text(&done.data()["token"]));
        let history = ann.get("/api/v1/users/me/security-history?include_security=true").await.expect(200);
        for word in ["login_device", "device_approved", "hoody on tv"] {
            assert!(history.json.to_string().contains(word), "{word}: {}", history.json);
        }
        assert_eq!(poll(&app, body).await.expect(400).json["code"], "invalid_grant");
    })
    .await;
}

#[tokio::test]
async fn devices_are_refused_for_the_reasons_of_the_rfc() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (session, _) = Client::new_user(&app, "ann", false).await;
        let client = Client::new(&app);
        // Denied.
        let (device, typed) = begin(&client, json!({})).await;
        let denied = json!({"ticket": ticket(&client, &typed).await});
        client.post(&format!("{DEVICE}/deny"), denied.clone()).await.expect(200);
        client.post(&format!("{DEVICE}/deny"), denied).await.expect(404);
        assert_eq!(poll(&app, json!({"device_code": device})).await.expect(400).json["code"], "access_denied");
        client.post(&format!("{DEVICE}/verify_code"), json!({"user_code": typed})).await.expect_invalid(&["user_code"]);
        // With a challenge, only who knows the verifier.
        let (device, typed) = begin(&client, json!({"code_challenge": CHALLENGE})).await;
        let login = json!({"ticket": ticket(&client, &typed).await, "username": "ann", "password": PASSWORD});
        client.post(&format!("{DEVICE}/login"), login).await.expect(200);
        poll(&app, json!({"device_code": device})).await.expect_invalid(&["code_verifier"]);
        let wrong = json!({"device_code": device, "code_verifier": "x".repeat(43)});
        assert_eq!(poll(&app, wrong).await.expect(400).json["code"], "invalid_grant");
        // A logout after the approval voids it.
        session.post(LOGOUT, json!({})).await.expect(200);
        let right = json!({"device_code": device, "code_verifier": VERIFIER});
        assert_eq!(poll(&app, right).await.expect(400).json["code"], "access_denied");
        // Expired.
        let (device, typed) = begin(&client, json!({})).await;
        execute(&app.store, "UPDATE device_logins SET expires_at = 1").await;
        assert_eq!(poll(&app, json!({"device_code": device})).await.expect(400).json["code"], "expired_token");
        client.post(&format!("{DEVICE}/verify_code"), json!({"user_code": typed})).await.expect_invalid(&["user_code"]);
        client.post(&format!("{DEVICE}/token"), json!({"device_code": "X"})).await.expect_invalid(&["device_code"]);
        client.post(&format!("{DEVICE}/login"), json!({})).await.expect_invalid(&["password", "ticket", "username"]);
        let long = json!({"code_challenge": "x", "client": "c".repeat(65)});
        client.post(&format!("{DEVICE}/code"), long).await.expect_invalid(&["client", "code_challenge"]);
    })
    .await;
}

#[tokio::test]
async fn a_device_waits_for_the_second_factor() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let codes = Protected::new(&app).await.backup_codes;
        let client = Client::new(&app);
        let (device, typed) = begin(&client, json!({})).await;
        let login = json!({"ticket": ticket(&client, &typed).await, "username": "ann", "password": PASSWORD});
        let challenge = client.post(&format!("{DEVICE}/login"), login).await.expect(200);
        assert_eq!(challenge.data()["requires_2fa"], true);
        let body = json!({"device_code": device});
        assert_eq!(poll(&app, body.clone()).await.expect(400).json["code"], "authorization_pending");
        let verify = json!({"temp_token": challenge.data()["temp_token"], "code": codes[0]});
        let done = client.post(VERIFY, verify).await.expect(200);
        assert_eq!(done.json["data"], json!({"status": "approved"}));
        poll(&app, body).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn what_is_not_configured_says_so_and_what_is_sends_the_browser_off() {
    each_backend(|store| async move {
        let app = listed(&store).await;
        let client = Client::new(&app);
        let query = format!("redirect_uri={URI}&code_challenge={CHALLENGE}");
        client.get(&format!("/api/v1/auth/google?{query}")).await.expect(503);
        client.get(&format!("/api/v1/auth/github?{query}&intent=star_check")).await.expect(503);
        client.get("/api/v1/auth/github/callback?state=x&code=y").await.expect(503);
        let launch = json!({"provider": "github", "code_challenge": CHALLENGE,
            "state_id": "01234567-89ab-4def-8123-456789abcdef"});
        client.post("/api/v1/auth/launch/initiate", launch.clone()).await.expect(503);
        let mut config = config();
        config.oauth.redirect_uris = vec![URI.to_owned()];
        config.public_url = "https://api.example".to_owned();
        config.oauth.github = Some(OAuthClient::github("an-id".to_owned(), Secret::new("a-secret".to_owned())));
        let client = Client::new(&with_config(&store, config).await);
        let ways = client.get("/api/v1/auth/config").await.expect(200);
        assert_eq!(
            (&ways.data()["github"]["enabled"], &ways.data()["google"]["enabled"]),
            (&json!(true), &json!(false))
        );
        let begun = client.post("/api/v1/auth/launch/initiate", launch).await.expect(200);
        let path = text(&begun.data()["launch_url"]).replace("https://api.example", "");
        for path in [&format!("/api/v1/auth/github?{query}"), &path] {
            let sent = client.get(path).await;
            assert_eq!(sent.status, 302, "{}", sent.json);
            let location = sent.headers[header::LOCATION].to_str().unwrap();
            assert!(location.starts_with("https://github.com/login/oauth/authorize?"), "{location}");
            for part in [
                "code_challenge_method=S256",
                "state=",
                "client_id=an-id",
                "api.example%2Fapi%2Fv1%2Fauth%2Fgithub%2Fcallback",
            ] {
                assert!(location.contains(part), "{part}: {location}");
            }
            assert!(!location.contains("a-secret"));
            let cookie = sent.headers[header::SET_COOKIE].to_str().unwrap();
            assert!(
                cookie.contains("HttpOnly") && cookie.contains("Secure") && cookie.contains("SameSite=Lax"),
                "{cookie}"
            );
            // Another browser, without the cookie, has no use for the state, and does not use it up.
            let state = location.split("state=").nth(1).unwrap().split('&').next().unwrap();
            let back = format!("/api/v1/auth/github/callback?state={state}&error=access_denied");
            client.get(&back).await.expect_invalid(&["state"]);
            let pair = cookie.split(';').next().unwrap();
            let answer = client.with(Method::GET, &back, &[("cookie", pair)], None).await;
            assert_eq!(answer.status, 302, "{}", answer.json);
            let location = answer.headers[header::LOCATION].to_str().unwrap();
            assert!(location.starts_with(&format!("{URI}?error=access_denied")), "{location}");
            client.with(Method::GET, &back, &[("cookie", pair)], None).await.expect_invalid(&["state"]);
        }
        client.get(&path).await.expect_invalid(&["ticket"]);
        client.get("/api/v1/auth/github").await.expect_invalid(&["code_challenge", "redirect_uri"]);
        client.get("/api/v1/auth/launch/start").await.expect_invalid(&["ticket"]);
        client.get("/api/v1/auth/device/authorize").await.expect_invalid(&["provider", "ticket"]);
        let unknown = format!("/api/v1/auth/device/authorize?provider=github&ticket={}", "0".repeat(64));
        client.get(&unknown).await.expect(404);
    })
    .await;
}
