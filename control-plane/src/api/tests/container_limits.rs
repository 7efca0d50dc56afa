//! Limits of a container changed over the API: the server's capacity, the node's answer, what is refused.

use super::world::World;
use crate::{
    nodes::simulated::Faults,
    store::testing::{each_backend, sqlite},
};
use hoody_protocol::{
    container::Cause,
    id::ContainerId,
    stats::{ContainerStats, StatsBatch},
};
use serde_json::json;

#[tokio::test]
async fn limits_change_and_the_servers_capacity_follows() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let path = world.running().await;
        let specs = json!({"cpu_cores": 2.5, "memory_mb": 1024, "storage_mb": 8192, "network_mbit": 100});
        let changed = world.client.patch(&path, json!({"specs": specs})).await.expect(200);
        assert_eq!((&changed.data()["specs"], &changed.data()["status"]), (&specs, &json!("running")));
        assert_eq!(world.reserved().await, (1, 1024));
        // One of them alone; the others stay.
        let changed = world.client.put(&path, json!({"specs": {"memory_mb": 256}})).await.expect(200);
        assert_eq!(changed.data()["specs"]["memory_mb"], 256);
        assert_eq!(changed.data()["specs"]["cpu_cores"], 2.5);
        assert_eq!(world.reserved().await, (1, 256));
        // Nothing in it changes nothing.
        world.client.patch(&path, json!({"specs": {}})).await.expect(200);
        assert_eq!(world.reserved().await, (1, 256));
        world.client.delete(&path).await.expect(200);
        assert_eq!(world.reserved().await, (0, 0));
    })
    .await;
}

#[tokio::test]
async fn a_server_without_room_refuses_and_says_how_much_it_has() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        world.create(json!({"name": "neighbour", "specs": {"memory_mb": 3072, "cpu_cores": 1}})).await;
        let path = world.running().await;
        let more = json!({"name": "renamed", "specs": {"memory_mb": 1025, "cpu_cores": 3.5, "storage_mb": 4096}});
        let refused = world.client.patch(&path, more).await.expect(422);
        let details = refused.json["error"]["details"].as_object().unwrap();
        assert_eq!(details["specs.memory_mb"], "the server has room for 1024");
        assert_eq!(details["specs.cpu_cores"], "the server has room for 3");
        assert_eq!(details.len(), 2, "{details:?}");
        assert_eq!(world.reserved().await, (2, 3072 + 512));
        assert_eq!(world.client.get(&path).await.data()["name"], "web", "nothing of the update happened");
        world.client.patch(&path, json!({"specs": {"memory_mb": 1024, "cpu_cores": 3}})).await.expect(200);
        assert_eq!(world.reserved().await, (2, 4096));
    })
    .await;
}

#[tokio::test]
async fn concurrent_changes_never_over_commit() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let mut paths = Vec::new();
        for number in 0..4 {
            let specs = json!({"memory_mb": 512, "cpu_cores": 0.5, "storage_mb": 1024});
            paths.push(world.create(json!({"name": format!("web-{number}"), "specs": specs})).await);
        }
        let growths = paths.iter().map(|path| world.client.patch(path, json!({"specs": {"memory_mb": 1537}})));
        let statuses: Vec<u16> =
            futures::future::join_all(growths).await.iter().map(|answer| answer.status.as_u16()).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
        assert_eq!(world.reserved().await, (4, 3 * 512 + 1537));
    })
    .await;
}

#[tokio::test]
async fn bad_limits_are_refused_with_every_field_named() {
    let (_folder, store) = sqlite().await;
    let mut config = crate::app::testing::config();
    config.default_limits.network_mbit = Some(200);
    let world = World::with_config(&store, config).await;
    let path = world.create(json!({"name": "web"})).await;
    assert_eq!(world.client.get(&path).await.data()["specs"]["network_mbit"], 200);
    let all = json!({"cpu_cores": 0, "memory_mb": 1, "storage_mb": u64::MAX, "network_mbit": 201});
    let fields = ["specs.cpu_cores", "specs.memory_mb", "specs.network_mbit", "specs.storage_mb"];
    world.client.patch(&path, json!({"specs": all})).await.expect_invalid(&fields);
    world.try_create(json!({"name": "other", "specs": all})).await.expect_invalid(&fields);
    world.client.patch(&path, json!({"specs": {"memory_mb": "much"}})).await.expect_invalid(&["specs.memory_mb"]);
    world.client.patch(&path, json!({"specs": {"network_mbit": 0}})).await.expect_invalid(&["specs.network_mbit"]);
    world.client.patch(&path, json!({"specs": {"network_mbit": 5}})).await.expect(200);
    // Back up to what the operator gives everybody.
    world.client.patch(&path, json!({"specs": {"network_mbit": 200}})).await.expect(200);
    let (stranger, _) = crate::api::testing::Client::new_user(&world.app, "eve", false).await;
    stranger.patch(&path, json!({"specs": {"memory_mb": 64}})).await.expect(404);
}

#[tokio::test]
async fn the_nodes_refusal_and_processes_out_of_memory_are_shown() {
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    let path = world.running().await;
    let cause = Cause::new("memory_in_use", "the container uses 300 MiB of memory");
    world.node.set(Faults { limits: Some(cause), ..Faults::default() }).await;
    let changed = world.client.patch(&path, json!({"specs": {"memory_mb": 64}})).await.expect(200);
    assert_eq!(changed.data()["status"], "running");
    assert_eq!(changed.data()["warnings"][0]["type"], "limits_not_in_force");
    assert_eq!(world.reserved().await, (1, 64));
    world.node.set(Faults { oom_kills: 2, ..Faults::default() }).await;
    let changed = world.client.patch(&path, json!({"specs": {"memory_mb": 65}})).await.expect(200);
    assert_eq!(changed.data()["warnings"][0]["type"], "processes_out_of_memory");
    let logs = world.client.get(&format!("{path}/status-logs?sort_order=desc")).await.expect(200);
    let last = &logs.data()["logs"][0];
    assert_eq!((&last["from_status"], &last["to_status"]), (&json!("running"), &json!("running")));
    assert_eq!(last["metadata"]["cause"]["code"], "out_of_memory", "{last}");
}

#[tokio::test]
async fn a_disk_is_not_made_smaller_than_what_is_on_it() {
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    let path = world.running().await;
    let id: ContainerId = path.rsplit('/').next().unwrap().parse().unwrap();
    let used = ContainerStats {
        container: id,
        cpu_usage_ns: None,
        cpu_percent: None,
        memory_bytes: None,
        memory_peak_bytes: None,
        swap_bytes: None,
        disk_bytes: Some(1000 << 20),
        processes: None,
        network: None,
        rules: Default::default(),
        ramdisk: None,
    };
    let batch = StatsBatch { at: 1, node: Default::default(), containers: vec![used].try_into().unwrap() };
    world.app.nodes.measurements.record(world.server, batch, |_| true);
    let refused = world.client.patch(&path, json!({"specs": {"storage_mb": 999}})).await.expect(422);
    assert_eq!(refused.json["error"]["details"]["specs.storage_mb"], "must be at least 1000");
    world.client.patch(&path, json!({"specs": {"storage_mb": 1000}})).await.expect(200);
}
