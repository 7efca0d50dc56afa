//! Commands on servers, as far as the control plane alone goes: nothing is linked here.

use super::world::{add_server, execute};
use crate::{
    api::testing::{Answer, Client},
    app::{App, testing::app},
    store::{Store, testing::each_backend},
};
use hoody_protocol::id::{ServerId, UserId};
use serde_json::{Value, json};

const ADMIN: &str = "/api/v1/admin/commands";

struct World {
    store: Store,
    app: App,
    owner: Client,
    user: UserId,
    operator: Client,
    server: ServerId,
}

impl World {
    async fn new(store: &Store) -> Self {
        let app = app(store).await;
        let (owner, user) = Client::new_user(&app, "ann", false).await;
        let (operator, _) = Client::new_user(&app, "root", true).await;
        let server = add_server(store, "one", user).await;
        Self { store: store.clone(), app, owner, user, operator, server }
    }

    fn path(&self, rest: &str) -> String {
        format!("/api/v1/servers/{}/{rest}", self.server)
    }

    async fn run(&self, body: Value) -> Answer {
        self.owner.post(&self.path("execute-command"), body).await
    }

    /// A command of the operators'; its id.
    async fn command(&self, more: Value) -> String {
        let mut body = json!({"slug": "echo", "argv": ["/bin/echo", "{word}"], "parameter_schema": {"type": "object",
            "properties": {"word": {"type": "string", "pattern": "[a-z]+"}}, "required": ["word"]}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.operator.post(ADMIN, body).await.expect(201).data()["id"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn the_catalogue_is_listed_for_who_rents_the_server() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let listed = world.owner.get(&world.path("available-commands")).await.expect(200);
        let slugs = |answer: &Answer| {
            let commands = answer.data()["commands"].as_array().unwrap().clone();
            commands.iter().map(|command| command["slug"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert!(slugs(&listed).contains(&"disk-usage".to_owned()));
        assert_eq!(listed.data()["server_info"]["is_ready"], true);
        assert_eq!(listed.data()["server_info"]["id"], world.server.to_string());
        let narrowed =
            world.owner.get(&world.path("available-commands?risk_level=critical&category=maintenance")).await;
        assert_eq!(slugs(&narrowed.expect(200)), ["reboot"]);
        world.owner.get(&world.path("available-commands?risk_level=none")).await.expect_invalid(&["risk_level"]);
    })
    .await;
}

#[tokio::test]
async fn a_command_is_named_in_each_form_and_written_down() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let id = world.command(json!({})).await;
        let parameters = json!({"word": "hello"});
        for name in ["command_id", "command_slug", "command"] {
            let named = if name == "command_slug" { "echo" } else { &id };
            let run = world.run(json!({name: named, "parameters": parameters})).await.expect(200);
            assert_eq!((&run.data()["status"], &run.data()["command_id"]), (&json!("pending"), &json!(id)));
            let log = run.data()["command_log_id"].as_str().unwrap();
            let read = world.owner.get(&world.path(&format!("command-executions/{log}"))).await.expect(200);
            assert_eq!(read.data()["parameters"], parameters);
            assert_eq!(read.data()["output"], "");
        }
        world.run(json!({"command": "echo", "parameters": parameters})).await.expect(200);
        let listed = world.owner.get(&world.path("command-executions?status=pending&limit=3")).await.expect(200);
        assert_eq!(listed.data()["executions"].as_array().unwrap().len(), 3);
        assert_eq!(listed.data()["pagination"]["total"], 4);
        let request: String = sqlx::query_scalar("SELECT request FROM command_executions LIMIT 1")
            .fetch_one(store.reader())
            .await
            .unwrap();
        assert!(request.contains(r#"["/bin/echo","hello"]"#), "{request}");
        world.owner.get(&world.path("command-executions?status=no")).await.expect_invalid(&["status"]);
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_is_named_and_not_run() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        world.command(json!({"max_timeout": 60})).await;
        world.run(json!({})).await.expect_invalid(&["command_slug"]);
        world.run(json!({"command_id": "x"})).await.expect_invalid(&["command_id"]);
        world.run(json!({"command_slug": "A b"})).await.expect_invalid(&["command_slug"]);
        world.run(json!({"command": "no-such"})).await.expect(404);
        world.run(json!({"command_id": "0123456789abcdef01234567"})).await.expect(404);
        world.run(json!({"command": "echo"})).await.expect_invalid(&["parameters.word"]);
        world.run(json!({"command": "echo", "parameters": "x"})).await.expect_invalid(&["parameters"]);
        let many = json!({"command": "echo", "timeout": 61, "parameters": {"word": "--help", "x": 1}});
        world.run(many).await.expect_invalid(&["parameters.word", "parameters.x", "timeout"]);
        for word in ["a b", "a;b", "$(id)", "a\n", "", "é"] {
            let body = json!({"command": "echo", "parameters": {"word": word}});
            world.run(body).await.expect_invalid(&["parameters.word"]);
        }
        for timeout in [json!(0), json!(0.5), json!(-1), json!(7201)] {
            let body = json!({"command": "echo", "parameters": {"word": "a"}, "timeout": timeout});
            world.run(body).await.expect_invalid(&["timeout"]);
        }
        let count: i64 = sqlx::query_scalar("SELECT CAST(COUNT(*) AS BIGINT) FROM command_executions")
            .fetch_one(store.reader())
            .await
            .unwrap();
        assert_eq!(count, 0);
    })
    .await;
}

#[tokio::test]
async fn only_who_rents_the_server_and_operators_may() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let (stranger, _) = Client::new_user(&world.app, "eve", false).await;
        let (member, member_id) = Client::new_user(&world.app, "bob", false).await;
        let invited = world
            .owner
            .post(&format!("/api/v1/pools/{}/members", world.user), json!({"username": "bob", "role": "user"}))
            .await;
        invited.expect(200);
        execute(&store, &format!("UPDATE pool_members SET is_authorized = 1 WHERE user_id = '{member_id}'")).await;
        let run = json!({"command": "disk-usage"});
        let done = world.run(run.clone()).await.expect(200);
        let log = format!("command-executions/{}", done.data()["command_log_id"].as_str().unwrap());
        let cancel = format!("{log}/cancel");
        let stream = format!("{log}/stream");
        for (client, status) in [(&stranger, 404), (&member, 403)] {
            client.post(&world.path("execute-command"), run.clone()).await.expect(status);
            client.post(&world.path(&cancel), json!({})).await.expect(status);
            for path in ["available-commands", "command-executions", &log, &stream] {
                client.get(&world.path(path)).await.expect(status);
            }
            client.get(ADMIN).await.expect(403);
            client.post(ADMIN, json!({})).await.expect(403);
        }
        world.operator.get(&world.path(&log)).await.expect(200);
        world.operator.post(&world.path("execute-command"), run).await.expect(200);
        // One of another server is not found by this one's path.
        let other = add_server(&store, "two", world.user).await;
        world.owner.get(&format!("/api/v1/servers/{other}/{log}")).await.expect(404);
    })
    .await;
}

#[tokio::test]
async fn an_offline_server_runs_nothing_later() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        execute(&store, "UPDATE servers SET online = 0").await;
        world.run(json!({"command": "disk-usage"})).await.expect(503);
        let listed = world.owner.get(&world.path("command-executions")).await.expect(200);
        assert_eq!(listed.data()["executions"], json!([]));
    })
    .await;
}

