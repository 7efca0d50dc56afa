//! Two-factor authentication.

use super::world::execute;
use crate::{
    api::testing::{Answer, Client, PASSWORD},
    app::{App, testing::app},
    store::testing::{each_backend, sqlite},
};
use hoody_protocol::time::now_ms;
use http::Method;
use serde_json::{Value, json};
use totp_rs::{Algorithm, Builder, Secret};

const BASE: &str = "/api/v1/users/auth/2fa";
const LOGIN: &str = "/api/v1/users/auth/login";
const ME: &str = "/api/v1/users/auth/me";

fn path(end: &str) -> String {
    format!("{BASE}/{end}")
}

/// What the authenticator shows, `steps` from now.
fn code_of(secret: &str, steps: i64) -> String {
    let totp = Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(6)
        .with_step_duration(30)
        .with_secret(Secret::try_from_base32(secret).unwrap())
        .with_issuer(None::<&str>)
        .with_account_name("")
        .build_noncompliant();
    totp.generate((now_ms() as i64 / 1000 + steps * 30) as u64).to_string()
}

/// An account with two-factor authentication.
pub(super) struct Protected {
    app: App,
    client: Client,
    secret: String,
    pub(super) backup_codes: Vec<String>,
}

impl Protected {
    pub(super) async fn new(app: &App) -> Self {
        let (client, _) = Client::new_user(app, "ann", false).await;
        let setup = client.post(&path("setup"), json!({"password": PASSWORD})).await.expect(200);
        let secret = setup.data()["manual_entry_key"].as_str().unwrap().to_owned();
        let answer = client.post(&path("verify-setup"), json!({"code": code_of(&secret, 0)})).await.expect(200);
        let client = client.with_token(answer.data()["token"].as_str().unwrap());
        let codes = serde_json::from_value(setup.data()["backup_codes"].clone()).unwrap();
        let this = Self { app: app.clone(), client, secret, backup_codes: codes };
        this.forget_codes().await;
        this
    }

    /// As if much time had passed: used codes and counted tries are forgotten.
    async fn forget_codes(&self) {
        execute(&self.app.store, "UPDATE two_factor SET last_step = 0; DELETE FROM attempts").await;
    }

    async fn code(&self) -> String {
        self.forget_codes().await;
        code_of(&self.secret, 0)
    }

    async fn temp_token(&self) -> String {
        let answer = self.client.post(LOGIN, json!({"username": "ann", "password": PASSWORD})).await.expect(200);
        let data = answer.data();
        assert_eq!((&data["requires_2fa"], &data["method"]), (&json!(true), &json!("totp")));
        assert!(data.get("token").is_none() && data.get("user").is_none(), "{data}");
        data["temp_token"].as_str().unwrap().to_owned()
    }

    async fn verify(&self, temp_token: &str, code: &str) -> Answer {
        self.client.post(&path("verify"), json!({"temp_token": temp_token, "code": code})).await
    }
}

#[tokio::test]
async fn it_is_in_force_after_a_code_and_ends_other_sessions() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (client, _) = Client::new_user(&app, "ann", false).await;
        let answer = client.post(LOGIN, json!({"username": "ann", "password": PASSWORD})).await.expect(200);
        let elsewhere = client.with_token(answer.data()["token"].as_str().unwrap());
        client.post(&path("setup"), json!({"password": "not her password"})).await.expect(401);
        client.post(&path("setup"), json!({})).await.expect_invalid(&["password"]);
        client.post(&path("verify-setup"), json!({"code": "123456"})).await.expect(409);
        let setup = client.post(&path("setup"), json!({"password": PASSWORD})).await.expect(200);
        let data = setup.data();
        for (name, other) in [("qr_code", "qrCode"), ("manual_entry_key", "secret"), ("backup_codes", "backupCodes")] {
            assert!(!data[name].is_null() && data[name] == data[other], "{name}");
        }
        assert!(data["qr_code"].as_str().unwrap().starts_with("data:image/png;base64,"));
        let codes: Vec<String> = serde_json::from_value(data["backup_codes"].clone()).unwrap();
        assert!(codes.len() == 10 && codes.iter().all(|code| code.len() == 12), "{codes:?}");
        let secret = data["secret"].as_str().unwrap();

        // Until a code was shown, nothing has changed.
        let status = client.get(&path("status")).await.expect(200);
        assert_eq!((&status.data()["enabled"], &status.data()["backup_codes_remaining"]), (&json!(false), &json!(0)));
        client.post(LOGIN, json!({"username": "ann", "password": PASSWORD})).await.expect(200);
        client.post(&path("verify-setup"), json!({"code": "12345"})).await.expect_invalid(&["code"]);
        let wrong = code_of(secret, 40);
        client.post(&path("verify-setup"), json!({"code": wrong})).await.expect(401);
        let answer = client.post(&path("verify-setup"), json!({"code": code_of(secret, 0)})).await.expect(200);
        assert_eq!(answer.data()["sessions_revoked"], true);
        client.get(ME).await.expect(401);
        elsewhere.get(ME).await.expect(401);
        let client = client.with_token(answer.data()["token"].as_str().unwrap());
        let status = client.get(&path("status")).await.expect(200);
        assert_eq!((&status.data()["enabled"], &status.data()["backup_codes_remaining"]), (&json!(true), &json!(10)));
        client.post(&path("setup"), json!({"password": PASSWORD})).await.expect(409);
        // Neither the secret nor a backup code is in the database.
        let (sealed, hash): (String, String) =
            sqlx::query_as("SELECT sealed, code_hash FROM two_factor t JOIN backup_codes b ON t.user_id = b.user_id")
                .fetch_one(store.reader())
                .await
                .unwrap();
        assert!(!sealed.contains(secret) && !codes.contains(&hash));
    })
    .await;
}

