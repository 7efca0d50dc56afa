//! `/servers`, `/rentals/{id}/runtime` and the admin API.

use crate::{
    api::testing::Client,
    app::{
        App,
        testing::{app, config, with_config},
    },
    store::{Store, testing::each_backend, user},
};
use hoody_protocol::{
    bounded::Text,
    container::{ContainerSpec, Desired, Limits},
    id::{ContainerId, OperationId, ProjectId, ServerId},
    image::{ImageConfig, ImageSpec},
    stats::{NodeStats, StatsBatch},
    time::now_ms,
    version::SpecVersion,
};
use serde_json::json;

const ADMIN: &str = "/api/v1/admin/servers";
const SERVERS: &str = "/api/v1/servers";

async fn create(operator: &Client, body: serde_json::Value) -> String {
    operator.post(ADMIN, body).await.expect(201).data()["id"].as_str().unwrap().to_owned()
}

/// What an enrolment and a hello leave in the row.
async fn enrol(store: &Store, id: &str) {
    let facts = r#"{"hostname":"n1","architecture":"amd64","kernel":"6","os":"Debian","cpu_model":"EPYC","cpu_cores":4,
        "memory_bytes":8000000000,"disk_bytes":50000000000}"#;
    let key = ed25519_dalek::SigningKey::from_bytes(&rand::random()).verifying_key();
    let mut tx = store.begin().await.unwrap();
    sqlx::query(
        "UPDATE servers SET status = 'enrolled', public_key = $3, facts = $2, cpu_millis = 4000, \
         memory_bytes = 8000000000, disk_bytes = 50000000000, online = 1, online_changed_at = 5 WHERE id = $1",
    )
    .bind(id)
    .bind(facts)
    .bind(hex::encode(key.as_bytes()))
    .execute(&mut *tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
}

fn measure(app: &App, id: &str, stats: NodeStats) {
    let batch = StatsBatch { at: now_ms(), node: stats, containers: Default::default() };
    app.nodes.measurements.record(id.parse().unwrap(), batch, |_| false);
}

#[tokio::test]
async fn an_operator_makes_a_server_and_its_tenant_sees_it() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (operator, _) = Client::new_user(&app, "root", true).await;
        let (ann, ann_id) = Client::new_user(&app, "ann", false).await;
        let (bob, _) = Client::new_user(&app, "bob", false).await;
        let end = "2999-01-01T00:00:00.000Z";
        let body = json!({"name": "n1", "owner": "ann", "country": "DE", "city": "Falkenstein", "rental_end": end});
        let id = create(&operator, body).await;
        enrol(&store, &id).await;

        let seen = operator.get(&format!("{ADMIN}/{id}")).await.expect(200);
        assert_eq!(seen.data()["owner_id"], ann_id.to_string());
        assert_eq!(seen.data()["facts"]["cpu_cores"], 4);
        assert_eq!(seen.data()["capacity"]["cpu_millis"], 4000);
        assert_eq!(operator.get(ADMIN).await.expect(200).json["pagination"]["total"], 1);

        let listed = ann.get(SERVERS).await.expect(200);
        let rental = &listed.data()[0];
        assert_eq!((&rental["id"], &rental["server_id"]), (&json!(id), &json!(id)));
        assert_eq!((&rental["status"], &rental["rental_end"]), (&json!("active"), &json!(end)));
        assert!(rental["remaining_days"].as_i64().unwrap() > 300_000);
        assert_eq!(rental["server"]["specs"]["ram"]["capacity_gb"], 8.0);
        assert_eq!(rental["server"]["container_capacity"], json!({"used": 0, "max": 250}));
        assert_eq!(ann.get(&format!("{SERVERS}/{id}/")).await.expect(200).data(), rental);

        // Others, operators included, do not see a tenant's server here.
        for client in [&bob, &operator] {
            assert_eq!(client.get(SERVERS).await.expect(200).data(), &json!([]));
            client.get(&format!("{SERVERS}/{id}")).await.expect(404);
            client.get(&format!("{SERVERS}/{id}/runtime")).await.expect(404);
            client.get(&format!("/api/v1/rentals/{id}/runtime")).await.expect(404);
            assert_eq!(client.get("/api/v1/rentals").await.expect(200).data(), &json!([]));
            client.get(&format!("/api/v1/rentals/{id}")).await.expect(404);
        }
        let rental = ann.get(&format!("/api/v1/rentals/{id}")).await.expect(200);
        assert_eq!((&rental.data()["id"], &rental.data()["status"]), (&json!(id), &json!("active")));
        assert_eq!(rental.data()["is_free_tier"], false);
        assert_eq!(ann.get("/api/v1/rentals").await.expect(200).data(), &json!([rental.data()]));
        ann.post(&format!("/api/v1/rentals/{id}/extend"), json!({"days": 3})).await.expect(501);
        ann.get(&format!("{SERVERS}/nonsense")).await.expect_invalid(&["id"]);
        ann.get(&format!("{SERVERS}/{}", ServerId::generate())).await.expect(404);
        assert_eq!(ann.get(&format!("{SERVERS}/available")).await.expect(200).data(), &json!([]));

        let free =
            operator.put(&format!("{ADMIN}/{id}"), json!({"owner": null, "max_containers": 5})).await.expect(200);
        assert_eq!((&free.data()["owner_id"], &free.data()["rental_end"]), (&json!(null), &json!(null)));
        assert_eq!(free.data()["country"], "DE");
        ann.get(&format!("{SERVERS}/{id}")).await.expect(404);
        assert_eq!(ann.get(&format!("{SERVERS}/available")).await.expect(200).data()[0]["id"], id);
    })
    .await;
}