#[tokio::test]
async fn a_confirmation_is_for_one_request_once() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let id = world.command(json!({"risk_level": "high"})).await;
        world.command(json!({"slug": "other", "requires_confirmation": true})).await;
        let body = |slug: &str, word: &str, token: &str| {
            json!({"command": slug, "parameters": {"word": word}, "confirmation_token": token})
        };
        let ask = async || {
            let asked = world.run(json!({"command": "echo", "parameters": {"word": "a"}})).await.expect(409);
            assert_eq!(asked.json["code"], "CONFIRMATION_REQUIRED");
            asked.json["error"]["details"]["confirmation_token"].as_str().unwrap().to_owned()
        };
        let token = ask().await;
        for wrong in [body("echo", "b", &token), body("other", "a", &token), body("echo", "a", "x"), body("echo", "a", "")] {
            let refused = world.run(wrong).await.expect(409);
            assert_eq!(refused.json["code"], "CONFLICT");
        }
        let path = world.path("execute-command");
        world.operator.post(&path, body("echo", "a", &token)).await.expect(409);
        let two = add_server(&store, "two", world.user).await;
        let elsewhere = format!("/api/v1/servers/{two}/execute-command");
        world.owner.post(&elsewhere, body("echo", "a", &token)).await.expect(409);
        world.run(body("echo", "a", &token)).await.expect(200);
        world.run(body("echo", "a", &token)).await.expect(409);
        let token = ask().await;
        execute(&store, "UPDATE grants SET expires_at = 1").await;
        world.run(body("echo", "a", &token)).await.expect(409);
        // What was confirmed is what runs, also where an operator changes the command in between.
        let token = ask().await;
        let path = format!("{ADMIN}/{id}");
        world.operator.patch(&path, json!({"argv": ["/bin/rm", "{word}"]})).await.expect(200);
        world.run(body("echo", "a", &token)).await.expect(409);
        // A limit does not spend it.
        let token = ask().await;
        world.operator.patch(&path, json!({"cooldown_seconds": 60})).await.expect(200);
        world.run(body("echo", "a", &token)).await.expect(429);
        world.operator.patch(&path, json!({"cooldown_seconds": null})).await.expect(200);
        world.run(body("echo", "a", &token)).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn limits_hold_also_for_requests_at_the_same_time() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        world.command(json!({"rate_limit_per_hour": 2})).await;
        let run = || world.run(json!({"command": "echo", "parameters": {"word": "a"}}));
        let answers = futures::future::join_all((0..5).map(|_| run())).await;
        let ok = answers.iter().filter(|answer| answer.status.as_u16() == 200).count();
        let limited: Vec<_> = answers.iter().filter(|answer| answer.status.as_u16() == 429).collect();
        assert_eq!((ok, limited.len()), (2, 3));
        let after: u64 = limited[0].headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((3590..=3600).contains(&after), "{after}");
        execute(&world.store, "UPDATE command_executions SET created_at = created_at - 3600000").await;
        run().await.expect(200);

        world.command(json!({"slug": "slow", "cooldown_seconds": 60})).await;
        let run = || world.run(json!({"command": "slow", "parameters": {"word": "a"}}));
        run().await.expect(200);
        let refused = run().await.expect(429);
        let after: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((50..=60).contains(&after), "{after}");

        world.command(json!({"slug": "daily", "rate_limit_per_day": 1})).await;
        let run = || world.run(json!({"command": "daily", "parameters": {"word": "a"}}));
        run().await.expect(200);
        execute(&world.store, "UPDATE command_executions SET created_at = created_at - 3600000").await;
        run().await.expect(429);
        execute(&world.store, "UPDATE command_executions SET created_at = created_at - 86400000").await;
        run().await.expect(200);

        // Of all commands together, those that are not over.
        world.command(json!({"slug": "free"})).await;
        let run = || world.run(json!({"command": "free", "parameters": {"word": "a"}}));
        execute(&world.store, "UPDATE command_executions SET state = 'completed'").await;
        for _ in 0..16 {
            run().await.expect(200);
        }
        run().await.expect(429);
    })
    .await;
}

