//! Every list that comes in parts, in a table: each order in both directions, parts that make up the whole, and what is
//! refused. Times are made the same for many items, so that the orders have to hold among equals too.

use super::world::{World, add_server};
use crate::{
    api::testing::{Answer, Client},
    store::{
        Store, command,
        image::tests::{image, put_image},
        testing::{each_backend, sqlite},
    },
};
use hoody_protocol::id::{ActivityId, ContainerId, ExecutionId, OperationId};
use serde_json::{Value, json};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

/// Items that every list has at least: two parts of two, and one that is not full.
const LEAST: usize = 5;

/// One list.
struct List {
    operation: &'static str,
    path: String,
    client: Client,
    /// Where the items are in `data`.
    items: &'static str,
    /// What names an item.
    id: &'static str,
    /// What it can be sorted by, and where that is in an item.
    orders: &'static [(&'static str, &'static str)],
    /// Filters that are refused, with the field that is named.
    refused: &'static [&'static str],
    /// `limit` and `offset` instead of pages.
    offset: bool,
}

impl List {
    async fn get(&self, query: &str) -> Answer {
        let joined = if self.path.contains('?') { '&' } else { '?' };
        self.client.get(&format!("{}{joined}{query}", self.path)).await
    }

    /// The items of a part, and how many there are in all.
    async fn part(&self, query: &str) -> (Vec<Value>, u64) {
        let answer = self.get(query).await;
        assert_eq!(answer.status, 200, "{} {query}: {}", self.operation, answer.json);
        let total = ["/pagination/total", "/metadata/total", "/data/pagination/total"];
        let total = total.map(|place| answer.json.pointer(place).unwrap_or(&Value::Null));
        let total = total.into_iter().find_map(Value::as_u64).unwrap_or_else(|| panic!("{}: no total", self.operation));
        (answer.data().pointer(self.items).unwrap().as_array().unwrap().clone(), total)
    }

    /// Items of the largest part.
    fn most(&self) -> usize {
        if self.offset { 500 } else { 100 }
    }

    fn query(&self, limit: usize, number: usize) -> String {
        match self.offset {
            true => format!("limit={limit}&offset={}", number * limit),
            false => format!("limit={limit}&page={}", number + 1),
        }
    }

    fn ids(&self, items: &[Value]) -> Vec<String> {
        items.iter().map(|item| item[self.id].as_str().expect(self.operation).to_owned()).collect()
    }

    /// Asks for all of it, and for all of it in parts; the items.
    async fn walk(&self, order: &str) -> Vec<Value> {
        let what = format!("{} {order}", self.operation);
        let (whole, total) = self.part(&format!("{}{order}", self.query(self.most(), 0))).await;
        assert!(whole.len() >= LEAST, "{what}: only {}", whole.len());
        assert_eq!(total, whole.len() as u64, "{what}");
        let ids = self.ids(&whole);
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{what}: {ids:?}");
        let mut parts = Vec::new();
        for number in 0..=whole.len().div_ceil(2) {
            let (part, total) = self.part(&format!("{}{order}", self.query(2, number))).await;
            assert_eq!(total, whole.len() as u64, "{what}, part {number}");
            parts.extend(self.ids(&part));
        }
        assert_eq!(parts, ids, "{what}: the parts are not the whole");
        whole
    }
}

fn compare(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (left, right) => left.as_f64().unwrap().total_cmp(&right.as_f64().unwrap()),
    }
}

