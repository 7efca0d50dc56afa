//! Events of a project that is shared: who sees them, from when on and until when, listed and live.

use super::events::{Stream, fed, list};
use crate::{
    api::testing::{Answer, Client},
    app::App,
    store::{event, testing::each_backend},
};
use http::Method;
use serde_json::{Value, json};

const EVENTS: &str = "/api/v1/events";
const STREAM: &str = "event_type=project.updated";

/// A project of Ann's, and Bob, whom nothing is shared with yet.
struct Two {
    app: App,
    task: tokio::task::JoinHandle<()>,
    ann: Client,
    bob: Client,
    bobs_id: String,
    project: String,
}

impl Two {
    async fn new(store: &crate::store::Store) -> Self {
        let (app, task) = fed(store).await;
        let (ann, _) = Client::new_user(&app, "ann", false).await;
        let (bob, bobs_id) = Client::new_user(&app, "bob", false).await;
        let made = ann.post("/api/v1/projects", json!({"alias": "shop"})).await.expect(201);
        let project = made.data()["id"].as_str().unwrap().to_owned();
        Self { app, task, ann, bob, bobs_id: bobs_id.to_string(), project }
    }

    /// Shares the project with Bob; the permission's path.
    async fn share(&self) -> String {
        let path = format!("/api/v1/projects/{}/permissions", self.project);
        let body = json!({"user_id": self.bobs_id, "permission_level": "read"});
        let made = self.ann.post(&path, body).await.expect(201);
        format!("{path}/{}", made.data()["id"].as_str().unwrap())
    }

    async fn rename(&self, alias: &str) {
        self.ann.patch(&format!("/api/v1/projects/{}", self.project), json!({"alias": alias})).await.expect(200);
    }

    async fn of_project(&self, client: &Client) -> Answer {
        list(client, &format!("project_id={}", self.project)).await
    }
}

fn total(answer: &Answer) -> u64 {
    answer.data()["pagination"]["total"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_see_the_events_of_shared_projects_as_long_as_they_are_shared() {
    each_backend(|store| async move {
        let two = Two::new(&store).await;
        two.rename("first").await;
        assert_eq!(total(&two.of_project(&two.bob).await), 0);
        let permission = two.share().await;
        let (hers, his) = (two.of_project(&two.ann).await, two.of_project(&two.bob).await);
        assert_eq!(hers.data()["events"], his.data()["events"]);
        assert!(total(&his) >= 3, "{}", his.json);
        let stats = two.bob.get("/api/v1/events/stats").await.expect(200);
        assert_eq!(stats.data()["by_resource"]["project"].as_u64(), Some(total(&his)));
        let one = his.data()["events"][0]["id"].as_str().unwrap().to_owned();
        let path = format!("{EVENTS}/{one}");
        two.bob.get(&path).await.expect(200);

        // The owner alone removes them.
        while event::publish(&store, 100).await.unwrap() > 0 {}
        two.bob.delete(&path).await.expect(403);
        let all = json!({"resource_type": "project"});
        let removed = two.bob.with(Method::DELETE, EVENTS, &[], Some(all)).await.expect(200);
        assert_eq!(removed.data()["deleted_count"], 0);
        assert_eq!(total(&two.of_project(&two.ann).await), total(&hers));
        // What belongs to Ann and to no project stays hers.
        let (of_users, answer) = ("resource_type=user", list(&two.bob, "limit=500").await);
        assert_eq!(total(&list(&two.bob, of_users).await), 1, "{}", answer.json);

        two.ann.delete(&permission).await.expect(200);
        assert_eq!(total(&two.of_project(&two.bob).await), 0);
        two.bob.get(&path).await.expect(404);
        two.bob.delete(&path).await.expect(404);
        two.task.abort();
    })
    .await;
}

/// The alias that the next event tells, of those that tell one.
async fn next(stream: &mut Stream) -> Value {
    stream.next().await.unwrap().2["event"]["payload"]["alias"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn sharing_and_its_end_hold_at_once_for_who_listens() {
    each_backend(|store| async move {
        let two = Two::new(&store).await;
        let token = two.bob.token.clone().unwrap();
        let mut stream = Stream::open(&two.app, &token, STREAM, None).await;
        two.rename("before").await;
        let permission = two.share().await;
        two.rename("seen").await;
        // What was not delivered yet when it was shared, the event of the permission, and what came then.
        while next(&mut stream).await != "seen" {}
        two.ann.delete(&permission).await.expect(200);
        two.rename("hidden").await;
        // His own come as before, so what is missing was not only late.
        let own = two.bob.post("/api/v1/projects", json!({"alias": "own"})).await.expect(201);
        let own = format!("/api/v1/projects/{}", own.data()["id"].as_str().unwrap());
        two.bob.patch(&own, json!({"alias": "mine"})).await.expect(200);
        let (last, _, data) = stream.next().await.unwrap();
        assert_eq!(data["event"]["payload"]["alias"], "mine", "{data}");

        // Shared again, he resumes before all of it: what is shared now is his to see.
        two.share().await;
        let mut again = Stream::open(&two.app, &token, STREAM, Some("0")).await;
        let mut aliases = Vec::new();
        while aliases.last() != Some(&json!("mine")) {
            aliases.push(next(&mut again).await);
        }
        assert!(aliases.contains(&json!("hidden")), "{aliases:?}");
        // Nothing twice where both ways lead to the same listener.
        let mut hers = Stream::open(&two.app, &two.ann.token.clone().unwrap(), STREAM, Some(&last)).await;
        two.rename("last").await;
        let mut seen = Vec::new();
        while seen.last() != Some(&json!("last")) {
            seen.push(next(&mut hers).await);
        }
        assert_eq!(seen.iter().filter(|alias| **alias == json!("last")).count(), 1);
        two.task.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_resumes_outside_of_the_record_is_told_what_is_missing() {
    each_backend(|store| async move {
        let two = Two::new(&store).await;
        let token = two.ann.token.clone().unwrap();
        for alias in ["one", "two"] {
            two.rename(alias).await;
        }
        let mut stream = Stream::open(&two.app, &token, STREAM, Some("0")).await;
        let (first, ..) = stream.next().await.unwrap();
        let (second, ..) = stream.next().await.unwrap();
        let (first, second): (i64, i64) = (first.parse().unwrap(), second.parse().unwrap());
        drop(stream);
        // All that there is grows old, and goes.
        assert!(event::delete_before(&store, i64::MAX, 1_000).await.unwrap() > 0);
        two.rename("three").await;
        let mut stream = Stream::open(&two.app, &token, STREAM, Some(&first.to_string())).await;
        let (_, name, gap) = stream.next().await.unwrap();
        assert_eq!((name.as_str(), &gap["reason"]), ("gap", &json!("retention")));
        assert!(gap["resumed_after"] == first && gap["lost_until"].as_i64().unwrap() >= second, "{gap}");
        assert_eq!(next(&mut stream).await, "three");
        // Who had seen all that was removed misses nothing, and is told nothing.
        let mut stream = Stream::open(&two.app, &token, STREAM, Some(&gap["lost_until"].to_string())).await;
        assert_eq!(next(&mut stream).await, "three");
        // A place that was never given out, as after a restore of an older backup: it goes on from now.
        let mut stream = Stream::open(&two.app, &token, STREAM, Some("1000000")).await;
        let (_, name, gap) = stream.next().await.unwrap();
        assert_eq!((name.as_str(), &gap["reason"]), ("gap", &json!("unknown")));
        two.rename("four").await;
        assert_eq!(next(&mut stream).await, "four");
        two.task.abort();
    })
    .await;
}
