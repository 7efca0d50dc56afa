//! The record over the API: every change is in it, everybody sees their own, and it comes live.

use super::world::World;
use crate::{
    api::testing::{Answer, Client},
    app::App,
    live,
    service::session,
    store::testing::each_backend,
};
use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::time::Duration;

const EVENTS: &str = "/api/v1/events";
const DEADLINE: Duration = Duration::from_secs(20);

fn kinds(answer: &Answer) -> Vec<String> {
    let events = answer.data()["events"].as_array().unwrap();
    events.iter().map(|event| event["event_type"].as_str().unwrap().to_owned()).collect()
}

pub(super) async fn list(client: &Client, query: &str) -> Answer {
    client.get(&format!("{EVENTS}?sort_order=asc&limit=500&{query}")).await.expect(200)
}

#[tokio::test]
async fn every_change_is_in_the_record_of_the_owner_and_nobody_elses() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let path = world.running().await;
        let id = path.rsplit('/').next().unwrap().to_owned();
        let client = &world.client;
        client.patch(&path, json!({"name": "shop", "autostart": false, "comment": "x"})).await.expect(200);
        client.put(&format!("{path}/env/PASSWORD"), json!({"value": "hush"})).await.expect(200);
        let ingress = format!("{path}/firewall/ingress");
        let rule = json!({"action": "drop", "protocol": "tcp", "port": 8000});
        client.post(&ingress, rule).await;
        client.patch(&ingress, json!({"port": 8000, "state": "disabled"})).await.expect(200);
        client.with(Method::DELETE, &ingress, &[], Some(json!({"port": 8000}))).await.expect(200);
        client.post(&format!("{path}/restart"), json!({})).await.expect(200);
        client.post(&format!("{path}/pause"), json!({})).await.expect(200);
        client.post(&format!("{path}/resume"), json!({})).await.expect(200);
        client.post(&format!("{path}/stop"), json!({})).await.expect(200);
        client.delete(&path).await.expect(200);

        let found = list(client, &format!("container_id={id}")).await;
        let mut expected = vec![
            "container.creating",
            "container.running",
            "container.renamed",
            "container.autostart_disabled",
            "container.resource_updated",
            "container.resource_updated",
            "firewall.rule.added",
            "firewall.rule.disabled",
            "firewall.rule.removed",
        ];
        let found_kinds = kinds(&found);
        assert_eq!(found_kinds[..expected.len()], expected[..], "{found_kinds:?}");
        for kind in ["container.stopped", "container.deleting", "container.deleted"] {
            assert!(found_kinds.iter().any(|found| found == kind), "{kind} in {found_kinds:?}");
        }
        expected.clear();
        let events = found.data()["events"].as_array().unwrap();
        assert!(events.iter().all(|event| event["user_id"] == world.user.to_string()));
        assert!(!found.json.to_string().contains("hush"), "values of variables are secrets");
        assert_eq!(events[0]["payload"]["actor"], json!({"type": "user", "id": world.user.to_string()}));
        assert_eq!(events[6]["resource_type"], "firewall");
        assert!(events.iter().any(|event| event["payload"]["operation"] == "restart"), "{events:?}");

        let project = list(client, "resource_type=project").await;
        assert_eq!(kinds(&project), ["project.created"]);
        assert_eq!(kinds(&list(client, "resource_type=user").await), ["user.created"]);
        let (other, _) = Client::new_user(&world.app, "bob", false).await;
        assert_eq!(list(&other, &format!("container_id={id}")).await.data()["pagination"]["total"], 0);
        let one = events[0]["id"].as_str().unwrap();
        assert_eq!(client.get(&format!("{EVENTS}/{one}")).await.expect(200).data()["id"], one);
        other.get(&format!("{EVENTS}/{one}")).await.expect(404);
        other.delete(&format!("{EVENTS}/{one}")).await.expect(404);
    })
    .await;
}

#[tokio::test]
async fn lists_are_filtered_paged_and_counted_and_events_can_be_deleted() {
    each_backend(|store| async move {
        let app = crate::app::testing::app(&store).await;
        let (client, _) = Client::new_user(&app, "ann", false).await;
        for alias in ["one", "two", "three"] {
            client.post("/api/v1/projects", json!({"alias": alias})).await.expect(201);
        }
        while crate::store::event::publish(&store, 100).await.unwrap() > 0 {}
        let page = client.get("/api/v1/events?event_type=project.created&limit=2&offset=1").await.expect(200);
        assert_eq!(page.data()["pagination"], json!({"total": 3, "limit": 2, "offset": 1, "has_more": false}));
        assert_eq!(page.data()["events"][0]["payload"]["alias"], "two", "newest first");
        assert_eq!(kinds(&list(&client, "event_type=project.created&end_date=2020-01-01").await), [""; 0]);
        assert_eq!(list(&client, "start_date=2020-01-01T00:00:00Z").await.data()["pagination"]["total"], 5);
        let bad = "limit=501&offset=-1&event_type=container.start&resource_type=x&resource_id=y&project_id=z\
             &container_id=1&start_date=soon&end_date=late&realm_id=r&sort_by=id&sort_order=up";
        client.get(&format!("{EVENTS}?{bad}")).await.expect_invalid(&[
            "container_id",
            "end_date",
            "event_type",
            "limit",
            "offset",
            "project_id",
            "realm_id",
            "resource_id",
            "resource_type",
            "sort_by",
            "sort_order",
            "start_date",
        ]);
        let stats = client.get("/api/v1/events/stats").await.expect(200);
        assert_eq!(
            (&stats.data()["total_events"], &stats.data()["by_type"]["project.created"]),
            (&json!(5), &json!(3))
        );
        assert_eq!(stats.data()["by_resource"]["project"], 3);

        let delete = async |body: Value| client.with(Method::DELETE, EVENTS, &[], Some(body)).await;
        delete(json!({})).await.expect_invalid(&["before_date"]);
        delete(json!({"event_type": "error"})).await.expect_invalid(&["event_type"]);
        assert_eq!(delete(json!({"before": "2020-01-01T00:00:00Z"})).await.expect(200).data()["deleted_count"], 0);
        let one = page.data()["events"][0]["id"].as_str().unwrap();
        client.delete(&format!("{EVENTS}/{one}")).await.expect(200);
        client.delete(&format!("{EVENTS}/{one}")).await.expect(404);
        let deleted = delete(json!({"resource_type": "project"})).await.expect(200);
        assert_eq!(deleted.data()["deleted_count"], 2);
        let clean_up = async |body: Value| client.post("/api/v1/events/cleanup", body).await;
        clean_up(json!({})).await.expect_invalid(&["retention_days"]);
        clean_up(json!({"retention_days": 366})).await.expect_invalid(&["retention_days"]);
        let cleaned = clean_up(json!({"retention_days": 30})).await.expect(200);
        assert_eq!((&cleaned.data()["deleted_count"], &cleaned.data()["retention_days"]), (&json!(0), &json!(30)));
    })
    .await;
}