/// A world in which each list has something to sort.
async fn world(store: &Store) -> (World, Vec<List>) {
    let world = World::new(store).await;
    let (client, user, server) = (&world.client, world.user, world.server);
    let (admin, _) = Client::new_user(&world.app, "root", true).await;
    command::write_built_in(store).await.unwrap();
    let mut containers = Vec::new();
    for (index, name) in ["web", "Api", "db-1", "db_2", "cache", "Zed"].into_iter().enumerate() {
        let specs = json!({"cpu_cores": 0.1, "memory_mb": 64, "storage_mb": 512});
        containers.push(world.create(json!({"name": name, "autostart": index < 2, "specs": specs})).await);
    }
    let container = containers[0].rsplit('/').next().unwrap();
    for operation in ["stop", "start", "stop", "start"] {
        client.post(&format!("{}/{operation}", containers[0]), json!({})).await.expect(200);
    }
    for alias in ["Shop2", "able", "Zoo", "zoom", "999"] {
        client.post("/api/v1/projects", json!({"alias": alias})).await.expect(201);
    }
    let permissions = format!("/api/v1/projects/{}/permissions", world.project);
    for (name, level) in [("bob", "read"), ("carl", "edit"), ("dora", "delete"), ("eve", "read"), ("fay", "edit")] {
        let (_, id) = Client::new_user(&world.app, name, false).await;
        let body = json!({"user_id": id.to_string(), "permission_level": level});
        client.post(&permissions, body).await.expect(201);
        client
            .post("/api/v1/users/auth/login", json!({"username": "ann", "password": crate::api::testing::PASSWORD}))
            .await;
    }
    for (index, name) in ["alpine/3", "busybox/1", "debian/11", "fedora/40", "arch/x"].into_iter().enumerate() {
        put_image(store, &image(name, name.as_bytes())).await;
        let listed = client.get(&format!("/api/v1/images/public?search={}", name.split('/').next().unwrap())).await;
        let id = listed.data()["images"].as_array().unwrap().iter().find(|image| image["alias"] == name).unwrap()["id"]
            .clone();
        client.post(&format!("/api/v1/images/import/{}", id.as_str().unwrap()), json!({})).await.expect(200);
        if index < 3 {
            let rated = json!({"rating": if index == 1 { 4.5 } else { 3.0 }});
            client.post(&format!("/api/v1/images/rate/{}", id.as_str().unwrap()), rated).await.expect(200);
        }
        add_server(store, &format!("server{index}"), user).await;
        let body = json!({"title": name, "message": "x", "is_global": true});
        admin.post("/api/v1/admin/notifications", body).await.expect(201);
        let sqls = [
            format!(
                "INSERT INTO activity_logs (id, user_id, method, path, status, ip_address, user_agent, size_bytes, \
                 created_at) VALUES ('{}', '{user}', 'GET', '/x', 200, '::1', '', 1, {})",
                ActivityId::generate(),
                index / 2
            ),
            format!(
                "INSERT INTO unknown_containers (server_id, container_id, epoch, generation, state, first_seen_at) \
                 VALUES ('{server}', '{}', 1, 1, 'running', 1)",
                ContainerId::generate()
            ),
            format!(
                "INSERT INTO operations (id, container_id, server_id, user_id, sequence, kind, state, created_at, \
                 begin_before, finished_at) VALUES ('{}', '{container}', '{server}', '{user}', {index}, '\"restart\"', \
                 'succeeded', {}, 1, 1)",
                OperationId::generate(),
                index / 2
            ),
            format!(
                "INSERT INTO command_executions (id, command_id, slug, server_id, user_id, parameters, request, timeout_ms, \
                 state, created_at, begin_before) VALUES ('{}', '0123456789abcdef01234567', 'disk-usage', '{server}', \
                 '{user}', '{{}}', '{{}}', 1, 'completed', {}, 1)",
                ExecutionId::generate(),
                index / 2
            ),
        ];
        for sql in sqls {
            world.sql(&sql).await;
        }
    }
    // Two times only: there are equals, and those that are not.
    for table in ["containers", "projects", "project_permissions", "images", "notifications", "security_events"] {
        world
            .sql(&format!(
                "UPDATE {table} SET created_at = CASE WHEN id = (SELECT MAX(id) FROM {table}) THEN 8 ELSE 9 END"
            ))
            .await;
    }
    world.sql("UPDATE user_images SET created_at = 8").await;
    world.sql("UPDATE containers SET updated_at = 7 WHERE name < 'd'").await;
    world.sql("UPDATE projects SET updated_at = 7 WHERE alias < 'b'").await;
    world.sql("UPDATE status_logs SET transition_time = 5 WHERE to_status = 'running'").await;
    world.sql("UPDATE events SET created_at = 9 WHERE event_type LIKE 'p%'").await;
    let lists = lists(&world, &admin, container);
    (world, lists)
}

