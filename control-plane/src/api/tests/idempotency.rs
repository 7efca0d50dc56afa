//! `Idempotency-Key`.

use crate::{
    api::testing::{Answer, Client},
    app::testing::app,
    event::{Actor, EventKind, NewEvent},
    store::{
        Store, StoreError, event,
        idempotency::{self, Begun, Claim},
        replica,
        testing::each_backend,
    },
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

/// The claim of a process that is not there, as it stands when that process dies.
async fn claimed_by_the_dead(store: &Store, body: &str) {
    let mut tx = store.begin().await.unwrap();
    sqlx::query("UPDATE idempotency_keys SET status = NULL, body = $1").bind(body).execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_request_in_progress_is_a_conflict_until_it_is_abandoned() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (client, user) = Client::new_user(&app, "ann", false).await;
        let day = Duration::from_secs(3600);
        let own = app.replica.clone();
        let begin = |hash: &'static str| idempotency::begin(&store, &own, user, "k", hash, day);
        assert!(matches!(begin("h").await.unwrap(), Begun::First(_)));
        assert_eq!(begin("h").await.unwrap(), Begun::Running);
        assert_eq!(begin("other").await.unwrap(), Begun::OtherRequest);
        create(&client, "k", json!({"alias": "a"})).await.expect(422);
        // Claimed two deadlines ago and never ended.
        let mut tx = store.begin().await.unwrap();
        sqlx::query("UPDATE idempotency_keys SET created_at = created_at - 600000").execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        create(&client, "k", json!({"alias": "a"})).await.expect(201);
    })
    .await;
}

#[tokio::test]
async fn a_request_whose_process_died_before_it_changed_anything_is_carried_out_at_once() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (client, _) = Client::new_user(&app, "ann", false).await;
        let first = create(&client, "k", json!({"alias": "a"})).await.expect(201).json["data"]["id"].clone();
        let path = format!("{PROJECTS}/{}", first.as_str().unwrap());
        client.with(Method::DELETE, &path, &[], None).await.expect(200);
        claimed_by_the_dead(&store, "dead 1").await;
        let again = create(&client, "k", json!({"alias": "a"})).await.expect(201);
        assert!(!again.headers.contains_key("idempotency-replayed"));
        assert_ne!(again.json["data"]["id"], first);
        assert_eq!(client.get(PROJECTS).await.expect(200).json["pagination"]["total"], 1);
    })
    .await;
}

#[tokio::test]
async fn a_process_that_holds_its_lease_is_not_taken_for_dead() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (client, _) = Client::new_user(&app, "ann", false).await;
        create(&client, "k", json!({"alias": "a"})).await.expect(201);
        replica::begin(&store, "alive", None).await.unwrap();
        claimed_by_the_dead(&store, "alive 1").await;
        create(&client, "k", json!({"alias": "a"})).await.expect(409);
        claimed_by_the_dead(&store, "alive 1 project 000000000000000000000000").await;
        create(&client, "k", json!({"alias": "a"})).await.expect(409);
    })
    .await;
}

#[tokio::test]
async fn a_request_whose_process_died_after_its_commit_gets_its_outcome_and_is_not_done_again() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (client, _) = Client::new_user(&app, "ann", false).await;
        let first = create(&client, "k", json!({"alias": "a"})).await.expect(201).json["data"].clone();
        claimed_by_the_dead(&store, &format!("dead 1 project {}", first["id"].as_str().unwrap())).await;
        create(&client, "k", json!({"alias": "b"})).await.expect(422);
        // The second time it is the stored answer again.
        for _ in 0..2 {
            let again = create(&client, "k", json!({"alias": "a"})).await.expect(201);
            assert_eq!(again.headers["idempotency-replayed"], "true");
            assert_eq!(again.json["data"], first);
            assert_eq!(client.get(PROJECTS).await.expect(200).json["pagination"]["total"], 1);
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_request_commits_is_noted_with_it_and_refused_once_its_key_is_anothers() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (_, user) = Client::new_user(&app, "ann", false).await;
        let day = Duration::from_secs(3600);
        let begin = async |own: &str| idempotency::begin(&store, own, user, "k", "h", day).await.unwrap();
        let change = async |claim: &Claim, commit: bool| {
            let event = NewEvent::new(EventKind::ProjectCreated, "p1", Some(user), Actor::User(user));
            let work = async {
                let mut tx = store.begin().await.unwrap();
                event::insert(&mut tx, &event).await.map(|_| ())?;
                if commit {
                    tx.commit().await.map_err(StoreError::from)
                } else {
                    tx.rollback().await.map_err(StoreError::from)
                }
            };
            idempotency::working_on(claim.clone(), work).await
        };
        let Begun::First(dead) = begin("dead").await else { panic!("claimed by nobody") };
        change(&dead, false).await.unwrap();
        let Begun::First(next) = begin("next").await else { panic!("what was rolled back counts") };
        let late = change(&dead, true).await;
        assert!(matches!(late, Err(StoreError::Duplicate { .. })), "{late:?}");
        change(&next, true).await.unwrap();
        change(&next, true).await.unwrap();
        let Begun::Committed(_, effect) = begin("third").await else { panic!("what was committed is not known") };
        assert_eq!((effect.what.as_str(), effect.id.as_str()), ("project", "p1"));
    })
    .await;
}
