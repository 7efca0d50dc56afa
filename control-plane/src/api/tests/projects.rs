//! `/projects`.

use crate::{
    api::testing::Client,
    app::testing::{app, config, with_config},
    store::testing::{each_backend, sqlite},
};
use hoody_protocol::id::ProjectId;
use serde_json::json;

const PROJECTS: &str = "/api/v1/projects";

#[tokio::test]
async fn a_project_lives() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (client, user) = Client::new_user(&app, "ann", false).await;
        let realm = "0123456789abcdef01234567";
        let body = json!({"alias": " Shop ", "color": "0af", "realm_ids": [realm], "max_containers": 3});
        let made = client.post("/api/v1/projects/", body).await.expect(201);
        let id = made.data()["id"].as_str().unwrap().to_owned();
        assert_eq!(made.data()["alias"], "Shop");
        assert_eq!(made.data()["color"], "#00AAFF");
        assert_eq!(made.data()["max_containers"], 3);
        assert_eq!(made.data()["realm_ids"], json!([realm]));
        assert_eq!(made.data()["user_id"], user.to_string());

        let path = format!("{PROJECTS}/{id}");
        assert_eq!(client.get(&path).await.expect(200).data(), made.data());
        let with = client.get(&format!("{path}/?include_permissions=true")).await.expect(200);
        assert_eq!(with.data()["permissions"], json!([]));

        let changed = client.put(&path, json!({"quotas": {"max_containers": 7}})).await.expect(200);
        assert_eq!((&changed.data()["alias"], &changed.data()["max_containers"]), (&json!("Shop"), &json!(7)));
        let changed = client.patch(&path, json!({"alias": "Store", "max_containers": null})).await.expect(200);
        assert_eq!((&changed.data()["alias"], &changed.data()["max_containers"]), (&json!("Store"), &json!(null)));
        assert_eq!(changed.data()["color"], "#00AAFF");

        assert_eq!(
            client.get(&format!("{PROJECTS}?realm_id={realm}")).await.expect(200).json["pagination"]["total"],
            1
        );
        let elsewhere = format!("{PROJECTS}?realm_id=ffffffffffffffffffffffff");
        assert_eq!(client.get(&elsewhere).await.expect(200).json["pagination"]["total"], 0);

        let gone = client.delete(&format!("{path}?include_deleted_items=true")).await.expect(200);
        assert_eq!(gone.data()["deleted"], json!({"aliases": 0, "containers": 0, "permissions": 0}));
        assert_eq!(gone.data()["deleted_items"], json!({"containers": []}));
        client.get(&path).await.expect(404);
        client.delete(&path).await.expect(404);
    })
    .await;
}

#[tokio::test]
async fn lists_come_in_pages_and_in_order() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (client, _) = Client::new_user(&app, "ann", false).await;
        for alias in ["b", "c", "a"] {
            client.post(PROJECTS, json!({"alias": alias})).await.expect(201);
        }
        let answer = client.get(&format!("{PROJECTS}/?sort_by=alias&sort_order=asc&limit=2&page=1")).await.expect(200);
        let aliases: Vec<_> =
            answer.data()["projects"].as_array().unwrap().iter().map(|p| p["alias"].clone()).collect();
        assert_eq!(aliases, ["a", "b"]);
        assert_eq!(answer.data()["pagination"], json!({"total": 3, "page": 1, "limit": 2, "totalPages": 2}));
        let top = json!({"page": 1, "per_page": 2, "limit": 2, "total": 3, "total_pages": 2, "has_more": true});
        assert_eq!(answer.json["pagination"], top);
        let last = client.get(&format!("{PROJECTS}?sort_by=alias&sort_order=asc&limit=2&page=2")).await.expect(200);
        assert_eq!(last.data()["projects"].as_array().unwrap().len(), 1);
        assert_eq!(last.json["pagination"]["has_more"], false);
        for (query, fields) in [
            ("sort_by=color", vec!["sort_by"]),
            ("sort_order=up", vec!["sort_order"]),
            ("page=0&limit=101", vec!["limit", "page"]),
            ("realm_id=x", vec!["realm_id"]),
        ] {
            client.get(&format!("{PROJECTS}?{query}")).await.expect_invalid(&fields);
        }
    })
    .await;
}