#[tokio::test]
async fn a_login_needs_a_code_and_no_code_works_twice() {
    each_backend(|store| async move {
        let ann = Protected::new(&app(&store).await).await;
        let temp = ann.temp_token().await;
        ann.verify(&temp, &code_of(&ann.secret, 40)).await.expect(401);
        ann.client.with_token(&temp).get(ME).await.expect(401);
        let code = ann.code().await;
        let answer = ann.verify(&temp, &code).await.expect(200);
        assert_eq!(answer.data()["user"]["username"], "ann");
        ann.client.with_token(answer.data()["token"].as_str().unwrap()).get(ME).await.expect(200);
        // Neither the temporary token nor the code works again; nor does an older code.
        ann.verify(&temp, &ann.backup_codes[0]).await.expect(401);
        let temp = ann.temp_token().await;
        ann.verify(&temp, &code).await.expect(401);
        ann.verify(&temp, &code_of(&ann.secret, -1)).await.expect(401);
        // Clocks may differ by one step. The temporary token may stand in the header.
        ann.forget_codes().await;
        let ahead = json!({"code": code_of(&ann.secret, 1)});
        let header = format!("Bearer {temp}");
        let headers = [("authorization", header.as_str())];
        ann.client.with(Method::POST, &path("verify"), &headers, Some(ahead)).await.expect(200);
        let temp = ann.temp_token().await;
        ann.forget_codes().await;
        ann.verify(&temp, &code_of(&ann.secret, 3)).await.expect(401);
        let mut client = ann.client.clone();
        client.token = None;
        client.post(&path("verify"), json!({})).await.expect_invalid(&["code", "temp_token"]);
    })
    .await;
}