#[tokio::test]
async fn only_operators_administer_and_bad_input_is_named() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (operator, _) = Client::new_user(&app, "root", true).await;
        let (ann, _) = Client::new_user(&app, "ann", false).await;
        let id = create(&operator, json!({"name": "n1"})).await;
        let path = format!("{ADMIN}/{id}");
        for path in [ADMIN, &path, "/api/v1/admin/operations"] {
            ann.get(path).await.expect(403);
            Client::new(&app).get(path).await.expect(401);
        }
        for step in ["disable", "enable", "revoke", "join-token"] {
            ann.post(&format!("{path}/{step}"), json!({})).await.expect(403);
        }
        ann.delete(&path).await.expect(403);
        assert_eq!(operator.get(&path).await.expect(200).data()["status"], "created");

        operator.post(ADMIN, json!({"name": "n1"})).await.expect(409);
        operator.post(ADMIN, json!({})).await.expect_invalid(&["name"]);
        operator.post(ADMIN, json!({"name": "a b", "cpu_millis": -1})).await.expect_invalid(&["cpu_millis", "name"]);
        operator.post(ADMIN, json!({"name": "n2", "owner": "nobody"})).await.expect_invalid(&["owner"]);
        operator.post(ADMIN, json!({"name": "n2", "rental_end": "soon"})).await.expect_invalid(&["rental_end"]);
        let backwards =
            json!({"name": "n2", "rental_start": "2026-02-01T00:00:00Z", "rental_end": "2026-01-01T00:00:00Z"});
        operator.post(ADMIN, backwards).await.expect_invalid(&["rental_end"]);
        operator.put(&path, json!({"max_containers": 10_001})).await.expect_invalid(&["max_containers"]);
        assert_eq!(operator.get(ADMIN).await.expect(200).json["pagination"]["total"], 1);
    })
    .await;
}

#[tokio::test]
async fn a_server_is_disabled_enabled_revoked_and_deleted() {
    each_backend(|store| async move {
        let mut config = config();
        config.node_public_addresses = vec!["cp.example.org:7443".to_owned()];
        let app = with_config(&store, config).await;
        let (operator, _) = Client::new_user(&app, "root", true).await;
        let id = create(&operator, json!({"name": "n1"})).await;
        let step = |step: &'static str| {
            let (operator, path) = (operator.clone(), format!("{ADMIN}/{id}/{step}"));
            async move { operator.post(&path, json!({})).await }
        };
        assert_eq!(step("disable").await.expect(200).data()["status"], "disabled");
        step("join-token").await.expect(409);
        assert_eq!(step("disable").await.expect(200).data()["status"], "disabled");
        assert_eq!(step("enable").await.expect(200).data()["status"], "created");
        let token = step("join-token").await.expect(201);
        assert!(token.data()["token"].as_str().unwrap().len() > 40);
        enrol(&store, &id).await;
        step("disable").await.expect(200);
        assert_eq!(step("enable").await.expect(200).data()["status"], "enrolled");
        assert_eq!(step("revoke").await.expect(200).data()["status"], "revoked");
        step("enable").await.expect(409);
        step("disable").await.expect(409);
        step("join-token").await.expect(409);

        insert_container(&store, &id).await;
        operator.delete(&format!("{ADMIN}/{id}")).await.expect(409);
        let other = create(&operator, json!({"name": "n2"})).await;
        operator.delete(&format!("{ADMIN}/{other}")).await.expect(200);
        operator.delete(&format!("{ADMIN}/{other}")).await.expect(404);
        operator.post(&format!("{ADMIN}/{other}/disable"), json!({})).await.expect(404);
    })
    .await;
}