#[tokio::test]
async fn bad_input_is_named_and_changes_nothing() {
    let (_folder, store) = sqlite().await;
    let app = app(&store).await;
    let (client, _) = Client::new_user(&app, "ann", false).await;
    client.post(PROJECTS, json!({})).await.expect_invalid(&["alias"]);
    client.post(PROJECTS, json!({"alias": ""})).await.expect_invalid(&["alias"]);
    client.post(PROJECTS, json!({"alias": "a\u{0}b"})).await.expect_invalid(&["alias"]);
    client.post(PROJECTS, json!({"alias": 3})).await.expect_invalid(&["alias"]);
    client.post(PROJECTS, json!({"alias": "a", "color": "blue"})).await.expect_invalid(&["color"]);
    client.post(PROJECTS, json!({"alias": "a", "realm_ids": ["A123"]})).await.expect_invalid(&["realm_ids"]);
    client
        .post(PROJECTS, json!({"alias": "x".repeat(129), "max_containers": -1}))
        .await
        .expect_invalid(&["alias", "max_containers"]);
    client.post(PROJECTS, json!({"alias": "a", "max_containers": 1.5})).await.expect_invalid(&["max_containers"]);
    assert_eq!(client.get(PROJECTS).await.expect(200).json["pagination"]["total"], 0);

    for id in ["x", "0123456789ABCDEF01234567", "0123456789abcdef0123456", "%00"] {
        client.get(&format!("{PROJECTS}/{id}")).await.expect_invalid(&["id"]);
    }
    client.get(&format!("{PROJECTS}/{}", ProjectId::generate())).await.expect(404);
    let id = client.post(PROJECTS, json!({"alias": "a"})).await.expect(201).data()["id"].as_str().unwrap().to_owned();
    let path = format!("{PROJECTS}/{id}");
    client.get(&format!("{path}?include_permissions=maybe")).await.expect_invalid(&["include_permissions"]);
    client.put(&path, json!({"alias": ""})).await.expect_invalid(&["alias"]);
    client.post(PROJECTS, json!({"alias": "a"})).await.expect(409);
    client.post(PROJECTS, json!({"alias": "b"})).await.expect(201);
    client.put(&path, json!({"alias": "b"})).await.expect(409);
}

#[tokio::test]
async fn projects_of_others_do_not_exist() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (ann, _) = Client::new_user(&app, "ann", false).await;
        let (bob, _) = Client::new_user(&app, "bob", true).await;
        let made = ann.post(PROJECTS, json!({"alias": "a"})).await.expect(201);
        let path = format!("{PROJECTS}/{}", made.data()["id"].as_str().unwrap());
        bob.get(&path).await.expect(404);
        bob.put(&path, json!({"alias": "mine"})).await.expect(404);
        bob.delete(&path).await.expect(404);
        assert_eq!(bob.get(PROJECTS).await.expect(200).data()["projects"], json!([]));
        // Aliases are unique per user, not among users.
        bob.post(PROJECTS, json!({"alias": "a"})).await.expect(201);
        assert_eq!(ann.get(&path).await.expect(200).data(), made.data());
        Client::new(&app).get(&path).await.expect(401);
    })
    .await;
}

#[tokio::test]
async fn the_limit_holds_when_many_create_at_once() {
    each_backend(|store| async move {
        let mut config = config();
        config.project_max_per_user = 3;
        let app = with_config(&store, config).await;
        let (client, _) = Client::new_user(&app, "ann", false).await;
        let creating = (0..8).map(|n| {
            let client = client.clone();
            async move { client.post(PROJECTS, json!({"alias": format!("p{n}")})).await.status.as_u16() }
        });
        let mut statuses = futures::future::join_all(creating).await;
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 201, 201, 422, 422, 422, 422, 422]);
        assert_eq!(client.get(PROJECTS).await.expect(200).json["pagination"]["total"], 3);
    })
    .await;
}

#[tokio::test]
async fn a_realms_host_shows_only_its_projects() {
    let (_folder, store) = sqlite().await;
    let mut config = config();
    config.public_url = "https://api.example.org".to_owned();
    let app = with_config(&store, config).await;
    let (client, _) = Client::new_user(&app, "ann", false).await;
    let host = [("host", "0123456789abcdef01234567.api.example.org")];
    let outside = client.post(PROJECTS, json!({"alias": "outside"})).await.expect(201);
    let post = http::Method::POST;
    let inside = client.with(post, PROJECTS, &host, Some(json!({"alias": "inside"}))).await.expect(201);
    assert_eq!(inside.data()["realm_ids"], json!(["0123456789abcdef01234567"]));
    let listed = client.with(http::Method::GET, PROJECTS, &host, None).await.expect(200);
    assert_eq!(listed.json["pagination"]["total"], 1);
    let path = format!("{PROJECTS}/{}", outside.data()["id"].as_str().unwrap());
    client.with(http::Method::GET, &path, &host, None).await.expect(404);
    client.get(&path).await.expect(200);
}