#[tokio::test]
async fn a_backup_code_works_once_also_for_two_at_the_same_time() {
    each_backend(|store| async move {
        let ann = Protected::new(&app(&store).await).await;
        let (one, two) = (ann.temp_token().await, ann.temp_token().await);
        let code = &ann.backup_codes[3].to_uppercase();
        let (first, second) = tokio::join!(ann.verify(&one, code), ann.verify(&two, code));
        let mut statuses = [first.status.as_u16(), second.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 401]);
        let status = ann.client.get(&path("status")).await.expect(200);
        assert_eq!(status.data()["backup_codes_remaining"], 9);
        ann.forget_codes().await;
        let body = json!({"password": PASSWORD, "code": ann.code().await});
        let answer = ann.client.post(&path("backup-codes/regenerate"), body).await.expect(200);
        assert_eq!(answer.data()["backup_codes"].as_array().unwrap().len(), 10);
        ann.verify(&ann.temp_token().await, &ann.backup_codes[4]).await.expect(401);
        ann.verify(&ann.temp_token().await, answer.data()["backup_codes"][0].as_str().unwrap()).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn guessing_codes_ends_soon() {
    each_backend(|store| async move {
        let ann = Protected::new(&app(&store).await).await;
        let temp = ann.temp_token().await;
        let wrong = code_of(&ann.secret, 40);
        for _ in 0..5 {
            ann.verify(&temp, &wrong).await.expect(401);
        }
        let code = ann.code().await;
        ann.verify(&temp, &code).await.expect(401);
        // Nor do ever new temporary tokens help.
        ann.forget_codes().await;
        let mut statuses = Vec::new();
        for _ in 0..3 {
            let temp = ann.temp_token().await;
            for _ in 0..4 {
                statuses.push(ann.verify(&temp, &wrong).await.status.as_u16());
            }
        }
        // A window may end in between.
        assert!(statuses.contains(&429) || statuses.len() < 11, "{statuses:?}");
        // Expired ones neither.
        let temp = ann.temp_token().await;
        execute(&store, "UPDATE login_challenges SET expires_at = 1").await;
        let code = ann.code().await;
        ann.verify(&temp, &code).await.expect(401);
    })
    .await;
}

#[tokio::test]
async fn turning_it_off_takes_password_and_code() {
    each_backend(|store| async move {
        let ann = Protected::new(&app(&store).await).await;
        let disable = async |body: Value| ann.client.with(Method::DELETE, BASE, &[], Some(body)).await;
        disable(json!({})).await.expect_invalid(&["code", "password"]);
        disable(json!({"password": "not her password", "code": ann.code().await})).await.expect(401);
        disable(json!({"password": PASSWORD, "code": code_of(&ann.secret, 40)})).await.expect(401);
        ann.client.get(ME).await.expect(200);
        let answer = disable(json!({"password": PASSWORD, "code": ann.code().await})).await.expect(200);
        assert_eq!(answer.data()["sessions_revoked"], true);
        ann.client.get(ME).await.expect(401);
        let client = ann.client.with_token(answer.data()["token"].as_str().unwrap());
        client.get(ME).await.expect(200);
        client.post(LOGIN, json!({"username": "ann", "password": PASSWORD})).await.expect(200);
        client.with(Method::DELETE, BASE, &[], Some(json!({"password": PASSWORD, "code": "123456"}))).await.expect(409);
    })
    .await;
}

#[tokio::test]
async fn the_token_gate_closes_easily_and_opens_with_password_and_code() {
    let (_folder, store) = sqlite().await;
    let app = app(&store).await;
    let (bob, _) = Client::new_user(&app, "bob", false).await;
    bob.put(&path("token-gate"), json!({"enabled": true})).await.expect(409);
    let ann = Protected::new(&app).await;
    let answer = ann.client.put(&path("token-gate"), json!({"enabled": true})).await.expect(200);
    assert_eq!(answer.data()["require_for_tokens"], true);
    let open = async |body: Value| ann.client.patch(&path("token-gate"), body).await;
    open(json!({"enabled": false})).await.expect_invalid(&["otp_code", "password"]);
    let wrong = code_of(&ann.secret, 40);
    open(json!({"enabled": false, "password": PASSWORD, "otp_code": wrong})).await.expect(401);
    open(json!({"enabled": false, "password": "not her password", "otp_code": ann.code().await})).await.expect(401);
    assert_eq!(ann.client.get(&path("status")).await.expect(200).data()["require_for_tokens"], true);
    open(json!({"enabled": false, "password": PASSWORD, "otp_code": ann.backup_codes[0]})).await.expect(200);
    assert_eq!(ann.client.get(&path("status")).await.expect(200).data()["require_for_tokens"], false);
}

#[tokio::test]
async fn behind_the_gate_every_change_of_auth_tokens_needs_a_code() {
    let (_folder, store) = sqlite().await;
    let app = app(&store).await;
    let ann = Protected::new(&app).await;
    let tokens = "/api/v1/auth/tokens";
    let made = ann.client.post(tokens, json!({"alias": "before"})).await.expect(201);
    let one = format!("{tokens}/{}", made.data()["id"].as_str().unwrap());
    ann.client.put(&path("token-gate"), json!({"enabled": true})).await.expect(200);
    let realm = "0123456789abcdef01234567";
    let changes = [
        (Method::POST, tokens.to_owned(), json!({"alias": "after"}), 201),
        (Method::PUT, one.clone(), json!({"alias": "changed"}), 200),
        (Method::PATCH, one.clone(), json!({"alias": "changed again"}), 200),
        (Method::POST, format!("{one}/copy"), json!({}), 201),
        (Method::POST, format!("{one}/add-realm"), json!({"realm_id": realm}), 200),
        (Method::POST, format!("{one}/add-realm"), json!({"realm_id": "f".repeat(24)}), 200),
        (Method::POST, format!("{one}/remove-realm"), json!({"realm_id": realm}), 200),
    ];
    for (number, (method, path, body, status)) in changes.into_iter().enumerate() {
        let send = async |code: Option<&str>| {
            let mut body = body.clone();
            body["otp_code"] = json!(code);
            ann.client.with(method.clone(), &path, &[], Some(body)).await
        };
        send(None).await.expect_invalid(&["otp_code"]);
        send(Some(&code_of(&ann.secret, 40))).await.expect(401);
        send(Some(&ann.backup_codes[number])).await.expect(status);
        ann.forget_codes().await;
    }
}

#[tokio::test]
async fn basic_credentials_count_as_a_login_and_miss_the_second_factor() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let (_folder, store) = sqlite().await;
    let app = app(&store).await;
    let (_, _) = Client::new_user(&app, "bob", false).await;
    let ann = Protected::new(&app).await;
    let client = Client::new(&app);
    let basic = async |name: &str, password: &str, path: &str| {
        let value = format!("Basic {}", STANDARD.encode(format!("{name}:{password}")));
        client.with(Method::GET, path, &[("authorization", &value)], None).await
    };
    let answer = basic("bob", PASSWORD, ME).await.expect(200);
    assert_eq!(answer.data()["username"], "bob");
    basic("bob", "not his password", "/api/v1/users/me").await.expect(401);
    basic("ann", PASSWORD, ME).await.expect(401);
    basic("bob", PASSWORD, "/api/v1/projects").await.expect(401);
    let (events,): (i64,) = sqlx::query_as(
        "SELECT CAST(COUNT(*) AS BIGINT) FROM security_events WHERE event = 'login_basic' AND succeeded = 1",
    )
    .fetch_one(store.reader())
    .await
    .unwrap();
    assert_eq!(events, 1);
    ann.client.get(ME).await.expect(200);
}