struct Rows {
    project: String,
    container: String,
    operation: String,
}

/// A project of the operator with one container on the server, and one operation on that.
async fn insert_container(store: &Store, server: &str) -> Rows {
    let owner = user::by_login(store, "root").await.unwrap().unwrap().0.id;
    let (project, operation) = (ProjectId::generate(), OperationId::generate());
    let spec = ContainerSpec {
        id: ContainerId::generate(),
        project,
        owner,
        version: SpecVersion { epoch: 1, generation: 1 },
        sequence: 1,
        desired: Desired::Stopped { force: false },
        autostart: false,
        hostname: Text::truncated("c"),
        image: ImageSpec::new(Default::default(), ImageConfig::default()),
        env: Default::default(),
        limits: Limits { cpu_millis: 10, memory_bytes: 16 << 20, disk_bytes: 16 << 20, pids: 64, network_mbit: None },
        dns: Default::default(),
        firewall: Default::default(),
        egress: None,
        ssh_public_key: None,
        kvm: false,
        shares: Default::default(),
        ramdisk: None,
        origin: None,
        transfer: None,
        moved: false,
        snapshots: Default::default(),
    };
    let (container, json) = (spec.id, serde_json::to_string(&spec).unwrap());
    let mut tx = store.begin().await.unwrap();
    for sql in [
        format!(
            "INSERT INTO projects (id, user_id, alias, color, created_at, updated_at) \
             VALUES ('{project}', '{owner}', '{project}', '', 0, 0)"
        ),
        format!(
            "INSERT INTO containers (id, project_id, owner_id, server_id, name, image_name, spec, generation, epoch, \
             sequence, status, status_changed_at, created_at, updated_at) VALUES ('{container}', '{project}', '{owner}', \
             '{server}', 'web', 'i', '{json}', 1, 1, 1, 'stopped', 0, 0, 0)"
        ),
        format!(
            "INSERT INTO operations (id, container_id, server_id, user_id, sequence, kind, state, failure, created_at, \
             begin_before) VALUES ('{operation}', '{container}', '{server}', 'u', 2, '\"restart\"', 'failed', \
             '{{\"code\":\"x\",\"message\":\"y\"}}', 7, 9)"
        ),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    Rows { project: project.to_string(), container: container.to_string(), operation: operation.to_string() }
}

#[tokio::test]
async fn a_project_goes_with_its_containers_once_they_are_gone() {
    each_backend(|store| async move {
        let mut config = config();
        config.desired_state_deadline = std::time::Duration::from_millis(50);
        let app = with_config(&store, config).await;
        let (operator, _) = Client::new_user(&app, "root", true).await;
        let server = create(&operator, json!({"name": "n1"})).await;
        let rows = insert_container(&store, &server).await;
        let path = format!("/api/v1/projects/{}?include_deleted_items=true", rows.project);
        let refused = operator.delete(&path).await.expect(409);
        assert!(refused.json["message"].as_str().unwrap().contains("still being deleted"), "{}", refused.json);
        let tombstone: Option<i64> = sqlx::query_scalar("SELECT deleted_at FROM containers WHERE id = $1")
            .bind(&rows.container)
            .fetch_one(store.reader())
            .await
            .unwrap();
        assert!(tombstone.is_some(), "its server removes it when it is back");
        // Nobody is left who could confirm.
        operator.post(&format!("{ADMIN}/{server}/revoke"), json!({})).await.expect(200);
        let gone = operator.delete(&path).await.expect(200);
        assert_eq!(gone.data()["deleted"]["containers"], 1);
        assert_eq!(gone.data()["deleted_items"]["containers"], json!([{"id": rows.container, "name": "web"}]));
        operator.get(&path).await.expect(404);
        operator.delete(&format!("{ADMIN}/{server}")).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn operators_look_at_operations() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (operator, _) = Client::new_user(&app, "root", true).await;
        let server = create(&operator, json!({"name": "n1"})).await;
        let Rows { container, operation, .. } = insert_container(&store, &server).await;
        let list = "/api/v1/admin/operations";
        for (query, total) in [
            (String::new(), 1),
            (format!("?container_id={container}&state=failed"), 1),
            ("?state=pending".to_owned(), 0),
            (format!("?container_id={server}"), 0),
        ] {
            let answer = operator.get(&format!("{list}{query}")).await.expect(200);
            assert_eq!(answer.json["pagination"]["total"], total, "{query}");
        }
        operator.get(&format!("{list}?state=lost")).await.expect_invalid(&["state"]);
        operator.get(&format!("{list}?container_id=x")).await.expect_invalid(&["container_id"]);
        let seen = operator.get(&format!("{list}/{operation}")).await.expect(200);
        assert_eq!((&seen.data()["kind"], &seen.data()["failure"]["code"]), (&json!("restart"), &json!("x")));
        assert_eq!(seen.data()["finished_at"], json!(null));
        operator.get(&format!("{list}/{server}")).await.expect(404);
    })
    .await;
}

#[tokio::test]
async fn the_runtime_shows_the_last_measurement_and_its_age() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (operator, _) = Client::new_user(&app, "root", true).await;
        let id = create(&operator, json!({"name": "n1", "owner": "root"})).await;
        enrol(&store, &id).await;
        let path = format!("{SERVERS}/{id}/runtime");
        let before = operator.get(&path).await.expect(200);
        assert_eq!((&before.data()["stale"], &before.data()["cores"]), (&json!(true), &json!(4)));
        assert_eq!(before.data()["mem"]["used_bytes"], json!(null));
        assert_eq!(before.data()["ts"], "1970-01-01T00:00:00.005Z");

        let stats = NodeStats {
            cores: 8,
            cpu_busy_percent: f64::NAN,
            load: [0.5, 1.0, f64::INFINITY],
            memory_total_bytes: 1000,
            memory_used_bytes: 250,
            pool_total_bytes: 0,
            uptime_s: 77,
            ..NodeStats::default()
        };
        measure(&app, &id, stats);
        for path in [path.clone(), format!("/api/v1/rentals/{id}/runtime")] {
            let answer = operator.get(&path).await.expect(200);
            let data = answer.data();
            assert_eq!((&data["scope"], &data["stale"]), (&json!("server"), &json!(false)));
            assert!(data["cache_age_ms"].as_u64().unwrap() < 10_000);
            assert_eq!(data["mem"], json!({"used_bytes": 250, "total_bytes": 1000, "pct": 25.0}));
            assert_eq!(data["load"], json!({"1": 0.5, "5": 1.0, "15": null}));
            assert_eq!((&data["cpu"]["busy_pct"], &data["storage"]["pct"]), (&json!(null), &json!(null)));
            assert_eq!((&data["cores"], &data["uptime_s"]), (&json!(8), &json!(77)));
        }
    })
    .await;
}

