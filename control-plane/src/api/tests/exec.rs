//! Processes, terminals and logs as far as no node is needed: what is refused, and how. The rest is in the black-box
//! suite `exec`.

use super::world::World;
use crate::store::testing::{each_backend, sqlite};
use http::StatusCode;
use serde_json::json;

#[tokio::test]
async fn what_cannot_be_run_is_named_before_anybody_is_asked() {
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    let exec = format!("{}/exec", world.running().await);
    world.client.post(&exec, json!({})).await.expect_invalid(&["argv"]);
    world.client.post(&exec, json!({"argv": []})).await.expect_invalid(&["argv"]);
    let many = json!({
        "argv": ["a\u{0}"], "env": {"A=B": "x"}, "cwd": "tmp", "user": "../x", "timeout": 601, "max_output_bytes": 1 << 30
    });
    let all = ["argv", "cwd", "env", "max_output_bytes", "timeout", "user"];
    world.client.post(&exec, many).await.expect_invalid(&all);
    let both = json!({"argv": ["cat"], "stdin": "a", "stdin_base64": "YQ=="});
    world.client.post(&exec, both).await.expect_invalid(&["stdin_base64"]);
    let bytes = json!({"argv": ["cat"], "stdin_base64": "?"});
    world.client.post(&exec, bytes).await.expect_invalid(&["stdin_base64"]);
    let terminal = exec.replace("/exec", "/terminal");
    world.client.get(&terminal).await.expect_invalid(&["Upgrade"]);
    world.client.get(&format!("{terminal}?after=1&rows=x")).await.expect_invalid(&["after", "rows"]);
    let logs = exec.replace("/exec", "/logs");
    world.client.get(&format!("{logs}?tail=x&stream=in")).await.expect_invalid(&["stream", "tail"]);
}

#[tokio::test]
async fn who_cannot_be_reached_is_told_apart_and_nothing_is_written_down() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let path = world.running().await;
        let (exec, command) = (format!("{path}/exec"), json!({"argv": ["true"]}));
        // The node of this test is connected, but not to this process.
        for call in ["logs", "terminals"] {
            let answer = world.client.get(&format!("{path}/{call}")).await;
            assert_eq!((answer.status, &answer.json["code"]), (StatusCode::MISDIRECTED_REQUEST, &json!("MISDIRECTED")));
        }
        world.client.post(&exec, command.clone()).await.expect(421);
        world.client.post(&format!("{path}/pause"), json!({})).await.expect(200);
        world.client.post(&exec, command.clone()).await.expect(409);
        world.client.post(&format!("{path}/stop"), json!({})).await.expect(200);
        world.client.post(&exec, command.clone()).await.expect(409);
        world.client.post(&format!("{path}/start"), json!({})).await.expect(200);
        world.offline().await;
        world.client.post(&exec, command).await.expect(503);
        world.client.get(&format!("{path}/logs")).await.expect(503);
        let events = world.client.get("/api/v1/events?event_type=activity.logged&limit=500").await.expect(200);
        let all = events.data()["events"].as_array().unwrap();
        assert!(all.iter().all(|event| event["payload"]["action"] != "container.exec"), "{}", events.json);
    })
    .await;
}
