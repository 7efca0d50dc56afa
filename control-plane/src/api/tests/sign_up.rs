//! Sign-up, verification, and new passwords by mail.

use super::{mailbox::Mailbox, world::execute};
use crate::{
    api::testing::{Answer, Client, PASSWORD},
    config::{Smtp, SmtpTls},
    store::testing::{each_backend, sqlite},
    tasks::mail,
};
use serde_json::{Value, json};

const SIGN_UP: &str = "/api/v1/auth/signup";
const VERIFY: &str = "/api/v1/auth/verify-email";
const RESEND: &str = "/api/v1/auth/resend-verification";
const FORGOT: &str = "/api/v1/auth/forgot-password";
const RESET: &str = "/api/v1/auth/reset-password";
const LOGIN: &str = "/api/v1/users/auth/login";
const ME: &str = "/api/v1/users/auth/me";
const EMAIL: &str = "ann@example.org";
const OTHER_PASSWORD: &str = "another horse, another battery";

async fn sign_up(client: &Client, password: &str) -> Answer {
    client.post(SIGN_UP, json!({"email": "Ann@Example.org", "password": password})).await.expect(200)
}

async fn login(client: &Client, password: &str) -> Answer {
    client.post(LOGIN, json!({"email": EMAIL, "password": password})).await
}

/// An account made by a sign-up, logged in.
async fn signed_up(mailbox: &Mailbox) -> Client {
    let client = Client::new(&mailbox.app);
    sign_up(&client, PASSWORD).await;
    let answer = client.post(VERIFY, json!({"token": mailbox.token().await})).await.expect(200);
    client.with_token(answer.data()["token"].as_str().unwrap())
}

