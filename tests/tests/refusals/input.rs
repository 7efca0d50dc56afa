//! Malformed and impossible fields, paths, queries and bodies.

use super::{NOBODY, Problems, World};
use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

/// Twice what a body may have.
const OVERSIZED_BYTES: usize = 2 << 20;

pub(super) async fn every_bad_field_is_named(world: &World) -> Result<()> {
    let mut problems = Problems::default();
    problems.note("projects", projects(world).await);
    problems.note("creations", creations(world).await);
    problems.note("updates", updates(world).await);
    problems.note("rules", rules(world).await);
    problems.note("paths and queries", paths_and_queries(world).await);
    problems.note("bodies", bodies(world).await);
    problems.none()
}

/// Every body is refused with 400 and a detail for its field.
async fn each(world: &World, method: Method, path: &str, cases: Vec<(Value, &str)>) -> Result<()> {
    let mut problems = Problems::default();
    for (body, field) in cases {
        let shown: String = body.to_string().chars().take(120).collect();
        let answer = world.api.send(method.clone(), path, Some(body)).await?;
        problems.note(&shown, answer.expect_detail(400, field));
    }
    problems.none()
}

async fn projects(world: &World) -> Result<()> {
    let cases = || {
        vec![
            (json!({ "alias": "" }), "alias"),
            (json!({ "alias": "a".repeat(129) }), "alias"),
            (json!({ "alias": "line\nbreak" }), "alias"),
            (json!({ "alias": 7 }), "alias"),
            (json!({ "alias": "x-1", "color": "blue" }), "color"),
            (json!({ "alias": "x-1", "max_containers": -1 }), "max_containers"),
            (json!({ "alias": "x-1", "max_containers": 1_000_000 }), "max_containers"),
            (json!({ "alias": "x-1", "max_containers": 1e300 }), "max_containers"),
            (json!({ "alias": "x-1", "quotas": { "max_containers": "many" } }), "quotas.max_containers"),
            (json!({ "alias": "x-1", "realm_ids": ["../realm"] }), "realm_ids"),
            (json!({ "alias": "x-1", "realm_ids": vec![NOBODY; 65] }), "realm_ids"),
        ]
    };
    each(world, Method::POST, "/api/v1/projects", cases()).await?;
    each(world, Method::PUT, &format!("/api/v1/projects/{}", world.project), cases()).await?;
    world.api.post("/api/v1/projects", json!({})).await?.expect_detail(400, "alias")?;
    world.api.post("/api/v1/projects", json!({ "alias": "refusals" })).await?.expect_refusal(409, "CONFLICT")?;
    Ok(())
}

