//! Login, refresh, logout, tokens.

use crate::{
    api::testing::{Client, PASSWORD},
    app::{
        App,
        testing::{app, config, with_config},
    },
    keys::{Claims, Keys, MasterKey, TokenKind},
    service::session,
    store::testing::{each_backend, sqlite},
};
use hoody_protocol::id::{SessionId, UserId};
use http::Method;
use serde_json::json;

const LOGIN: &str = "/api/v1/users/auth/login";
const REFRESH: &str = "/api/v1/users/auth/refresh";
const LOGOUT: &str = "/api/v1/users/auth/logout";
const ME: &str = "/api/v1/users/auth/me";

async fn ann(app: &App) -> UserId {
    session::create_user(app, "Ann", Some("Ann@Example.org"), PASSWORD.to_owned().into(), false).await.unwrap()
}

#[tokio::test]
async fn every_input_form_logs_in_and_the_tokens_stand_under_every_name() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let id = ann(&app).await;
        let mut client = Client::new(&app);
        for name in [
            json!({"username": "ann"}),
            json!({"username": "ANN"}),
            json!({"alias": "ann"}),
            json!({"email": "ann@example.org"}),
            json!({"username": "ann@example.org"}),
            json!({"username": "ann", "response_mode": "tokens"}),
        ] {
            let mut body = name;
            body["password"] = PASSWORD.into();
            let answer = client.post(LOGIN, body).await.expect(200);
            let data = answer.data();
            assert_eq!(data["user"]["id"], id.to_string());
            assert_eq!(
                (data["expires_in"].as_u64(), data["refresh_expires_in"].as_u64()),
                (Some(86_400), Some(604_800))
            );
            for (name, other) in
                [("accessToken", "token"), ("access_token", "token"), ("refresh_token", "refreshToken")]
            {
                assert!(data[name].is_string() && data[name] == data[other], "{name}");
            }
            client.token = data["token"].as_str().map(str::to_owned);
        }
        for path in [ME, "/api/v1/users/me", "/api/v1/users/me/"] {
            let answer = client.get(path).await.expect(200);
            assert_eq!(answer.data()["username"], "ann");
            assert_eq!(answer.data()["email"], "ann@example.org");
            assert_eq!(answer.data()["is_admin"], false);
            assert!(answer.data().get("password_hash").is_none());
        }
    })
    .await;
}

#[tokio::test]
async fn wrong_logins_are_refused_alike_and_bad_ones_named() {
    let (_folder, store) = sqlite().await;
    let app = app(&store).await;
    ann(&app).await;
    let client = Client::new(&app);
    let wrong = client.post(LOGIN, json!({"username": "ann", "password": "not her password"})).await.expect(401);
    let nobody = client.post(LOGIN, json!({"username": "bob", "password": "not his password"})).await.expect(401);
    assert_eq!(wrong.json, nobody.json, "an answer must not tell which accounts exist");
    client.post(LOGIN, json!({})).await.expect_invalid(&["password", "username"]);
    client.post(LOGIN, json!({"username": "ann", "password": "short"})).await.expect_invalid(&["password"]);
    client.post(LOGIN, json!({"username": 4, "password": PASSWORD})).await.expect_invalid(&["username"]);
    client
        .post(LOGIN, json!({"username": "ann", "password": PASSWORD, "response_mode": "x"}))
        .await
        .expect_invalid(&["response_mode"]);
    let intent = json!({"username": "ann", "password": PASSWORD, "response_mode": "intent"});
    client.post(LOGIN, intent).await.expect_invalid(&["code_challenge"]);
}