#[tokio::test]
async fn a_mail_makes_the_account_and_works_once() {
    each_backend(|store| async move {
        let mailbox = Mailbox::new(&store).await;
        let client = Client::new(&mailbox.app);
        let answer = sign_up(&client, PASSWORD).await;
        assert_eq!(answer.data(), &json!({"email": EMAIL}));
        login(&client, PASSWORD).await.expect(401);
        let token = mailbox.token().await;
        assert_eq!(token.len(), 64);
        let answer = client.post(VERIFY, json!({"token": token, "client": "test"})).await.expect(200);
        let data = answer.data();
        assert_eq!((&data["user"]["email"], &data["user"]["email_verified"]), (&json!(EMAIL), &json!(true)));
        assert_eq!((&data["user"]["username"], &data["user"]["signup_method"]), (&json!("ann"), &json!("email")));
        assert!(data["project"].is_null() && data["server"].is_null() && data["container"].is_null());
        assert_eq!(data["identity_claim"]["signature_hex"].as_str().unwrap().len(), 128);
        client.with_token(data["token"].as_str().unwrap()).get(ME).await.expect(200);
        login(&client, PASSWORD).await.expect(200);
        client.post(VERIFY, json!({"token": token})).await.expect_invalid(&["token"]);
        let (tokens, sign_ups): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT CAST(COUNT(*) AS BIGINT) FROM mail_tokens), (SELECT CAST(COUNT(*) AS BIGINT) FROM sign_ups)",
        )
        .fetch_one(store.reader())
        .await
        .unwrap();
        assert_eq!((tokens, sign_ups), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn no_answer_tells_whether_an_address_has_an_account() {
    each_backend(|store| async move {
        let mailbox = Mailbox::new(&store).await;
        signed_up(&mailbox).await;
        let client = Client::new(&mailbox.app);
        let ask = async |path: &str, email: &str| -> Value {
            let body = json!({"email": email, "password": OTHER_PASSWORD});
            let mut answer = client.post(path, body).await.expect(200).json;
            if !answer["data"].is_null() {
                assert_eq!(answer["data"]["email"], email);
                answer["data"] = Value::Null;
            }
            answer
        };
        for path in [SIGN_UP, RESEND, FORGOT] {
            assert_eq!(ask(path, EMAIL).await, ask(path, "nobody@example.org").await, "{path}");
        }
        let mails = mailbox.receive().await;
        let mut sent: Vec<_> =
            mails.iter().map(|mail| (mail.to.as_str(), mail.subject.as_str(), mail.token.is_some())).collect();
        sent.sort_unstable();
        assert_eq!(
            sent,
            [
                (EMAIL, "Choose a new password", true),
                (EMAIL, "You already have an account", false),
                ("nobody@example.org", "Verify your e-mail address", true),
                ("nobody@example.org", "Verify your e-mail address", true),
            ]
        );
        login(&client, PASSWORD).await.expect(200);
        login(&client, OTHER_PASSWORD).await.expect(401);
    })
    .await;
}

#[tokio::test]
async fn each_mail_makes_the_account_with_the_password_of_its_own_sign_up() {
    let (_folder, store) = sqlite().await;
    let mailbox = Mailbox::new(&store).await;
    let client = Client::new(&mailbox.app);
    sign_up(&client, PASSWORD).await;
    let hers = mailbox.token().await;
    sign_up(&client, OTHER_PASSWORD).await;
    let strangers = mailbox.token().await;
    client.post(VERIFY, json!({"token": hers})).await.expect(200);
    login(&client, PASSWORD).await.expect(200);
    login(&client, OTHER_PASSWORD).await.expect(401);
    client.post(VERIFY, json!({"token": strangers})).await.expect_invalid(&["token"]);
}

/// Somebody signs up with an address that is not theirs. Its owner, who answers the mail on a page that asks for the
/// password, does not get an account that the stranger can open.
#[tokio::test]
async fn nobody_opens_an_account_that_a_stranger_chose_the_password_of() {
    each_backend(|store| async move {
        let mailbox = Mailbox::new(&store).await;
        let client = Client::new(&mailbox.app);
        sign_up(&client, OTHER_PASSWORD).await;
        let mail = mailbox.receive().await.remove(0);
        for part in ["from 0.0.0.0", "their password", "your own mail ends theirs"] {
            assert!(mail.text.contains(part), "{part}: {}", mail.text);
        }
        let token = mail.token.unwrap();
        let guess = json!({"token": token, "password": PASSWORD});
        client.post(VERIFY, guess).await.expect_invalid(&["password"]);
        client.post(VERIFY, json!({"token": token, "password": "short"})).await.expect_invalid(&["password"]);
        login(&client, OTHER_PASSWORD).await.expect(401);
        // Their own sign-up, and the stranger's is over, also with the right password.
        sign_up(&client, PASSWORD).await;
        let own = mailbox.token().await;
        client.post(VERIFY, json!({"token": own, "password": PASSWORD})).await.expect(200);
        let stale = json!({"token": token, "password": OTHER_PASSWORD});
        client.post(VERIFY, stale).await.expect_invalid(&["token"]);
        login(&client, OTHER_PASSWORD).await.expect(401);
        login(&client, PASSWORD).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn a_name_that_is_taken_gets_something_added() {
    let (_folder, store) = sqlite().await;
    let mailbox = Mailbox::new(&store).await;
    Client::new_user(&mailbox.app, "ann", false).await;
    let client = Client::new(&mailbox.app);
    client.post(SIGN_UP, json!({"email": EMAIL, "alias": "Ann", "password": PASSWORD})).await.expect(200);
    let answer = client.post(VERIFY, json!({"token": mailbox.token().await})).await.expect(200);
    let name = answer.data()["user"]["username"].as_str().unwrap();
    assert!(name.starts_with("ann-"), "{name}");
}

#[tokio::test]
async fn every_bad_field_is_named() {
    let (_folder, store) = sqlite().await;
    let mailbox = Mailbox::new(&store).await;
    let client = Client::new(&mailbox.app);
    client.post(SIGN_UP, json!({})).await.expect_invalid(&["email", "password"]);
    let bad = json!({"email": "ann", "username": "a b", "password": "password1234", "region": "EU", "invite_code": ""});
    client.post(SIGN_UP, bad).await.expect_invalid(&["email", "invite_code", "password", "region", "username"]);
    let long = json!({"email": EMAIL, "password": PASSWORD, "client": "x".repeat(65)});
    client.post(SIGN_UP, long).await.expect_invalid(&["client"]);
    for path in [RESEND, FORGOT] {
        client.post(path, json!({"email": "ann@"})).await.expect_invalid(&["email"]);
    }
    client.post(VERIFY, json!({"token": "short"})).await.expect_invalid(&["token"]);
    client.post(VERIFY, json!({"token": "0".repeat(64)})).await.expect_invalid(&["token"]);
    client
        .post(VERIFY, json!({"token": "0".repeat(64), "response_mode": "x"}))
        .await
        .expect_invalid(&["response_mode"]);
    let intent = json!({"token": "0".repeat(64), "response_mode": "intent"});
    client.post(VERIFY, intent).await.expect_invalid(&["code_challenge"]);
    client.post(RESET, json!({"token": "short", "password": "short"})).await.expect_invalid(&["password", "token"]);
    assert!(mailbox.receive().await.is_empty());
}

#[tokio::test]
async fn a_new_password_by_mail_ends_every_session_and_works_once() {
    each_backend(|store| async move {
        let mailbox = Mailbox::new(&store).await;
        let client = signed_up(&mailbox).await;
        client.post(FORGOT, json!({"email": EMAIL})).await.expect(200);
        let first = mailbox.token().await;
        client.post(FORGOT, json!({"email": EMAIL})).await.expect(200);
        let second = mailbox.token().await;
        // A verification cannot be done with it, and a password that is refused does not use it up.
        client.post(VERIFY, json!({"token": second})).await.expect_invalid(&["token"]);
        client.post(RESET, json!({"token": second, "password": "password1234"})).await.expect_invalid(&["password"]);
        client.get(ME).await.expect(200);
        client.post(RESET, json!({"token": second, "password": OTHER_PASSWORD})).await.expect(200);
        client.get(ME).await.expect(401);
        login(&client, PASSWORD).await.expect(401);
        login(&client, OTHER_PASSWORD).await.expect(200);
        for token in [first, second] {
            client.post(RESET, json!({"token": token, "password": PASSWORD})).await.expect_invalid(&["token"]);
        }
    })
    .await;
}

#[tokio::test]
async fn tokens_expire() {
    each_backend(|store| async move {
        let mailbox = Mailbox::new(&store).await;
        let client = signed_up(&mailbox).await;
        client.post(FORGOT, json!({"email": EMAIL})).await.expect(200);
        client.post(SIGN_UP, json!({"email": "bob@example.org", "password": PASSWORD})).await.expect(200);
        let mails = mailbox.receive().await;
        execute(&store, "UPDATE mail_tokens SET expires_at = 1").await;
        for mail in mails {
            let token = mail.token.unwrap();
            let (path, body) = match mail.to == EMAIL {
                true => (RESET, json!({"token": token, "password": OTHER_PASSWORD})),
                false => (VERIFY, json!({"token": token})),
            };
            client.post(path, body).await.expect_invalid(&["token"]);
        }
        login(&client, PASSWORD).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn an_address_is_not_flooded() {
    let (_folder, store) = sqlite().await;
    let mailbox = Mailbox::new(&store).await;
    let client = Client::new(&mailbox.app);
    for _ in 0..9 {
        sign_up(&client, PASSWORD).await;
    }
    assert_eq!(mailbox.receive().await.len(), 5);
    client.post(RESEND, json!({"email": EMAIL})).await.expect(200);
    assert!(mailbox.receive().await.is_empty());
}

#[tokio::test]
async fn strangers_who_ask_too_often_are_told_when_to_come_back() {
    each_backend(|store| async move {
        let mailbox = Mailbox::with(&store, |config| config.rate_limits.signup = 2).await;
        let client = Client::new(&mailbox.app);
        // A window may end in between, hence one more than it takes in one.
        let mut limited = None;
        for _ in 0..2 {
            for path in [FORGOT, RESEND, "/api/v1/waitlist", FORGOT] {
                let answer = client.post(path, json!({"email": EMAIL})).await;
                if answer.status == 429 {
                    limited = Some(answer);
                }
            }
        }
        let limited = limited.expect("nobody was refused").expect(429);
        assert_eq!(limited.headers["x-ratelimit-limit"], "2");
        assert_eq!(limited.headers["x-ratelimit-remaining"], "0");
        assert!(limited.headers.contains_key("retry-after"));
    })
    .await;
}

#[tokio::test]
async fn a_mail_that_cannot_be_sent_is_kept_for_later() {
    each_backend(|store| async move {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mailbox = Mailbox::with(&store, |config| {
            config.mail.smtp = Some(Smtp {
                host: "127.0.0.1".to_owned(),
                port: unused,
                tls: SmtpTls::None,
                credentials: None,
                certificate: None,
            });
        })
        .await;
        sign_up(&Client::new(&mailbox.app), PASSWORD).await;
        mail::send_due(&mailbox.app).await.unwrap();
        let kept: (i64, i64) = sqlx::query_as("SELECT attempts, not_before - created_at FROM mail_jobs")
            .fetch_one(store.reader())
            .await
            .unwrap();
        assert!(kept.0 == 1 && kept.1 >= 5_000, "{kept:?}");
        // With a server that works it goes out, from whichever process.
        let working = Mailbox::new(&store).await;
        assert!(working.receive().await.is_empty(), "not before its time");
        execute(&store, "UPDATE mail_jobs SET not_before = 1").await;
        assert_eq!(working.receive().await.len(), 1);
    })
    .await;
}