async fn creations(world: &World) -> Result<()> {
    let path = world.creation();
    let names = ["", "ab", "../../etc/passwd", "/etc", "a b c", "a\0bc", "näme", "web.internal", "$(reboot)"];
    let mut cases: Vec<(Value, &str)> =
        names.iter().map(|name| (json!({ "image": "busybox", "name": name }), "name")).collect();
    cases.extend([
        (json!({ "image": "busybox", "name": "a".repeat(101) }), "name"),
        (json!({ "image": "busybox", "alias": "../x" }), "alias"),
        (json!({ "image": "busybox", "name": "one-name", "alias": "another" }), "alias"),
        (json!({ "image": "../../etc/passwd" }), "image"),
        (json!({ "image": "/etc/passwd" }), "image"),
        (json!({ "image": "" }), "image"),
        (json!({ "image": "a".repeat(1000) }), "image"),
        (json!({ "container_image": "busybox; reboot" }), "container_image"),
        (json!({ "image": "busybox", "server_id": "server-1" }), "server_id"),
        (json!({ "image": "busybox", "server_id": "0123456789ABCDEF01234567" }), "server_id"),
        (json!({ "image": "busybox", "server_id": 5 }), "server_id"),
        (json!({ "image": "busybox", "runtime": "kvm" }), "runtime"),
        (json!({ "image": "busybox", "specs": { "memory_mb": 0 } }), "specs.memory_mb"),
        (json!({ "image": "busybox", "specs": { "memory_mb": -5 } }), "specs.memory_mb"),
        (json!({ "image": "busybox", "specs": { "memory_mb": u64::MAX } }), "specs.memory_mb"),
        (json!({ "image": "busybox", "specs": { "memory_mb": 1e30 } }), "specs.memory_mb"),
        (json!({ "image": "busybox", "specs": { "storage_mb": 1 } }), "specs.storage_mb"),
        (json!({ "image": "busybox", "specs": { "storage_mb": u64::MAX } }), "specs.storage_mb"),
        (json!({ "image": "busybox", "specs": { "cpu_cores": 0 } }), "specs.cpu_cores"),
        (json!({ "image": "busybox", "specs": { "cpu_cores": -1 } }), "specs.cpu_cores"),
        (json!({ "image": "busybox", "specs": { "cpu_cores": 1e300 } }), "specs.cpu_cores"),
        (json!({ "image": "busybox", "specs": "large" }), "specs"),
        (json!({ "image": "busybox", "autostart": "perhaps" }), "autostart"),
        (json!({ "image": "busybox", "color": "#12345" }), "color"),
        (json!({ "image": "busybox", "comment": "c".repeat(16_001) }), "comment"),
        (json!({ "image": "busybox", "realm_ids": ["x"] }), "realm_ids"),
        (json!({ "image": "busybox", "environment_vars": { "1A": "x" } }), "environment_vars.1A"),
        (json!({ "image": "busybox", "environment_vars": { "HOODY_TOKEN": "x" } }), "environment_vars.HOODY_TOKEN"),
        (json!({ "image": "busybox", "environment_vars": { "A": "" } }), "environment_vars.A"),
        (json!({ "image": "busybox", "environment_vars": { "A": "x".repeat(4097) } }), "environment_vars.A"),
        (json!({ "image": "busybox", "environment_vars": { "A": ["x"] } }), "environment_vars.A"),
    ]);
    each(world, Method::POST, &path, cases).await?;
    // Every bad field at once.
    let bad = json!({ "name": "?", "image": "../x", "color": "?", "specs": { "memory_mb": 1, "cpu_cores": 0 } });
    let body = world.api.post(&path, bad).await?.expect_refusal(400, "VALIDATION_ERROR")?;
    let fields: Vec<&String> = body["error"]["details"].as_object().into_iter().flat_map(|d| d.keys()).collect();
    ensure!(fields == ["color", "image", "name", "specs.cpu_cores", "specs.memory_mb"], "{body}");

    // Well-formed, but there is no such thing, it is taken, or too large for any server.
    let api = &world.api;
    api.post(&path, json!({ "image": "plan9/4" })).await?.expect_detail(422, "container_image")?;
    api.post(&path, json!({ "image": "busybox", "server_id": NOBODY })).await?.expect_refusal(404, "NOT_FOUND")?;
    api.post(&path, json!({ "image": "busybox", "name": "victim" })).await?.expect_refusal(409, "CONFLICT")?;
    let server = &world.cluster.servers[0].name;
    for specs in [json!({ "memory_mb": 16 << 20 }), json!({ "storage_mb": 1 << 30 }), json!({ "cpu_cores": 1024 })] {
        api.post(&path, json!({ "image": "busybox", "specs": specs })).await?.expect_detail(422, server)?;
    }
    Ok(())
}

async fn updates(world: &World) -> Result<()> {
    let cases = vec![
        (json!({ "name": "../../etc" }), "name"),
        (json!({ "name": "" }), "name"),
        (json!({ "alias": "a/b" }), "alias"),
        (json!({ "color": "red" }), "color"),
        (json!({ "comment": "c".repeat(16_001) }), "comment"),
        (json!({ "realm_ids": ["nope"] }), "realm_ids"),
        (json!({ "environment_vars": { "A B": "x" } }), "environment_vars.A B"),
        (json!({ "autostart": 3 }), "autostart"),
        (json!({ "ramdisk_scope": "planet" }), "ramdisk_scope"),
    ];
    each(world, Method::PATCH, &world.path(""), cases).await?;
    let variables = vec![
        (json!({ "HOODY_X": "1" }), "HOODY_X"),
        (json!({ "GOOD": "1", "BAD-KEY": "1" }), "BAD-KEY"),
        (json!({ "A": "nul\0" }), "A"),
        (json!({ "A": { "b": 1 } }), "A"),
    ];
    each(world, Method::PUT, &world.path("/env"), variables).await?;
    let api = &world.api;
    api.put(&world.path("/env/..%2F..%2Fetc"), json!({ "value": "x" })).await?.expect_detail(400, "key")?;
    api.put(&world.path("/env/HOODY_X"), json!({ "value": "x" })).await?.expect_detail(400, "key")?;
    let key = "K".repeat(129);
    api.put(&world.path(&format!("/env/{key}")), json!({ "value": "x" })).await?.expect_detail(400, "key")?;
    api.put(&world.path("/env/A"), json!({ "value": "x".repeat(32_769) })).await?.expect_detail(400, "value")?;
    api.put(&world.path("/env/A"), json!({})).await?.expect_detail(400, "value")?;
    api.delete(&world.path("/env/ABSENT"), None).await?.expect_refusal(404, "NOT_FOUND")?;
    // A stopped container is not paused, resumed or restarted.
    for word in ["pause", "resume", "restart"] {
        api.post(&world.path(&format!("/{word}")), json!({})).await?.expect_refusal(409, "CONFLICT")?;
    }
    for word in ["explode", "START", "start%20", "%2e%2e%2fstart"] {
        api.post(&world.path(&format!("/{word}")), json!({})).await?.expect_detail(400, "operation")?;
    }
    Ok(())
}

