//! `/containers/{id}/firewall` and `/containers/{id}/env`.

use super::world::World;
use crate::{
    nodes::simulated::Faults,
    store::testing::{each_backend, sqlite},
};
use hoody_protocol::{
    container::Cause,
    firewall::RuleCounter,
    id::ContainerId,
    stats::{ContainerStats, NodeStats, StatsBatch},
};
use http::Method;
use serde_json::{Value, json};

async fn remove(world: &World, path: &str, body: Value) -> crate::api::testing::Answer {
    world.client.with(Method::DELETE, path, &[], Some(body)).await
}

#[tokio::test]
async fn rules_are_added_toggled_listed_and_removed() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let path = world.running().await;
        let id: ContainerId = path.rsplit('/').next().unwrap().parse().unwrap();
        let (ingress, egress) = (format!("{path}/firewall/ingress"), format!("{path}/firewall/egress"));
        let rule =
            json!({"protocol": "tcp", "port": 80, "source": "10.1.2.3/8", "action": "drop", "description": "web"});
        let added = world.client.post(&ingress, rule.clone()).await.expect(200);
        assert_eq!(
            added.data(),
            &json!({
                "action": "drop", "protocol": "tcp", "state": "enabled", "description": "web", "source": "10.1.2.3/8",
                "destination_port": "80", "duplicate": false,
            })
        );
        // The answer came after the node had it.
        let in_force = |world: &World| world.node.firewall.lock().unwrap()[&id].clone();
        assert_eq!(in_force(&world).ingress.len(), 1);
        let again = world.client.post(&ingress, rule).await.expect(200);
        assert_eq!(
            (&again.data()["duplicate"], &again.data()["duplicate_of"]),
            (&json!(true), &json!({"direction": "ingress", "index": 0}))
        );
        let range = json!({"protocol": "udp", "port_range": "8000-8100, 53", "action": "allow"});
        world.client.post(&egress, range).await.expect(200);

        let listed = world.client.get(&format!("{path}/firewall/rules")).await.expect(200);
        assert_eq!((&listed.data()["rule_count"], &listed.data()["in_force"]), (&json!(2), &json!(true)));
        assert_eq!(listed.data()["ingress"][0]["packets"], json!(null));
        assert_eq!(listed.data()["egress"][0]["destination_port"], "8000-8100, 53");
        let counter = RuleCounter { rule: in_force(&world).ingress[0].id, packets: 7, bytes: 420 };
        world.app.nodes.measurements.record(world.server, measured(id, counter), |_| true);
        let listed = world.client.get(&format!("{path}/firewall/rules")).await.expect(200);
        assert_eq!(
            (&listed.data()["ingress"][0]["packets"], &listed.data()["ingress"][0]["bytes"]),
            (&json!(7), &json!(420))
        );

        let toggled = world.client.patch(&ingress, json!({"port": "80", "state": "disabled"})).await.expect(200);
        assert_eq!(
            (&toggled.data()["new_state"], &toggled.data()["updated"]["state"]),
            (&json!("disabled"), &json!("disabled"))
        );
        let now = in_force(&world).ingress[0].clone();
        assert!(!now.enabled && now.id == counter.rule, "a rule keeps its identity, and with it its counters");
        world.client.patch(&ingress, json!({"port": 81, "state": "disabled"})).await.expect(404);
        remove(&world, &ingress, json!({"port": 81})).await.expect(404);
        let removed = remove(&world, &ingress, json!({"protocol": "tcp"})).await.expect(200);
        assert_eq!(
            (&removed.data()["removed_count"], &removed.data()["removed"][0]["source"]),
            (&json!(1), &json!("10.1.2.3/8"))
        );
        assert!(in_force(&world).ingress.is_empty());
        assert_eq!(remove(&world, &ingress, json!({"all": true})).await.expect(200).data()["removed_count"], 0);
        let reset = world.client.post(&format!("{path}/firewall/reset"), json!({})).await.expect(200);
        assert_eq!(reset.data()["rules"], json!({"ingress": [], "egress": []}));
        assert!(in_force(&world).egress.is_empty());
    })
    .await;
}

fn measured(container: ContainerId, counter: RuleCounter) -> StatsBatch {
    let stats = ContainerStats {
        container,
        cpu_usage_ns: Some(5),
        cpu_percent: Some(50.0),
        memory_bytes: Some(128 << 20),
        memory_peak_bytes: None,
        swap_bytes: None,
        disk_bytes: Some(9),
        processes: Some(3),
        network: None,
        rules: vec![counter].try_into().unwrap(),
        ramdisk: None,
    };
    StatsBatch { at: 1, node: NodeStats::default(), containers: vec![stats].try_into().unwrap() }
}

