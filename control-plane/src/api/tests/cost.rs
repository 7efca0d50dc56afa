//! What requests cost, counted and not timed: whether an account exists shows in no answer and in no work that is
//! done for it, and a bearer token costs no password hash and one read of an index.

use super::{mailbox::Mailbox, world::execute};
use crate::{
    api::testing::{Answer, Client, PASSWORD},
    store::{
        Backend, Store,
        auth_token::testing::token,
        testing::{each_backend, is_indexed},
    },
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// How often each is asked: what differs now and then shows.
const ROUNDS: usize = 5;
const EMAIL: &str = "ann@example.org";

/// What a stranger sees of an answer but for what is new each time.
fn seen(answer: &Answer, email: &str) -> (u16, BTreeSet<String>, Value) {
    let headers = answer.headers.keys().map(|name| name.to_string()).collect();
    let body = answer.json.to_string().replace(email, "ADDRESS");
    (answer.status.as_u16(), headers, serde_json::from_str(&body).unwrap())
}

/// Rows of the tables that requests of strangers write to.
async fn rows(store: &Store) -> [i64; 4] {
    let mut found = [0; 4];
    for (place, table) in ["sign_ups", "mail_jobs", "attempts", "sessions"].into_iter().enumerate() {
        let sql = sqlx::AssertSqlSafe(format!("SELECT CAST(COUNT(*) AS BIGINT) FROM {table}"));
        found[place] = sqlx::query_scalar(sql).fetch_one(store.reader()).await.unwrap();
    }
    found
}

#[tokio::test]
async fn the_same_work_is_done_for_accounts_that_exist_and_that_do_not() {
    each_backend(|store| async move {
        let mailbox = Mailbox::new(&store).await;
        let client = Client::new(&mailbox.app);
        client.post("/api/v1/auth/signup", json!({"email": EMAIL, "password": PASSWORD})).await.expect(200);
        let verify = json!({"token": mailbox.token().await});
        client.post("/api/v1/auth/verify-email", verify).await.expect(200);
        let code = client.post("/api/v1/auth/device/code", json!({})).await.expect(200);
        let typed = json!({"user_code": code.data()["user_code"]});
        let ticket = client.post("/api/v1/auth/device/verify_code", typed).await.expect(200);
        let ticket = ticket.data()["ticket"].clone();

        let statements = Statements::default();
        let _counting = statements.count();
        for (path, status, hashes) in [
            ("/api/v1/users/auth/login", 401, 1),
            ("/api/v1/auth/device/login", 401, 1),
            ("/api/v1/auth/signup", 200, 1),
            ("/api/v1/auth/forgot-password", 200, 0),
            ("/api/v1/auth/resend-verification", 200, 0),
        ] {
            for round in 0..ROUNDS {
                let mut costs = Vec::new();
                for email in [EMAIL.to_owned(), format!("nobody{round}@example.org")] {
                    // The number of sign-ups that wait for one address has a limit.
                    execute(&store, "DELETE FROM sign_ups").await;
                    execute(&store, "DELETE FROM attempts").await;
                    let (before, worked) = (rows(&store).await, mailbox.app.passwords.worked());
                    statements.forget();
                    let body = json!({"email": email, "password": "no such password at all", "ticket": ticket});
                    let answer = client.post(path, body).await.expect(status);
                    let worked = mailbox.app.passwords.worked() - worked;
                    assert_eq!(worked, hashes, "{path} of {email}");
                    let texts = statements.texts();
                    let after = rows(&store).await;
                    let written: Vec<i64> = before.iter().zip(after).map(|(before, after)| after - before).collect();
                    costs.push((seen(&answer, &email), written, texts));
                }
                assert_eq!(costs[0], costs[1], "{path}: known and unknown differ");
                let counted = !costs[0].2.is_empty();
                assert!(counted || store.backend() == Backend::Sqlite, "{path}: no statement was seen");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_bearer_token_costs_no_hash_and_one_read_of_an_index() {
    // Handlers that read nothing themselves.
    const PATH: &str = "/api/v1/auth/tokens/templates";
    each_backend(|store| async move {
        let app = crate::app::testing::app(&store).await;
        let (session, user) = Client::new_user(&app, "ann", false).await;
        let of_token = session.with_token(&token(&store, user, |_| {}).await);
        let worked = app.passwords.worked();
        let statements = Statements::default();
        let _counting = statements.count();
        for (what, client) in [("a session", &session), ("an auth token", &of_token)] {
            for _ in 0..ROUNDS {
                statements.forget();
                client.get(PATH).await.expect(200);
                let texts = statements.texts();
                if store.backend() == Backend::Postgres {
                    assert_eq!(texts.len(), 1, "{what} costs {texts:?}");
                    is_indexed(&texts[0]).await;
                }
            }
        }
        assert_eq!(app.passwords.worked(), worked, "a password was hashed");
        session.post("/api/v1/users/auth/login", json!({"username": "ann", "password": PASSWORD})).await.expect(200);
        assert_eq!(app.passwords.worked(), worked + 1, "nothing is counted");
    })
    .await;
}

/// The statements that this thread sends to PostgreSQL; those to SQLite are sent by other threads.
#[derive(Clone, Default)]
struct Statements(Arc<Mutex<Vec<String>>>);

impl Statements {
    /// Counts until the guard is dropped.
    fn count(&self) -> tracing::subscriber::DefaultGuard {
        tracing::subscriber::set_default(tracing_subscriber::registry().with(self.clone()))
    }

    fn forget(&self) {
        self.0.lock().unwrap().clear();
    }

    fn texts(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl<S: tracing::Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            let mut found = Text::default();
            event.record(&mut found);
            let text = if found.whole.is_empty() { found.summary } else { found.whole };
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            // A login that failed is written down later, by a task of its own, whenever that is.
            let is_later = text.contains("security_events") || ["COMMIT", "ROLLBACK"].contains(&text.as_str());
            if !is_later {
                self.0.lock().unwrap().push(text);
            }
        }
    }
}

/// What the driver says of a statement: whole where it is long, else in the summary.
#[derive(Default)]
struct Text {
    summary: String,
    whole: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => self.summary = value.to_owned(),
            "db.statement" => self.whole = value.to_owned(),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.record_str(field, format!("{value:?}").trim_matches('"'));
    }
}