fn lists(world: &World, admin: &Client, container: &str) -> Vec<List> {
    const CONTAINERS: &[(&str, &str)] = &[
        ("id", "id"),
        ("name", "name"),
        ("status", "status"),
        ("created_at", "created_at"),
        ("updated_at", "updated_at"),
    ];
    const CONTAINER_FILTERS: &[&str] = &[
        "realm_id",
        "runtime",
        "include_proxy_domains",
        "include_proxy_permissions",
        "include_prespawn",
        "include_expired",
        "include_deleting",
    ];
    let list = |operation, path: String, items, orders| List {
        operation,
        path,
        client: world.client.clone(),
        items,
        id: "id",
        orders,
        refused: &[],
        offset: false,
    };
    let of_admin = |operation, path: &str, items, id| List {
        client: admin.clone(),
        id,
        ..list(operation, format!("/api/v1/admin{path}"), items, &[])
    };
    let (project, server) = (&world.project, world.server);
    vec![
        List {
            refused: CONTAINER_FILTERS,
            ..list("containers.list", "/api/v1/containers".to_owned(), "/containers", CONTAINERS)
        },
        List {
            refused: CONTAINER_FILTERS,
            ..list("containers.listByProject", world.containers(), "/containers", CONTAINERS)
        },
        list(
            "containers.getStatusLogs",
            format!("/api/v1/containers/{container}/status-logs"),
            "/logs",
            &[
                ("transition_time", "transition_time"),
                ("created_at", "transition_time"),
                ("to_status", "to_status"),
                ("from_status", "from_status"),
            ],
        ),
        List {
            refused: &["realm_id"],
            ..list(
                "projects.list",
                "/api/v1/projects".to_owned(),
                "/projects",
                &[("id", "id"), ("alias", "alias"), ("created_at", "created_at"), ("updated_at", "updated_at")],
            )
        },
        list(
            "projects.listPermissions",
            format!("/api/v1/projects/{project}/permissions"),
            "/permissions",
            &[
                ("id", "id"),
                ("user_id", "user_id"),
                ("permission_level", "permission_level"),
                ("created_at", "created_at"),
                ("updated_at", "updated_at"),
            ],
        ),
        // Every image costs the same.
        List {
            refused: &["min_price", "max_price", "min_rating", "max_rating"],
            ..list(
                "images.listPublic",
                "/api/v1/images/public".to_owned(),
                "/images",
                &[("alias", "alias"), ("added_date", "added_date"), ("price", ""), ("rating", "average_rating")],
            )
        },
        // Its key is when the image was taken, which is not shown.
        list("images.list", "/api/v1/images/user".to_owned(), "/images", &[("created_at", "")]),
        List {
            refused: &[
                "event_type",
                "resource_type",
                "resource_id",
                "project_id",
                "container_id",
                "start_date",
                "end_date",
                "realm_id",
            ],
            offset: true,
            ..list(
                "events.list",
                "/api/v1/events".to_owned(),
                "/events",
                &[("created_at", "created_at"), ("event_type", "event_type")],
            )
        },
        List {
            refused: &["start_date", "end_date", "errors_only", "min_status", "max_status", "method", "realm_id"],
            ..list("activity.list", "/api/v1/users/auth/activity".to_owned(), "", &[])
        },
        List {
            refused: &["include_failed", "include_security"],
            ..list("users.getSecurityHistory", "/api/v1/users/me/security-history".to_owned(), "", &[])
        },
        List {
            id: "command_log_id",
            ..list(
                "serverCommands.listExecutions",
                format!("/api/v1/servers/{server}/command-executions"),
                "/executions",
                &[],
            )
        },
        of_admin("admin.commands.list", "/commands", "/commands", "id"),
        of_admin("admin.images.list", "/images", "/images", "id"),
        of_admin("admin.notifications.list", "/notifications", "/notifications", "id"),
        List { refused: &["container_id"], ..of_admin("admin.operations.list", "/operations", "/operations", "id") },
        of_admin("admin.servers.list", "/servers", "/servers", "id"),
        of_admin(
            "admin.servers.listUnknownContainers",
            &format!("/servers/{server}/unknown-containers"),
            "/containers",
            "id",
        ),
        of_admin("admin.users.list", "/users", "/users", "id"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_keep_every_order_among_equals_too_and_their_parts_are_the_whole() {
    each_backend(|store| async move {
        let (_world, lists) = world(&store).await;
        let mut all_equal = Vec::new();
        for list in &lists {
            let mut among_equals = false;
            let plain = list.walk("").await;
            assert_eq!(list.ids(&list.walk("").await), list.ids(&plain), "{}: another order each time", list.operation);
            for (name, key) in list.orders {
                for (direction, right) in [("asc", Ordering::Less), ("desc", Ordering::Greater)] {
                    let order = format!("&sort_by={name}&sort_order={direction}");
                    let items = list.walk(&order).await;
                    let mut in_order = false;
                    for pair in items.windows(2).filter(|_| !key.is_empty()) {
                        let found = compare(&pair[0][key], &pair[1][key]);
                        assert_ne!(
                            found,
                            right.reverse(),
                            "{} {order}: {} before {}",
                            list.operation,
                            pair[0],
                            pair[1]
                        );
                        among_equals |= found == Ordering::Equal;
                        in_order |= found == right;
                    }
                    if !in_order && !key.is_empty() {
                        all_equal.push(format!("{} {order}", list.operation));
                    }
                }
            }
            let shown = list.orders.iter().any(|(_, key)| !key.is_empty());
            assert!(among_equals || !shown, "{} has no equals: it shows nothing", list.operation);
        }
        assert_eq!(all_equal, Vec::<String>::new(), "an order of equals shows nothing");
    })
    .await;
}

#[tokio::test]
async fn what_a_list_cannot_do_is_refused_with_every_field() {
    let (_folder, store) = sqlite().await;
    let (_world, lists) = world(&store).await;
    for list in &lists {
        let most = list.most();
        let mut bad: BTreeMap<&str, Vec<String>> = BTreeMap::from([(
            "limit",
            vec!["0".to_owned(), (most + 1).to_string(), "-1".to_owned(), "many".to_owned()],
        )]);
        match list.offset {
            true => bad.insert("offset", vec!["-1".to_owned(), "1.5".to_owned(), u64::MAX.to_string()]),
            false => bad.insert("page", vec!["0".to_owned(), "-1".to_owned(), "1e3".to_owned(), u64::MAX.to_string()]),
        };
        if !list.orders.is_empty() {
            let named = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
            bad.insert("sort_by", named(&["nothing", "created_at,id", "id;DROP TABLE users"]));
            bad.insert("sort_order", named(&["up", "DESC"]));
        }
        for field in list.refused {
            bad.insert(field, vec!["-no".to_owned()]);
        }
        for (field, values) in &bad {
            for value in values {
                let query = form_urlencoded::Serializer::new(String::new()).append_pair(field, value).finish();
                list.get(&query).await.expect_invalid(&[*field]);
            }
        }
        // All at once, all are named.
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (field, values) in &bad {
            query.append_pair(field, &values[0]);
        }
        list.get(&query.finish()).await.expect_invalid(&bad.keys().copied().collect::<Vec<_>>());
        // The ends of what is allowed.
        assert_eq!(list.part(&list.query(1, 0)).await.0.len(), 1, "{}", list.operation);
        list.part(&list.query(most, 0)).await;
        assert_eq!(list.part(&list.query(most, 1 << 20)).await.0, Vec::<Value>::new(), "{}", list.operation);
    }
}

#[tokio::test]
async fn every_list_of_the_document_is_walked() {
    let (_folder, store) = sqlite().await;
    let (_world, lists) = world(&store).await;
    let document = serde_json::to_value(crate::api::openapi()).unwrap();
    let mut documented = BTreeMap::new();
    for operation in document["paths"].as_object().unwrap().values().map(|item| &item["get"]) {
        let names: BTreeSet<&str> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "query")
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        if names.contains("page") || names.contains("offset") {
            documented.insert(operation["operationId"].as_str().unwrap(), names.contains("sort_by"));
        }
    }
    let walked: BTreeMap<&str, bool> = lists.iter().map(|list| (list.operation, !list.orders.is_empty())).collect();
    assert_eq!(walked, documented);
}

#[tokio::test]
async fn filters_of_containers_hold_together() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let realm = "0123456789abcdef01234567";
        let project = format!("/api/v1/projects/{}", world.project);
        world.client.patch(&project, json!({"realm_ids": [realm]})).await.expect(200);
        let specs = json!({"cpu_cores": 0.1, "memory_mb": 64, "storage_mb": 512});
        let new = |name: &str, runtime: &str, realms: Value| {
            json!({"name": name, "runtime": runtime, "realm_ids": realms, "specs": specs})
        };
        world.create(new("one", "lxc", json!([realm]))).await;
        world.create(new("two", "docker", json!([realm]))).await;
        world.create(new("six", "docker", json!([]))).await;
        let going = world.create(new("end", "docker", json!([realm]))).await;
        world.offline().await;
        world.client.delete(&going).await.expect(200);
        let names = async |query: &str| {
            let path = format!("/api/v1/containers?sort_by=name&sort_order=asc&{query}");
            let listed = world.client.get(&path).await.expect(200);
            let found = listed.data()["containers"].as_array().unwrap().clone();
            assert_eq!(listed.json["pagination"]["total"], found.len(), "{query}");
            found.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
        };
        for (query, expected) in [
            ("", "one six two"),
            ("runtime=docker", "six two"),
            (&format!("realm_id={realm}"), "one two"),
            (&format!("realm_id={realm}&runtime=docker"), "two"),
            (&format!("realm_id={realm}&runtime=docker&include_deleting=true"), "end two"),
            ("include_deleting=1&runtime=lxc", "one"),
            ("realm_id=76543210fedcba9876543210", ""),
        ] {
            assert_eq!(names(query).await, expected, "{query}");
        }
        // Of a server whose rental has ended, they are listed on demand only.
        world.sql("UPDATE servers SET rental_end = 1").await;
        assert_eq!(names("").await, "");
        assert_eq!(names("include_expired=true&runtime=docker").await, "six two");
    })
    .await;
}
