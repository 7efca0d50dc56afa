//! `Idempotency-Key`.

use crate::{
    api::testing::{Answer, Client},
    app::testing::app,
    store::{idempotency, testing::each_backend},
};
use http::Method;
use serde_json::{Value, json};
use std::time::Duration;

const PROJECTS: &str = "/api/v1/projects";

async fn create(client: &Client, key: &str, body: Value) -> Answer {
    client.with(Method::POST, PROJECTS, &[("idempotency-key", key)], Some(body)).await
}

#[tokio::test]
async fn the_same_request_is_done_once() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (ann, _) = Client::new_user(&app, "ann", false).await;
        let (bob, _) = Client::new_user(&app, "bob", false).await;
        let first = create(&ann, "k1", json!({"alias": "a"})).await.expect(201);
        assert!(!first.headers.contains_key("idempotency-replayed"));
        let again = create(&ann, "k1", json!({"alias": "a"})).await.expect(201);
        assert_eq!(again.headers["idempotency-replayed"], "true");
        assert_eq!(again.bytes, first.bytes);
        create(&ann, "k1", json!({"alias": "b"})).await.expect(422);
        create(&ann, "k2", json!({"alias": "b"})).await.expect(201);
        // Keys are each user's own.
        create(&bob, "k1", json!({"alias": "c"})).await.expect(201);
        assert_eq!(ann.get(PROJECTS).await.expect(200).json["pagination"]["total"], 2);

        let rows: Vec<String> =
            sqlx::query_scalar("SELECT body FROM idempotency_keys").fetch_all(store.reader()).await.unwrap();
        assert_eq!(rows.len(), 3);
        assert!(rows.iter().all(|body| !body.contains("alias")), "bodies are sealed");
    })
    .await;
}

#[tokio::test]
async fn refusals_are_not_kept_and_bad_keys_refused() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (client, _) = Client::new_user(&app, "ann", false).await;
        create(&client, "k", json!({"alias": ""})).await.expect(400);
        // The key is freed by a task of its own.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            match create(&client, "k", json!({"alias": "a"})).await.status.as_u16() {
                201 => break,
                409 | 422 if tokio::time::Instant::now() < deadline => tokio::task::yield_now().await,
                other => panic!("{other}"),
            }
        }
        create(&client, "", json!({"alias": "b"})).await.expect_invalid(&["idempotency-key"]);
        create(&client, &"x".repeat(256), json!({"alias": "b"})).await.expect_invalid(&["idempotency-key"]);
        Client::new(&app).with(Method::POST, PROJECTS, &[("idempotency-key", "k")], None).await.expect(401);
    })
    .await;
}

#[tokio::test]
async fn a_request_in_progress_is_a_conflict_until_it_is_abandoned() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (client, user) = Client::new_user(&app, "ann", false).await;
        let day = Duration::from_secs(3600);
        let begin = |hash: &'static str| idempotency::begin(&store, user, "k", hash, day);
        assert_eq!(begin("h").await.unwrap(), idempotency::Begun::First);
        assert_eq!(begin("h").await.unwrap(), idempotency::Begun::Running);
        assert_eq!(begin("other").await.unwrap(), idempotency::Begun::OtherRequest);
        create(&client, "k", json!({"alias": "a"})).await.expect(422);
        // Claimed two deadlines ago and never ended: its process is gone.
        sqlx::query("UPDATE idempotency_keys SET created_at = created_at - 600000")
            .execute(&mut *store.begin().await.unwrap())
            .await
            .unwrap();
        let mut tx = store.begin().await.unwrap();
        sqlx::query("UPDATE idempotency_keys SET created_at = created_at - 600000").execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        create(&client, "k", json!({"alias": "a"})).await.expect(201);
    })
    .await;
}
