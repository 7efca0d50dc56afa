//! `/containers/{id}/network`.

use super::world::World;
use crate::{
    app::testing,
    nodes::simulated::Faults,
    service::network,
    store::{
        Store, container, sealed,
        testing::{each_backend, sqlite},
    },
};
use hoody_protocol::{container::Cause, egress::EgressSpec, id::ContainerId};
use serde_json::{Value, json};
use std::time::Duration;

const PASSWORD: &str = "correct-horse-battery";

/// A world whose operator lets upstreams be in 10.9.0.0/16.
async fn world(store: &Store) -> World {
    let mut config = testing::config();
    config.desired_state_deadline = Duration::from_secs(20);
    config.egress_allowed_networks = vec!["10.9.0.0/16".parse().unwrap()];
    World::with_config(store, config).await
}

fn id_of(path: &str) -> ContainerId {
    path.rsplit('/').next().unwrap().parse().unwrap()
}

/// What the node is sent.
async fn sent(world: &World, path: &str) -> Option<EgressSpec> {
    let row = container::get(&world.app.store, id_of(path)).await.unwrap().unwrap();
    let mut spec = row.spec;
    network::complete(&world.app.keys, &mut spec, &row.egress_credentials).unwrap();
    spec.egress
}

fn credentials(egress: Option<EgressSpec>) -> Option<(String, String)> {
    let egress = egress?;
    egress.credentials().map(|given| (given.username.to_string(), given.password.to_string()))
}

#[tokio::test]
async fn a_configuration_is_made_started_stopped_and_removed() {
    each_backend(|store| async move {
        let world = world(&store).await;
        let path = world.running().await;
        let network = format!("{path}/network");
        let none = world.client.get(&network).await.expect(200);
        assert_eq!(
            (&none.data()["configured"], &none.data()["remote_status"]["is_running"]),
            (&json!(false), &json!(false))
        );
        world.client.post(&format!("{network}/start"), json!({})).await.expect(409);

        let input = json!({"type": "socks5", "proxy": format!("socks5://ann:{PASSWORD}@10.9.1.1:1080"),
            "dns_servers": ["9.9.9.9"], "country": "DE", "city": "Berlin", "comment": "exit"});
        let made = world.client.put(&network, input).await.expect(200);
        let data = made.data();
        assert_eq!((&data["type"], &data["proxy"]), (&json!("socks5"), &json!("socks5://10.9.1.1:1080")));
        assert_eq!((&data["status"], &data["credentials_configured"]), (&json!("configured"), &json!(true)));
        assert_eq!((&data["dns_servers"], &data["city"]), (&json!(["9.9.9.9"]), &json!("Berlin")));
        assert_eq!(sent(&world, &path).await, None, "not in force before it is started");

        let started = world.client.post(&format!("{network}/start/"), json!({})).await.expect(200);
        assert_eq!((&started.data()["status"], &started.data()["is_running"]), (&json!("running"), &json!(true)));
        assert_eq!(credentials(sent(&world, &path).await), Some(("ann".to_owned(), PASSWORD.to_owned())));
        let read = world.client.get(&network).await.expect(200);
        assert_eq!((&read.data()["status"], &read.data()["configured"]), (&json!("running"), &json!(true)));
        assert!(read.data()["last_status_check"].is_string() && read.data()["remote_status"]["last_check"].is_string());

        // One that is in force is replaced at once.
        let blocked = world.client.patch(&network, json!({"type": "block"})).await.expect(200);
        assert_eq!(
            (&blocked.data()["status"], &blocked.data()["credentials_configured"]),
            (&json!("running"), &json!(false))
        );
        assert_eq!(sent(&world, &path).await, Some(EgressSpec::Block));
        assert_eq!(blocked.data()["city"], "Berlin");

        let stopped = world.client.post(&format!("{network}/stop"), json!({})).await.expect(200);
        assert_eq!((&stopped.data()["status"], &stopped.data()["is_running"]), (&json!("stopped"), &json!(false)));
        assert_eq!(sent(&world, &path).await, None);
        world.client.post(&format!("{network}/start"), json!({})).await.expect(200);
        let removed = world.client.delete(&network).await.expect(200);
        assert_eq!(removed.data(), &Value::Null);
        assert_eq!(sent(&world, &path).await, None);
        assert_eq!(world.client.get(&network).await.data()["configured"], json!(false));
        let events = world.client.get("/api/v1/events?event_type=container.resource_updated").await.expect(200);
        assert!(events.json.to_string().contains("\"network\""), "{}", events.json);
    })
    .await;
}