async fn rules(world: &World) -> Result<()> {
    let rule = |more: Value| {
        let mut rule = json!({ "action": "allow", "protocol": "tcp", "description": "" });
        if let (Some(rule), Some(more)) = (rule.as_object_mut(), more.as_object()) {
            rule.extend(more.clone());
        }
        rule
    };
    let ports =
        [json!(0), json!(65_536), json!(-1), json!(80.5), json!("http"), json!("90-80"), json!("1,,2"), json!("")];
    let mut cases: Vec<(Value, &str)> =
        ports.iter().map(|port| (rule(json!({ "destination_port": port })), "destination_port")).collect();
    let many: Vec<String> = (1..=40).map(|port| (port * 3).to_string()).collect();
    cases.push((rule(json!({ "destination_port": many.join(",") })), "destination_port"));
    let sources = [
        "10.0.0.0/33",
        "10.0.0/8",
        "256.1.1.1",
        "10.0.0.0/-1",
        "1.2.3.4/8/8",
        "",
        "any where",
        "::1",
        "2001:db8::/32",
        "::ffff:10.0.0.1",
        "example.com",
        "0.0.0.0/0; flush ruleset",
    ];
    cases.extend(sources.iter().map(|source| (rule(json!({ "source": source })), "source")));
    cases.extend([
        (rule(json!({ "source": "1".repeat(600) })), "source"),
        (rule(json!({ "destination": "10.0.0.1" })), "destination"),
        (rule(json!({ "action": "accept" })), "action"),
        (rule(json!({ "protocol": "sctp" })), "protocol"),
        (rule(json!({ "protocol": "icmp6" })), "protocol"),
        (rule(json!({ "state": "on" })), "state"),
        (rule(json!({ "description": "d".repeat(256) })), "description"),
        (rule(json!({ "protocol": "icmp4", "icmp_type": 256 })), "icmp_type"),
        (rule(json!({ "protocol": "icmp4", "icmp_code": 1 })), "icmp_code"),
        (rule(json!({ "icmp_type": 8 })), "icmp_type"),
        (rule(json!({ "protocol": "icmp4", "destination_port": 80 })), "destination_port"),
        (rule(json!({ "port": 80, "destination_port": 81 })), "port"),
        (json!({ "protocol": "tcp" }), "action"),
        (json!({ "action": "drop" }), "protocol"),
    ]);
    each(world, Method::POST, &world.path("/firewall/ingress"), cases).await?;
    let egress = vec![
        (rule(json!({ "source": "10.0.0.1" })), "source"),
        (rule(json!({ "destination": "fe80::1" })), "destination"),
        (rule(json!({ "destination": "10.0.0.0/99" })), "destination"),
    ];
    each(world, Method::POST, &world.path("/firewall/egress"), egress).await?;
    let toggles = vec![
        (json!({ "port": 4444 }), "state"),
        (json!({ "state": "disabled" }), "protocol"),
        (json!({ "port": "x", "state": "disabled" }), "port"),
    ];
    each(world, Method::PATCH, &world.path("/firewall/ingress"), toggles).await?;
    let removals = vec![(json!({}), "all"), (json!({ "all": true, "port": 4444 }), "all")];
    each(world, Method::DELETE, &world.path("/firewall/ingress"), removals).await?;
    let api = &world.api;
    let absent = json!({ "port": 4445, "state": "disabled" });
    api.patch(&world.path("/firewall/ingress"), absent).await?.expect_refusal(404, "NOT_FOUND")?;
    api.delete(&world.path("/firewall/ingress"), Some(json!({ "port": 4445 })))
        .await?
        .expect_refusal(404, "NOT_FOUND")?;
    let by_name = rule(json!({ "destination": "api.example.com" }));
    api.post(&world.path("/firewall/egress"), by_name).await?.expect_refusal(501, "NOT_IMPLEMENTED")?;
    Ok(())
}