#[tokio::test]
async fn tokens_that_are_not_ours_or_no_longer_good_are_refused() {
    let (_folder, store) = sqlite().await;
    let app = app(&store).await;
    let (client, user) = Client::new_user(&app, "ann", false).await;
    let token = client.token.clone().unwrap();
    let claims = app.keys.tokens.verify(&token, TokenKind::Access).unwrap();

    let old = Claims::issued_at(1_000, TokenKind::Access, user, claims.sid, claims.generation);
    let stranger = Claims::new(TokenKind::Access, UserId::generate(), claims.sid, 1);
    let no_session = Claims::new(TokenKind::Access, user, SessionId::generate(), claims.generation);
    let refresh = Claims::new(TokenKind::Refresh, user, claims.sid, claims.generation);
    let (_other_folder, other_store) = sqlite().await;
    let other = Keys::open(&other_store, MasterKey::from_hex(&"99".repeat(32)).unwrap()).await.unwrap();
    let sign = |claims: &Claims| app.keys.tokens.sign(claims).unwrap();
    let mut altered = token.clone().into_bytes();
    let middle = altered.len() / 2;
    altered[middle] = if altered[middle] == b'A' { b'B' } else { b'A' };
    for (what, credential) in [
        ("none", String::new()),
        ("expired", format!("Bearer {}", sign(&old))),
        ("of nobody", format!("Bearer {}", sign(&stranger))),
        ("without session", format!("Bearer {}", sign(&no_session))),
        ("refresh token", format!("Bearer {}", sign(&refresh))),
        ("of another installation", format!("Bearer {}", other.tokens.sign(&claims).unwrap())),
        ("altered", format!("Bearer {}", String::from_utf8(altered).unwrap())),
        ("auth token", "hdy_0123456789".to_owned()),
        ("auth token with Bearer", "Bearer hdy_0123456789".to_owned()),
        ("basic", "Basic YTpi".to_owned()),
        ("no scheme", token.clone()),
    ] {
        let answer = client.with(Method::GET, ME, &[("authorization", &credential)], None).await;
        assert_eq!(answer.status, 401, "{what}");
        assert_eq!(answer.json["code"], "UNAUTHORIZED", "{what}");
    }
    client.with(Method::GET, ME, &[("authorization", &format!("bearer  {token}"))], None).await.expect(200);
}

#[tokio::test]
async fn a_refresh_token_works_once_and_its_second_use_ends_the_session() {
    each_backend(|store| async move {
        let app = app(&store).await;
        ann(&app).await;
        let mut client = Client::new(&app);
        let login = json!({"username": "ann", "password": PASSWORD});
        let other = client.post(LOGIN, login.clone()).await.expect(200);
        let first = client.post(LOGIN, login).await.expect(200);
        let refresh = |answer: &crate::api::testing::Answer| answer.data()["refreshToken"].as_str().unwrap().to_owned();

        let second = client.post(REFRESH, json!({"refreshToken": refresh(&first)})).await.expect(200);
        let header = format!("Bearer {}", refresh(&second));
        let third = client.with(Method::POST, REFRESH, &[("authorization", &header)], None).await.expect(200);
        let header = format!("Bearer {}", refresh(&third));
        let body = json!({"refreshToken": refresh(&third)});
        let fourth = client.with(Method::POST, REFRESH, &[("authorization", &header)], Some(body)).await.expect(200);
        client.token = fourth.data()["token"].as_str().map(str::to_owned);
        client.get(ME).await.expect(200);

        client.post(REFRESH, json!({"refreshToken": refresh(&second)})).await.expect(401);
        client.get(ME).await.expect(401);
        client.post(REFRESH, json!({"refreshToken": refresh(&fourth)})).await.expect(401);
        // The other login has nothing to do with it.
        client.post(REFRESH, json!({"refreshToken": refresh(&other)})).await.expect(200);

        client.token = None;
        client.post(REFRESH, json!({})).await.expect_invalid(&["refreshToken"]);
        let access = other.data()["token"].clone();
        client.post(REFRESH, json!({"refreshToken": access})).await.expect(401);
    })
    .await;
}

#[tokio::test]
async fn logout_ends_every_token_of_the_user() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (client, _) = Client::new_user(&app, "ann", false).await;
        let answer = client.post(LOGIN, json!({"username": "ann", "password": PASSWORD})).await.expect(200);
        let elsewhere = client.with_token(answer.data()["token"].as_str().unwrap());
        elsewhere.get(ME).await.expect(200);
        let answer = client.post(LOGOUT, json!({})).await.expect(200);
        assert!(answer.data().is_null());
        client.get(ME).await.expect(401);
        elsewhere.get(ME).await.expect(401);
        client.post(LOGOUT, json!({})).await.expect(401);
        let refresh = json!({"refreshToken": answer.data()["refreshToken"]});
        client.post(REFRESH, refresh).await;
        client.post(LOGIN, json!({"username": "ann", "password": PASSWORD})).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn guessing_a_password_is_slowed_down_per_account() {
    let (_folder, store) = sqlite().await;
    let mut config = config();
    config.rate_limits.login = 2;
    let app = with_config(&store, config).await;
    ann(&app).await;
    let client = Client::new(&app);
    // A window may end between two of these, hence one more than it takes in one window.
    let mut limited = None;
    for _ in 0..5 {
        let answer = client.post(LOGIN, json!({"username": "ann", "password": "guessed wrong"})).await;
        if answer.status == 429 {
            limited = Some(answer);
            break;
        }
    }
    let limited = limited.unwrap().expect(429);
    assert!((1..=60).contains(&limited.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap()));
    assert_eq!(limited.headers["x-ratelimit-limit"], "2");
    client.post(LOGIN, json!({"username": "bob", "password": "guessed wrong"})).await.expect(401);
}