#[tokio::test]
async fn credentials_are_kept_for_their_endpoint_and_shown_nowhere() {
    each_backend(|store| async move {
        let world = world(&store).await;
        let path = world.running().await;
        let network = format!("{path}/network");
        let given = Some(("ann".to_owned(), PASSWORD.to_owned()));
        let put = async |input: Value| world.client.put(&network, input).await.expect(200);
        put(json!({"type": "http", "proxy": "10.9.1.1:3128", "username": "ann", "password": PASSWORD})).await;
        world.client.post(&format!("{network}/start"), json!({})).await.expect(200);
        for same in [
            json!({"type": "http"}),
            json!({"type": "http", "proxy": "10.9.1.1:3128"}),
            json!({"mode": "proxy", "comment": "still the same"}),
            json!({"proxy": {"enabled": true}, "blocking": {"enabled": false}}),
        ] {
            put(same.clone()).await;
            assert_eq!(credentials(sent(&world, &path).await), given, "{same}");
        }
        let changed = format!("ann:{PASSWORD}-2");
        put(json!({"type": "http", "proxy": format!("http://{changed}@10.9.1.1:3128")})).await;
        assert_eq!(credentials(sent(&world, &path).await).unwrap().1, format!("{PASSWORD}-2"));
        for other in [
            json!({"type": "http", "proxy": "10.9.1.1:3129"}),
            json!({"type": "http", "proxy": "10.9.1.2:3128"}),
            json!({"type": "https", "proxy": "10.9.1.1:3128"}),
            json!({"type": "block"}),
        ] {
            put(json!({"type": "http", "proxy": "10.9.1.1:3128", "username": "ann", "password": PASSWORD})).await;
            put(other.clone()).await;
            assert_eq!(credentials(sent(&world, &path).await), None, "{other}");
        }
        put(json!({"type": "http", "proxy": "10.9.1.1:3128", "username": "ann", "password": PASSWORD})).await;
        let mut answers = String::new();
        for path in [
            &network,
            &path,
            &format!("{path}/status-logs"),
            &"/api/v1/events".to_owned(),
            &"/api/v1/activity".to_owned(),
        ] {
            answers += &world.client.get(path).await.json.to_string();
        }
        assert!(answers.contains("10.9.1.1:3128") && !answers.contains(PASSWORD), "{answers}");
        // Nor does it stand anywhere in the row but sealed, where the master key's rotation finds it.
        let sql =
            format!("SELECT spec || attributes || COALESCE(report, '') FROM containers WHERE id = '{}'", id_of(&path));
        let text: String = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(store.reader()).await.unwrap();
        assert!(!text.contains(PASSWORD));
        let mut tx = store.begin().await.unwrap();
        let found = sealed::all(&mut tx).await.unwrap();
        drop(tx);
        let secret = found.iter().find(|secret| secret.id == id_of(&path).to_string()).expect("a sealed column");
        let opened = world.app.keys.open_sealed(&secret.purpose, &secret.id, &secret.sealed).unwrap();
        assert!(String::from_utf8_lossy(&opened).contains(PASSWORD));
        world.client.delete(&network).await.expect(200);
        let row = container::get(&store, id_of(&path)).await.unwrap().unwrap();
        assert_eq!(row.egress_credentials, "");
    })
    .await;
}