async fn paths_and_queries(world: &World) -> Result<()> {
    let (api, mut problems) = (&world.api, Problems::default());
    for id in ["x", "0123456789ABCDEF01234567", "0123456789abcdef0123456", "..%2F..%2Fetc", "%00", "%F0%9F%90%98"] {
        for kind in ["projects", "containers", "servers", "images/public"] {
            let answer = api.get(&format!("/api/v1/{kind}/{id}")).await?;
            problems.note(kind, answer.expect_detail(400, "id"));
        }
    }
    api.get("/api/v1/containers/%FF%FE").await?.expect_refusal(400, "VALIDATION_ERROR")?;
    for kind in ["projects", "containers", "servers", "images/public"] {
        let answer = api.get(&format!("/api/v1/{kind}/{NOBODY}")).await?;
        problems.note(kind, answer.expect_refusal(404, "NOT_FOUND").map(drop));
    }
    let in_project = world.creation();
    let logs = world.path("/status-logs");
    for path in ["/api/v1/projects", "/api/v1/containers", &in_project, &logs, "/api/v1/images/public"] {
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=-1", "limit"),
            ("limit=many", "limit"),
            ("page=0", "page"),
            ("page=99999999999999999999", "page"),
            ("sort_by=password", "sort_by"),
            ("sort_by=id;DROP%20TABLE%20users", "sort_by"),
            ("sort_order=sideways", "sort_order"),
        ] {
            let answer = api.get(&format!("{path}?{query}")).await?;
            problems.note(path, answer.expect_detail(400, field));
        }
    }
    for (query, field) in
        [("runtime=kvm", "runtime"), ("realm_id=x", "realm_id"), ("include_deleting=maybe", "include_deleting")]
    {
        let answer = api.get(&format!("/api/v1/containers?{query}")).await?;
        problems.note("containers", answer.expect_detail(400, field));
    }
    for path in ["/api/v1/nothing", "/etc/passwd", "/api/v2/projects"] {
        problems.note(path, api.get(path).await?.expect_refusal(404, "NOT_FOUND").map(drop));
    }
    problems.note("method", api.delete("/api/v1/ip", None).await?.expect_refusal(405, "METHOD_NOT_ALLOWED").map(drop));
    problems.none()
}

async fn bodies(world: &World) -> Result<()> {
    let (api, mut problems) = (&world.api, Problems::default());
    let json_type = ("content-type", "application/json");
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let nested = [br#"{"alias": "#.to_vec(), deep, b"}".to_vec()].concat();
    let texts: [(&str, Vec<u8>); 7] = [
        ("cut short", br#"{"alias": "cut"#.to_vec()),
        ("two values", br#"{"alias": "one"} {"alias": "two"}"#.to_vec()),
        ("not UTF-8", b"{\"alias\": \"\xFF\xFE\"}".to_vec()),
        ("not JSON", b"alias=form".to_vec()),
        ("binary", vec![0, 159, 146, 150]),
        ("deep", nested),
        ("too large", [br#"{"alias": ""#.to_vec(), vec![b'a'; OVERSIZED_BYTES], br#""}"#.to_vec()].concat()),
    ];
    for (what, text) in texts {
        let answer = api.send_bytes(Method::POST, "/api/v1/projects", &[json_type], text).await?;
        let body = answer.expect_refusal(400, "VALIDATION_ERROR").map(drop);
        problems.note(what, body);
    }
    for body in [json!([]), json!("alias"), json!(7), Value::Null] {
        let answer = api.post("/api/v1/projects", body.clone()).await?;
        problems.note(&body.to_string(), answer.expect_refusal(400, "VALIDATION_ERROR").map(drop));
    }
    problems.none()
}