/// Server-sent events, read one by one.
pub(super) struct Stream {
    body: Body,
    text: String,
}

impl Stream {
    pub(super) async fn open(app: &App, token: &str, query: &str, last_event_id: Option<&str>) -> Self {
        let mut request =
            Request::get(format!("/api/v1/events/stream?{query}")).header("authorization", format!("Bearer {token}"));
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let router = crate::api::router(app.clone());
        let response = tower::ServiceExt::oneshot(router, request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert!(!response.headers().contains_key("x-hoody-signature"), "streams are not signed");
        Self { body: response.into_body(), text: String::new() }
    }

    /// The fields of the next message; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            if let Some((message, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let lines = message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                    lines.unwrap_or_default().to_owned()
                };
                let found = (field("id"), field("event"), serde_json::from_str(&field("data")).unwrap_or_default());
                self.text = rest.to_owned();
                if found.2 != Value::Null {
                    return Some(found);
                }
                continue;
            }
            let frame = tokio::time::timeout(DEADLINE, self.body.frame()).await.expect("something comes")?;
            self.text.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
        }
    }
}

/// An app with its feed running.
pub(super) async fn fed(store: &crate::store::Store) -> (App, tokio::task::JoinHandle<()>) {
    let app = crate::app::testing::app(store).await;
    let task = tokio::spawn(live::feed::run(app.store.clone(), app.live.clone()));
    while app.live.subscribe(Default::default(), None).is_err() {
        tokio::task::yield_now().await;
    }
    (app, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_delivers_resumes_and_ends_with_its_session() {
    each_backend(|store| async move {
        let (app, task) = fed(&store).await;
        let (client, user) = Client::new_user(&app, "ann", false).await;
        let (other, _) = Client::new_user(&app, "bob", false).await;
        let token = client.token.clone().unwrap();
        client
            .get("/api/v1/events/stream?event_type=nothing&last_event_id=-1")
            .await
            .expect_invalid(&["event_type", "last_event_id"]);
        Client::new(&app).get("/api/v1/events/stream").await.expect(401);
        Client::new(&app).get("/api/v1/events/ws").await.expect(401);
        client.get("/api/v1/events/ws").await.expect_invalid(&["Upgrade"]);

        let mut stream = Stream::open(&app, &token, "resource_type=project", None).await;
        other.post("/api/v1/projects", json!({"alias": "theirs"})).await.expect(201);
        client.post("/api/v1/projects", json!({"alias": "one"})).await.expect(201);
        client.post("/api/v1/projects", json!({"alias": "two"})).await.expect(201);
        let (id, _, data) = stream.next().await.unwrap();
        assert_eq!((&data["type"], &data["event"]["payload"]["alias"]), (&json!("event"), &json!("one")));
        assert_eq!(data["sequence"].to_string(), id);
        drop(stream);

        let mut stream = Stream::open(&app, &token, "resource_type=project", Some(&id)).await;
        assert_eq!(stream.next().await.unwrap().2["event"]["payload"]["alias"], "two", "none is missed");
        // Everything of the user, to see what ends it: the logout itself is not delivered any more.
        let mut all = Stream::open(&app, &token, "", None).await;
        session::logout(&app, user, &crate::api::testing::origin()).await.unwrap();
        let (resume, name, data) = all.next().await.unwrap();
        assert_eq!((name.as_str(), &data["reason"]), ("end", &json!("unauthorized")));
        assert_eq!(data["resume_after"].to_string(), resume);
        assert!(all.next().await.is_none());
        drop(stream);
        task.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_when_the_process_stops() {
    let (_folder, store) = crate::store::testing::sqlite().await;
    let (app, task) = fed(&store).await;
    let (client, _) = Client::new_user(&app, "ann", false).await;
    let mut stream = Stream::open(&app, client.token.as_deref().unwrap(), "resource_type=project", None).await;
    app.live.close();
    let (_, name, data) = stream.next().await.unwrap();
    assert_eq!((name.as_str(), &data["reason"]), ("end", &json!("stopping")));
    client.get("/api/v1/events/stream").await.expect(503);
    assert_eq!(app.live.listeners(), 0);
    task.abort();
}