#[tokio::test]
async fn every_bad_field_is_named() {
    let (_folder, store) = sqlite().await;
    let world = world(&store).await;
    let path = world.running().await;
    let network = format!("{path}/network");
    let all = json!({"type": "tor", "proxy": "a b", "dns_servers": ["x"], "username": "u", "country": "x".repeat(101),
        "mode": "what"});
    let fields = ["country", "dns_servers", "mode", "password", "proxy", "type"];
    world.client.put(&network, all).await.expect_invalid(&fields);
    for (field, input) in [
        ("type", json!({})),
        ("proxy", json!({"type": "socks5"})),
        ("proxy", json!({"mode": "proxy"})),
        ("proxy", json!({"proxy": {"enabled": true}, "blocking": {"enabled": false}})),
        ("proxy", json!({"type": "block", "proxy": "1.1.1.1:1"})),
        ("proxy", json!({"type": "socks5", "proxy": "http://1.1.1.1:1"})),
        ("proxy", json!({"type": "socks5", "proxy": "127.0.0.1:1080"})),
        ("proxy", json!({"type": "socks5", "proxy": "10.8.0.1:1080"})),
        ("proxy", json!({"type": "http", "proxy": "[::ffff:169.254.169.254]:80"})),
        ("proxy", json!({"type": "http", "proxy": "localhost:80"})),
        ("blocking", json!({"proxy": {"enabled": true}, "blocking": {"enabled": true}})),
        (
            "dns_servers",
            json!({"type": "socks5", "proxy": "1.1.1.1:1", "dns_servers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4", "1.1.1.5"]}),
        ),
        ("dns_servers", json!({"type": "socks5", "proxy": "1.1.1.1:1", "dns_servers": ["::1"]})),
        ("password", json!({"type": "block", "username": "u", "password": "p"})),
    ] {
        let answer = world.client.put(&network, input.clone()).await;
        assert_eq!(answer.status.as_u16(), 400, "{input}: {}", answer.json);
        assert!(answer.json["error"]["details"][field].is_string(), "{input}: {}", answer.json);
    }
    let ports = json!({"type": "socks5", "proxy": {"enabled": true, "url": "1.1.1.1:1", "ports": [80]}});
    world.client.put(&network, ports).await.expect(501);
    assert_eq!(world.client.get(&network).await.data()["configured"], json!(false));
}

#[tokio::test]
async fn what_the_node_finds_is_told_with_its_cause_an_event_and_a_log_line() {
    each_backend(|store| async move {
        let world = world(&store).await;
        let path = world.running().await;
        let network = format!("{path}/network");
        let cause = Cause::new("auth_failed", "the upstream does not accept the user and password");
        world.node.set(Faults { egress: Some(cause), ..Faults::default() }).await;
        let input = json!({"proxy": {"enabled": true, "url": "socks5://10.9.1.1:1080"}});
        world.client.put(&network, input).await.expect(200);
        let read = world.client.get(&network).await.expect(200);
        assert_eq!(read.data()["status"], "error");
        let remote = &read.data()["remote_status"];
        assert_eq!((&remote["is_running"], &remote["cause"]["code"]), (&json!(false), &json!("auth_failed")));
        world.node.set(Faults::default()).await;
        world.client.put(&network, json!({"dns_servers": ["9.9.9.9"]})).await.expect(200);
        assert_eq!(world.client.get(&network).await.data()["remote_status"]["is_running"], json!(true));
        let events = world.client.get("/api/v1/events?event_type=container.resource_updated").await.expect(200);
        let logs = world.client.get(&format!("{path}/status-logs")).await.expect(200);
        for text in [events.json.to_string(), logs.json.to_string()] {
            assert!(text.contains("auth_failed") && text.contains("egress_restored"), "{text}");
        }
        // Rules that the node cannot put in force leave what was before.
        let refused = Cause::new("firewall_refused", "the server refused the rules");
        world.node.set(Faults { firewall: Some(refused), ..Faults::default() }).await;
        world.client.put(&network, json!({"type": "block"})).await.expect(502);
        assert_eq!(world.client.get(&network).await.data()["status"], "error");
    })
    .await;
}
