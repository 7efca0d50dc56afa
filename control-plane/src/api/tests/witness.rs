//! Whoever holds something open with the rights of somebody is told when these may have changed.

use super::events::fed;
use crate::{
    api::testing::{Answer, Client},
    app::App,
    event::{Event, ResourceKind},
    live::{Next, Subscription},
    store::{event::Filter, testing::sqlite},
};
use axum::http::Method;
use futures::FutureExt;
use hoody_protocol::id::UserId;
use serde_json::json;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(20);

/// The next event of the subscription for which this holds.
async fn until(app: &App, subscription: &mut Subscription, is: impl Fn(&Event) -> bool) {
    let found = async {
        loop {
            match subscription.next(&app.store).await.unwrap() {
                Next::Event(_, event) if is(&event) => return,
                Next::Event(..) => {}
                end => panic!("{end:?}"),
            }
        }
    };
    tokio::time::timeout(DEADLINE, found).await.expect("the event comes");
}

/// Whatever may take somebody's rights away is told to the connections of the one and of those who are in what is the
/// other's: they need not wait for their next look.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_watches_rights_is_told_of_each_change_of_them() {
    let (_folder, store) = sqlite().await;
    let (app, task) = fed(&store).await;
    let (owner, owner_id) = Client::new_user(&app, "ann", false).await;
    let (member, member_id) = Client::new_user(&app, "bob", false).await;
    let (operator, _) = Client::new_user(&app, "root", true).await;
    let id = |answer: Answer| answer.data()["id"].as_str().unwrap().to_owned();
    let project = id(owner.post("/api/v1/projects", json!({"alias": "shared"})).await.expect(201));
    let permissions = format!("/api/v1/projects/{project}/permissions");
    let given = owner.post(&permissions, json!({"user_id": member_id, "permission_level": "edit"})).await;
    let given = given.expect(201);
    let token = json!({"alias": "one", "permissions": {"containers": {"read": true}}});
    let token = id(member.post("/api/v1/auth/tokens", token).await.expect(201));
    let (permission, token, user, logout) = (
        format!("{permissions}/{}", id(given)),
        format!("/api/v1/auth/tokens/{token}"),
        format!("/api/v1/users/{member_id}"),
        "/api/v1/users/auth/logout".to_owned(),
    );
    let changes = [
        ("a permission", owner_id, ResourceKind::Project, &owner, Method::DELETE, permission, None),
        ("a token", member_id, ResourceKind::AuthToken, &member, Method::DELETE, token, None),
        ("a ban", member_id, ResourceKind::User, &operator, Method::PUT, user, Some(json!({"is_banned": true}))),
        // Sessions that end.
        ("a logout", owner_id, ResourceKind::ActivityLog, &owner, Method::POST, logout, None),
    ];
    for (number, (what, whose, resource, client, method, path, body)) in changes.into_iter().enumerate() {
        let record = Filter { owner: Some(whose), ..Filter::default() };
        let mut subscription = app.live.subscribe(record, None).unwrap();
        // All that came before has been handed out when this has.
        let marker = format!("marker-{number}");
        let marking = if whose == owner_id { &owner } else { &member };
        marking.post("/api/v1/projects", json!({"alias": marker})).await.expect(201);
        until(&app, &mut subscription, |event| event.payload["alias"] == marker.as_str()).await;
        let watching = app.live.witness(member_id, owner_id);
        let elsewhere = app.live.witness(UserId::generate(), UserId::generate());
        client.with(method, &path, &[], body).await.expect(200);
        until(&app, &mut subscription, |event| event.kind.resource() == resource).await;
        assert!(watching.changed().now_or_never().is_some(), "{what} was not told");
        assert!(elsewhere.changed().now_or_never().is_none(), "{what} was told to others");
    }
    task.abort();
}
