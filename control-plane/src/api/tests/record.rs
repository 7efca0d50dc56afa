//! Activity and notifications over the API.

use crate::{api::testing::Client, app::testing::app, store::testing::each_backend};
use serde_json::{Value, json};
use std::time::Duration;

const ACTIVITY: &str = "/api/v1/users/auth/activity";
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn requests_of_a_user_are_logged_without_what_is_secret_in_them() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let task = tokio::spawn(app.activity.clone().run(store.clone()));
        let (client, _) = Client::new_user(&app, "ann", false).await;
        let (other, _) = Client::new_user(&app, "bob", false).await;
        client.get("/api/v1/projects?page=1&token=hush").await.expect(200);
        client.post("/api/v1/projects", json!({"alias": ""})).await.expect(400);
        client.get("/api/v1/containers/0123456789abcdef01234567").await.expect(404);
        let until_there = async {
            loop {
                let listed = client.get(&format!("{ACTIVITY}?method=GET&errors_only=true")).await.expect(200);
                if listed.data().as_array().is_some_and(|rows| !rows.is_empty()) {
                    return listed;
                }
                tokio::task::yield_now().await;
            }
        };
        let listed = tokio::time::timeout(DEADLINE, until_there).await.expect("the log is written");
        let row = &listed.data()[0];
        assert_eq!((&row["status_code"], &row["method"]), (&json!(404), &json!("GET")));
        assert_eq!(listed.json["metadata"]["page"], 1);
        let failed = client.get(&format!("{ACTIVITY}?min_status=400&max_status=403&limit=1")).await.expect(200);
        assert_eq!(
            (&failed.data()[0]["path"], &failed.json["metadata"]["total"]),
            (&json!("/api/v1/projects"), &json!(1))
        );
        let all = client.get(&format!("{ACTIVITY}?limit=100")).await.expect(200);
        assert!(!all.json.to_string().contains("hush"), "queries are not kept");
        assert_eq!(other.get(&format!("{ACTIVITY}?min_status=404")).await.expect(200).data(), &json!([]));
        let bad = "start_date=x&end_date=y&errors_only=maybe&min_status=9&max_status=z&method=HEAD&realm_id=r";
        client.get(&format!("{ACTIVITY}?{bad}")).await.expect_invalid(&[
            "end_date",
            "errors_only",
            "max_status",
            "method",
            "min_status",
            "realm_id",
            "start_date",
        ]);
        let stats = client.get(&format!("{ACTIVITY}/stats")).await.expect(200);
        assert!(stats.data()["total_records"].as_i64().unwrap() >= 3, "{}", stats.json);
        assert_eq!(stats.data()["retention_days"], 90);
        // What waits when the process is told to stop is written.
        client.get("/api/v1/projects?last=1").await.expect(200);
        app.activity.stop();
        tokio::time::timeout(DEADLINE, task).await.expect("it ends").unwrap();
        // The last two can have the same time.
        let newest = client.get(&format!("{ACTIVITY}?limit=2&method=GET")).await.expect(200);
        let paths: Vec<_> = newest.data().as_array().unwrap().iter().map(|line| line["path"].clone()).collect();
        assert!(paths.contains(&"/api/v1/projects".into()), "{paths:?}");
    })
    .await;
}

#[tokio::test]
async fn a_log_that_is_not_written_keeps_nobody_waiting() {
    let (_folder, store) = crate::store::testing::sqlite().await;
    let app = app(&store).await;
    let (client, _) = Client::new_user(&app, "ann", false).await;
    // Nobody takes lines; more than the queue holds.
    for _ in 0..5_000 {
        client.get("/api/v1/notifications/public").await;
    }
    assert_eq!(client.get(ACTIVITY).await.expect(200).data(), &json!([]));
}

#[tokio::test]
async fn everybody_is_shown_what_is_for_them_and_reads_it_once() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (admin, _) = Client::new_user(&app, "root", true).await;
        let (ann, ann_id) = Client::new_user(&app, "ann", false).await;
        let (bob, _) = Client::new_user(&app, "bob", false).await;
        let path = "/api/v1/admin/notifications";
        let write = async |body: Value| admin.post(path, body).await;
        let public = json!({"title": "Maintenance", "message": "Soon", "type": "MAINTENANCE", "is_public": true});
        write(public).await.expect(201);
        write(json!({"title": "Users", "message": "All", "is_global": true})).await.expect(201);
        let target =
            json!({"title": "Ann", "message": "Only", "severity": "WARNING", "target_user_ids": [ann_id.to_string()]});
        let made = write(target).await.expect(201);
        ann.post(path, json!({"title": "x", "message": "y", "is_public": true})).await.expect(403);
        write(json!({"title": "", "message": "", "type": "x", "severity": "y", "expires_at": "2020-01-01"}))
            .await
            .expect_invalid(&["expires_at", "message", "severity", "target_user_ids", "title", "type"]);
        let nobody = json!({"title": "x", "message": "y", "target_user_ids": ["0123456789abcdef01234567"]});
        write(nobody).await.expect_invalid(&["target_user_ids"]);

        let titles = async |client: &Client, path: &str| -> Vec<String> {
            let answer = client.get(path).await.expect(200);
            let mut titles: Vec<String> =
                answer.data().as_array().unwrap().iter().map(|n| n["title"].as_str().unwrap().to_owned()).collect();
            titles.sort();
            titles
        };
        assert_eq!(titles(&Client::new(&app), "/api/v1/notifications/public").await, ["Maintenance"]);
        assert_eq!(titles(&bob, "/api/v1/notifications/").await, ["Maintenance", "Users"]);
        assert_eq!(titles(&ann, "/api/v1/notifications").await, ["Ann", "Maintenance", "Users"]);

        let id = made.data()["id"].as_str().unwrap();
        let read = format!("/api/v1/notifications/{id}/read");
        bob.put(&read, json!({})).await.expect(404);
        let first = ann.patch(&read, json!({})).await.expect(200);
        let again = ann.put(&read, json!({})).await.expect(200);
        assert_eq!(first.data()["read_at"], again.data()["read_at"]);
        assert_eq!(ann.put("/api/v1/notifications/read-all", json!({})).await.expect(200).data()["count"], 2);
        assert_eq!(ann.patch("/api/v1/notifications/read-all", json!({})).await.expect(200).data()["count"], 0);
        let listed = ann.get("/api/v1/notifications").await.expect(200);
        assert!(listed.data().as_array().unwrap().iter().all(|n| n["is_read"] == true && n["read_at"].is_string()));
        let events = ann.get("/api/v1/events?resource_type=notification").await.expect(200);
        assert_eq!(events.data()["pagination"]["total"], 4, "one written for her, three read");

        admin.delete(&format!("{path}/{id}")).await.expect(200);
        admin.delete(&format!("{path}/{id}")).await.expect(404);
        assert_eq!(titles(&ann, "/api/v1/notifications").await, ["Maintenance", "Users"]);
        assert_eq!(admin.get(path).await.expect(200).data()["pagination"]["total"], 2);
    })
    .await;
}