#[tokio::test]
async fn every_filter_of_the_marketplace_is_checked_and_used() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (operator, _) = Client::new_user(&app, "root", true).await;
        let id = create(&operator, json!({"name": "n1", "country": "DE", "region": "eu"})).await;
        let browse = format!("{SERVERS}/available");
        assert_eq!(operator.get(&browse).await.expect(200).data(), &json!([]), "it has no agent yet");
        enrol(&store, &id).await;
        for (query, found) in [
            ("", 1),
            ("country=de&region=eu&min_cpu_cores=4&min_ram_gb=8&min_total_storage_gb=50", 1),
            ("min_cpu_cores=4.5", 0),
            ("min_ram_gb=8.1", 0),
            ("min_total_storage_gb=51", 0),
            ("country=FR", 0),
            ("cpu_score_type=passmark&min_cpu_score=0&featured_only=false", 1),
            ("max_price_per_day=5", 0),
            ("ram_types=DDR5,ECC%20DDR5&disk_types[]=NVMe", 0),
        ] {
            let answer = operator.get(&format!("{browse}?{query}")).await.expect(200);
            assert_eq!(answer.data().as_array().unwrap().len(), found, "{query}");
        }
        for (query, field) in [
            ("min_cpu_cores=many", "min_cpu_cores"),
            ("min_ram_gb=-1", "min_ram_gb"),
            ("max_price_per_day=NaN", "max_price_per_day"),
            ("available_durations=7&available_durations=x", "available_durations"),
            ("ram_types=DDR9", "ram_types"),
            ("disk_types=tape", "disk_types"),
            ("cpu_score_type=best", "cpu_score_type"),
            ("category=cheap", "category"),
            ("featured_only=yes", "featured_only"),
            ("country=", "country"),
        ] {
            operator.get(&format!("{browse}?{query}")).await.expect_invalid(&[field]);
        }
    })
    .await;
}