#[tokio::test]
async fn what_waits_can_be_cancelled_and_is_over_then() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let run = world.run(json!({"command": "disk-usage"})).await.expect(200);
        let log = format!("command-executions/{}", run.data()["command_log_id"].as_str().unwrap());
        let cancelled = world.owner.post(&world.path(&format!("{log}/cancel")), json!({})).await.expect(200);
        assert_eq!(cancelled.data()["status"], "cancelled");
        world.owner.post(&world.path(&format!("{log}/cancel")), json!({})).await.expect(409);
        let stream = world.owner.get(&world.path(&format!("{log}/stream"))).await;
        let text = String::from_utf8_lossy(&stream.bytes).into_owned();
        assert!(text.contains("event: end") && text.contains("cancelled"), "{text}");
        let run = world.run(json!({"command": "disk-usage"})).await.expect(200);
        let log = format!("command-executions/{}", run.data()["command_log_id"].as_str().unwrap());
        execute(&world.store, "UPDATE command_executions SET begin_before = 1 WHERE state = 'pending'").await;
        let late = world.owner.get(&world.path(&log)).await.expect(200);
        assert_eq!((&late.data()["status"], &late.data()["error"]["code"]), (&json!("expired"), &json!("expired")));
    })
    .await;
}

#[tokio::test]
async fn operators_make_change_and_delete_commands() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let id = world.command(json!({})).await;
        let path = format!("{ADMIN}/{id}");
        let again = json!({"slug": "echo", "argv": ["/bin/echo"]});
        world.operator.post(ADMIN, again).await.expect(409);
        let bad = json!({"slug": "Bad slug", "argv": ["echo"], "account": "ann", "risk_level": "none",
            "default_timeout": 0, "max_timeout": 9000, "cooldown_seconds": 0, "working_directory": "x"});
        let fields = [
            "account",
            "argv",
            "cooldown_seconds",
            "default_timeout",
            "max_timeout",
            "risk_level",
            "slug",
            "working_directory",
        ];
        world.operator.post(ADMIN, bad).await.expect_invalid(&fields);
        world.operator.post(ADMIN, json!({"slug": "x"})).await.expect_invalid(&["argv"]);
        let schema = json!({"slug": "x", "argv": ["/bin/x"], "parameter_schema": {"type": "object", "oneOf": []}});
        world.operator.post(ADMIN, schema).await.expect_invalid(&["parameter_schema.oneOf"]);
        let place = json!({"argv": ["/bin/echo", "{other}"]});
        world.operator.patch(&path, place).await.expect_invalid(&["argv"]);
        world.operator.patch(&path, json!({"slug": "other"})).await.expect_invalid(&["slug"]);
        let changed = world.operator.patch(&path, json!({"enabled": false, "cooldown_seconds": 5})).await.expect(200);
        assert_eq!((&changed.data()["enabled"], &changed.data()["cooldown_seconds"]), (&json!(false), &json!(5)));
        world.run(json!({"command": "echo", "parameters": {"word": "a"}})).await.expect(404);
        let changed = world.operator.put(&path, json!({"enabled": true, "cooldown_seconds": null})).await.expect(200);
        assert_eq!(changed.data()["cooldown_seconds"], Value::Null);
        world.run(json!({"command": "echo", "parameters": {"word": "a"}})).await.expect(200);

        world.operator.delete(&path).await.expect(200);
        world.operator.get(&path).await.expect(404);
        let kept = world.owner.get(&world.path("command-executions")).await.expect(200);
        assert_eq!(kept.data()["executions"][0]["command_slug"], "echo", "what was run stays");

        let all = world.operator.get(&format!("{ADMIN}?limit=100")).await.expect(200);
        let commands = all.data()["commands"].as_array().unwrap().clone();
        let reboot = commands.iter().find(|command| command["slug"] == "reboot").unwrap();
        let path = format!("{ADMIN}/{}", reboot["id"].as_str().unwrap());
        world.operator.delete(&path).await.expect(409);
        world.operator.patch(&path, json!({"argv": ["/bin/sh"]})).await.expect_invalid(&["argv"]);
        world.operator.patch(&path, json!({"rate_limit_per_day": 1})).await.expect(200);
    })
    .await;
}