#[tokio::test]
async fn what_cannot_be_expressed_is_refused_and_changes_nothing() {
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    let path = world.running().await;
    let (ingress, egress) = (format!("{path}/firewall/ingress"), format!("{path}/firewall/egress"));
    let rule = |extra: Value| {
        let mut rule = json!({"action": "allow", "protocol": "tcp"});
        rule.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        rule
    };
    for (extra, field) in [
        (json!({"port": 0}), "port"),
        (json!({"port": 65536}), "port"),
        (json!({"port": -1}), "port"),
        (json!({"port": "http"}), "port"),
        (json!({"source": "10.0.0.0/33"}), "source"),
        (json!({"source": "not-a-cidr"}), "source"),
        (json!({"source": "2001:db8::/32"}), "source"),
        (json!({"action": "deny"}), "action"),
        (json!({"protocol": "icmp6"}), "protocol"),
        (json!({"protocol": "icmp4", "port": 80}), "port"),
        (json!({"icmp_type": 8}), "icmp_type"),
        (json!({"description": "x".repeat(256)}), "description"),
        (json!({"state": true}), "state"),
    ] {
        world.client.post(&ingress, rule(extra)).await.expect_invalid(&[field]);
    }
    let named = json!({"destination": "api.example.com"});
    let added = world.client.post(&egress, rule(named.clone())).await.expect(200);
    assert_eq!(added.data()["destination"], "api.example.com");
    let again = world.client.post(&egress, rule(json!({"destination": "API.example.com."}))).await.expect(200);
    assert_eq!(again.data()["duplicate"], true, "the same name");
    remove(&world, &egress, named).await.expect(200);
    world.client.patch(&ingress, json!({"port": 80})).await.expect_invalid(&["state"]);
    remove(&world, &ingress, json!({})).await.expect_invalid(&["all"]);
    let listed = world.client.get(&format!("{path}/firewall/rules")).await.expect(200);
    assert_eq!(listed.data()["rule_count"], 0);
    for port in 1..=128 {
        let direction = if port % 2 == 0 { &ingress } else { &egress };
        world.client.post(direction, rule(json!({"port": port}))).await.expect(200);
    }
    world.client.post(&ingress, rule(json!({"port": 129}))).await.expect(409);
}

#[tokio::test]
async fn rules_that_the_node_cannot_enforce_are_reported_as_such() {
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    let path = world.running().await;
    world
        .node
        .set(Faults { firewall: Some(Cause::new("nft_refused", "the kernel refused it")), ..Faults::default() })
        .await;
    let rule = json!({"action": "drop", "protocol": "tcp", "port": 80});
    let failed = world.client.post(&format!("{path}/firewall/ingress"), rule).await.expect(502);
    assert_eq!(failed.json["error"]["details"]["cause"], "nft_refused");
    let listed = world.client.get(&format!("{path}/firewall/rules")).await.expect(200);
    assert_eq!((&listed.data()["in_force"], &listed.data()["error"]["code"]), (&json!(false), &json!("nft_refused")));
    assert_eq!(world.status(&path).await, "running");
}

#[tokio::test]
async fn the_environment_is_merged_and_checked() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let path = world.running().await;
        let env = format!("{path}/env");
        let set = world.client.put(&env, json!({"A": "1", "B": "2"})).await.expect(200);
        assert_eq!(set.data(), &json!({"environment_vars": {"A": "1", "B": "2"}, "synced": true}));
        world.client.put(&env, json!({"B": "3"})).await.expect(200);
        let big = "x".repeat(32768);
        world.client.put(&format!("{env}/C"), json!({"value": big})).await.expect(200);
        world.client.put(&format!("{env}/D"), json!({"value": format!("{big}x")})).await.expect_invalid(&["value"]);
        world.client.put(&format!("{env}/HOODY_X"), json!({"value": "x"})).await.expect_invalid(&["key"]);
        world.client.put(&format!("{env}/a-b"), json!({"value": "x"})).await.expect_invalid(&["key"]);
        world.client.put(&format!("{env}/D"), json!({})).await.expect_invalid(&["value"]);
        world
            .client
            .put(&env, json!({"OK": "1", "HOODY_A": "1", "N": "a\u{0}b"}))
            .await
            .expect_invalid(&["HOODY_A", "N"]);
        world.client.put(&env, json!({"BIG": "x".repeat(4097)})).await.expect_invalid(&["BIG"]);
        world.client.delete(&format!("{env}/C")).await.expect(200);
        world.client.delete(&format!("{env}/C")).await.expect(404);
        world.client.delete(&format!("{env}/HOODY_A")).await.expect_invalid(&["key"]);
        let listed = world.client.get(&env).await.expect(200);
        assert_eq!(listed.data(), &json!({"environment_vars": {"A": "1", "B": "3"}}));
    })
    .await;
}

#[tokio::test]
async fn stats_are_the_last_measurement() {
    let (_folder, store) = sqlite().await;
    let world = World::new(&store).await;
    let path = world.running().await;
    let id: ContainerId = path.rsplit('/').next().unwrap().parse().unwrap();
    let counter = RuleCounter { rule: hoody_protocol::id::RuleId::generate(), packets: 0, bytes: 0 };
    world.app.nodes.measurements.record(world.server, measured(id, counter), |_| true);
    let stats = world.client.get(&format!("{path}/stats")).await.expect(200);
    assert_eq!((&stats.data()["status"], &stats.data()["status_code"]), (&json!("running"), &json!(103)));
    assert_eq!(stats.data()["cpu"]["usage_percent"], 50.0);
    assert_eq!(stats.data()["memory"]["usage_percent"], 25.0);
    assert_eq!((&stats.data()["processes"], &stats.data()["disk"]["root"]["usage"]), (&json!(3), &json!(9)));
    assert!(stats.data()["processing_time"].as_str().unwrap().ends_with("ms"));
    world.client.post(&format!("{path}/stop"), json!({})).await.expect(200);
    let stats = world.client.get(&format!("{path}/stats")).await.expect(200);
    assert_eq!((&stats.data()["memory"], &stats.data()["status_code"]), (&json!(null), &json!(102)));
}
