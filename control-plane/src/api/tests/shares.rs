//! Shares through the API: what each request makes of the specifications of targets, who may, and what is said.

use super::world::{World, add_server, execute};
use crate::{
    api::testing::Client,
    nodes::simulated::Faults,
    store::{container, testing::each_backend},
};
use hoody_protocol::{
    share::{MAX_SHARES, ShareProblem},
    time::now_ms,
};
use serde_json::{Value, json};

/// What the specification of the container at `path` mounts: names, and whether they are read-only.
async fn mounted(world: &World, path: &str) -> Vec<(String, bool)> {
    let id = path.rsplit('/').next().unwrap().parse().unwrap();
    let row = container::get(&world.app.store, id).await.unwrap().unwrap();
    row.spec.shares.iter().map(|share| (share.name.to_string(), share.readonly)).collect()
}

fn id_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

async fn kinds(world: &World) -> Vec<String> {
    let events = world.client.get("/api/v1/events?resource_type=storage_share&limit=100").await.expect(200);
    let mut kinds: Vec<_> = events.data()["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["event_type"].as_str().unwrap().trim_start_matches("storage.share.").to_owned())
        .collect();
    kinds.sort();
    kinds
}

#[tokio::test]
async fn a_share_is_part_of_its_targets_specification_at_once() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let source = world.create(json!({"name": "source", "autostart": true})).await;
        let target = world.create(json!({"name": "target", "autostart": true})).await;
        let shares = format!("{source}/storage/shares");
        let body = json!({"path": "/data//shared", "target_container_id": id_of(&target), "mode": "rw", "alias": "shared",
            "label": "uploads", "description": "what is uploaded"});
        let made = world.client.post(&shares, body).await.expect(201);
        let share = made.data().clone();
        let expected = json!({"source_container_id": id_of(&source), "source_path": "/data/shared",
            "target_type": "container", "target_container_id": id_of(&target), "target_project_id": null,
            "mode": "readwrite", "alias": "shared", "label": "uploads", "enabled": true, "status": "active",
            "status_message": null, "expires_at": null, "expiry_notified": false, "mount_path": "/mnt/shares/shared"});
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&share[field], value, "{field}");
        }
        assert_eq!(mounted(&world, &target).await, [("shared".to_owned(), false)]);

        let id = share["id"].as_str().unwrap();
        let path = format!("{shares}/{id}");
        assert_eq!(world.client.get(&path).await.expect(200).data(), &share);
        world.client.patch(&path, json!({"mode": "ro", "alias": null})).await.expect(200);
        assert_eq!(mounted(&world, &target).await, [(id.to_owned(), true)]);
        let disabled = world.client.patch(&path, json!({"enabled": false})).await.expect(200);
        assert_eq!((&disabled.data()["status_message"], mounted(&world, &target).await.len()), (&json!("it is disabled"), 0));
        world.client.patch(&path, json!({"enabled": true})).await.expect(200);
        world.client.patch(&path, json!({"enabled": true})).await.expect(200);

        // The target refuses, and takes it again.
        let choice = format!("{target}/storage/incoming/{id}/mount");
        let refused = world.client.patch(&choice, json!({"enabled": false})).await.expect(200);
        assert_eq!((&refused.data()["override"]["mount"], &refused.data()["override"]["share_id"]), (&json!(false), &json!(id)));
        assert!(mounted(&world, &target).await.is_empty());
        let incoming = world.client.get(&format!("{target}/storage/incoming")).await.expect(200);
        assert_eq!((&incoming.data()[0]["id"], &incoming.data()[0]["mount"]), (&json!(id), &json!(false)));
        world.client.patch(&choice, json!({"mount_enabled": true})).await.expect(200);
        assert_eq!(mounted(&world, &target).await.len(), 1);

        world.client.delete(&format!("/api/v1/storage/shares/{id}")).await.expect(200);
        assert!(mounted(&world, &target).await.is_empty());
        world.client.get(&path).await.expect(404);
        assert_eq!(
            kinds(&world).await,
            ["created", "deleted", "disabled", "enabled", "mount_changed", "mount_changed", "updated"]
        );
    })
    .await;
}

#[tokio::test]
async fn a_share_for_a_project_reaches_every_container_of_it() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let source = world.create(json!({"name": "source"})).await;
        let first = world.create(json!({"name": "first"})).await;
        let body =
            json!({"source_path": "/srv", "mode": "readonly", "target_project_id": world.project, "alias": "all"});
        let share =
            world.client.post(&format!("{source}/storage/shares"), body.clone()).await.expect(201).data().clone();
        let second = world.create(json!({"name": "second"})).await;
        let all = [("all".to_owned(), true)];
        assert_eq!(mounted(&world, &first).await, all);
        assert_eq!(mounted(&world, &second).await, all, "made later");
        assert!(mounted(&world, &source).await.is_empty(), "not its own");
        // Another of the same alias goes by its id.
        let other = world.client.post(&format!("{second}/storage/shares"), body).await.expect(201).data().clone();
        let other = (other["id"].as_str().unwrap().to_owned(), true);
        assert_eq!(mounted(&world, &first).await, [all[0].clone(), other.clone()]);
        assert_eq!(mounted(&world, &source).await, [("all".to_owned(), true)]);
        // One container refuses: the others keep it.
        let choice = format!("{first}/storage/incoming/{}/mount", share["id"].as_str().unwrap());
        let refused = world.client.patch(&choice, json!({"mount": false})).await.expect(200);
        assert_eq!(refused.data()["share"]["status_message"], "1 of 2 containers have not accepted it");
        assert_eq!(mounted(&world, &first).await, [("all".to_owned(), true)], "the other takes the name");
        assert_eq!(mounted(&world, &second).await, all);
        // With the source its shares go.
        world.client.delete(&source).await.expect(200);
        assert!(mounted(&world, &second).await.is_empty());
        assert_eq!(world.client.get("/api/v1/storage/shares").await.expect(200).data().as_array().unwrap().len(), 1);
        assert_eq!(world.client.get("/api/v1/storage/incoming").await.expect(200).data().as_array().unwrap().len(), 1);
        world.client.delete(&second).await.expect(200);
        assert_eq!(world.client.get("/api/v1/storage/shares").await.expect(200).data(), &json!([]));
    })
    .await;
}

#[tokio::test]
async fn a_share_has_a_place_of_its_own_and_gives_it_back() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let source = world.create(json!({"name": "source"})).await;
        let target = world.create(json!({"name": "target"})).await;
        let shares = format!("{source}/storage/shares");
        // As the seeds write it.
        let body = json!({"path": "/data/shared", "target_container_id": id_of(&target), "mode": "rw",
            "mount_path": "/mnt/shared"});
        let made = world.client.post(&shares, body).await.expect(201).data().clone();
        assert_eq!((&made["mount_path"], &made["alias"]), (&json!("/mnt/shared"), &Value::Null));
        let path = format!("{shares}/{}", made["id"].as_str().unwrap());
        let place = async |body: Value| {
            let told = world.client.patch(&path, body).await.expect(200).data().clone();
            let id = id_of(&target).parse().unwrap();
            let row = crate::store::container::get(&store, id).await.unwrap().unwrap();
            let place = row.spec.shares[0].place.as_ref().map(|place| place.to_string());
            (told["mount_path"].as_str().unwrap().to_owned(), place)
        };
        let at = |path: &str| (path.to_owned(), Some(path.to_owned()));
        assert_eq!(place(json!({"label": "kept"})).await, at("/mnt/shared"));
        assert_eq!(place(json!({"mount_path": "/srv//here/"})).await, at("/srv/here"));
        assert_eq!(place(json!({"mount_path": "/mnt/shares/data"})).await, ("/mnt/shares/data".to_owned(), None));
        assert_eq!(place(json!({"mount_path": "/srv/here"})).await, at("/srv/here"));
        assert_eq!(place(json!({"mount_path": null})).await, ("/mnt/shares/data".to_owned(), None));
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_shared_is_refused() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let source = world.create(json!({"name": "source"})).await;
        let target = world.create(json!({"name": "target"})).await;
        let shares = format!("{source}/storage/shares");
        let body = |target: &str, more: Value| {
            let mut body = json!({"source_path": "/srv", "mode": "ro", "target_container_id": target});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        for path in ["/", "/proc/self", "/sys", "/dev/shm", "/mnt", "/srv/../etc", "srv"] {
            let body = body(id_of(&target), json!({"source_path": path}));
            world.client.post(&shares, body).await.expect_invalid(&["source_path"]);
        }
        for path in ["/run/shared", "/proc/x", "/etc", "/mnt/shares", "shared"] {
            let body = body(id_of(&target), json!({"mount_path": path}));
            world.client.post(&shares, body).await.expect_invalid(&["mount_path"]);
        }
        let itself = world.client.post(&shares, body(id_of(&source), json!({}))).await.expect(422);
        assert!(itself.json["error"]["details"]["target_container_id"].is_string());
        world.client.post(&shares, body("0123456789abcdef01234567", json!({}))).await.expect(404);
        // On another server.
        let other = add_server(&store, "two", world.user).await;
        let elsewhere = id_of(&target);
        execute(&store, &format!("UPDATE containers SET server_id = '{other}' WHERE id = '{elsewhere}'")).await;
        let refused = world.client.post(&shares, body(elsewhere, json!({}))).await.expect(422);
        assert!(
            refused.json["message"].as_str().unwrap().contains("different servers (one and two)"),
            "{}",
            refused.json
        );
        // Strangers neither see nor touch anything.
        let (stranger, _) = Client::new_user(&world.app, "stranger", false).await;
        let mine = world.create(json!({"name": "mine"})).await;
        let made = world.client.post(&shares, body(id_of(&mine), json!({}))).await.expect(201);
        let id = made.data()["id"].as_str().unwrap();
        stranger.delete(&format!("/api/v1/storage/shares/{id}")).await.expect(404);
        stranger.get(&format!("{shares}/{id}")).await.expect(404);
        assert_eq!(stranger.get("/api/v1/storage/shares").await.expect(200).data(), &json!([]));
        assert_eq!(stranger.get("/api/v1/storage/incoming").await.expect(200).data(), &json!([]));
        world.client.get(&format!("{mine}/storage/shares/{id}")).await.expect(404);
        let change = json!({"label": "abc"});
        world.client.patch(&format!("{mine}/storage/shares/{id}"), change).await.expect(404);
        world.client.patch(&format!("{source}/storage/incoming/{id}/mount"), json!({"mount": true})).await.expect(404);
        for (query, count) in [
            ("target_type=project", 0),
            ("target_type=container", 1),
            ("enabled=false", 0),
            ("status=active", 1),
            ("label=abc", 0),
        ] {
            let found = world.client.get(&format!("{shares}?{query}")).await.expect(200);
            assert_eq!(found.data().as_array().unwrap().len(), count, "{query}");
        }
        world.client.get(&format!("{shares}?status=odd")).await.expect_invalid(&["status"]);
    })
    .await;
}

#[tokio::test]
async fn who_only_sees_the_target_offers_and_its_people_accept() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let target = world.create(json!({"name": "target"})).await;
        let (bob, user) = Client::new_user(&world.app, "bob", false).await;
        add_server(&store, "bobs", user).await;
        let project = bob.post("/api/v1/projects", json!({"alias": "Bob"})).await.expect(201);
        let containers = format!("/api/v1/projects/{}/containers", project.data()["id"].as_str().unwrap());
        let made = bob.post(&containers, json!({"name": "source"})).await.expect(200);
        let source = made.data()["id"].as_str().unwrap().to_owned();
        execute(&store, &format!("UPDATE containers SET server_id = '{}' WHERE id = '{source}'", world.server)).await;
        let shares = format!("/api/v1/containers/{source}/storage/shares");
        let body = json!({"source_path": "/srv", "mode": "ro", "target_container_id": id_of(&target)});
        bob.post(&shares, body.clone()).await.expect(404);
        let permission = json!({"user_id": user.to_string(), "permission_level": "read"});
        let permissions = format!("/api/v1/projects/{}/permissions", world.project);
        let permission = world.client.post(&permissions, permission).await.expect(201).data()["id"].clone();
        let offered = bob.post(&shares, body).await.expect(201).data().clone();
        assert_eq!(offered["status_message"], "1 of 1 containers have not accepted it");
        assert!(mounted(&world, &target).await.is_empty());
        let choice = format!("{target}/storage/incoming/{}/mount", offered["id"].as_str().unwrap());
        bob.patch(&choice, json!({"mount": true})).await.expect(403);
        world.client.patch(&choice, json!({"mount": true})).await.expect(200);
        assert_eq!(mounted(&world, &target).await.len(), 1);

        // They accepted what it was: where it appears in their container is not changed behind their backs.
        let path = format!("{shares}/{}", offered["id"].as_str().unwrap());
        bob.patch(&path, json!({"mount_path": "/usr/local/bin"})).await.expect(403);
        bob.patch(&path, json!({"mount_path": "/mnt/shares/mine", "label": "mine"})).await.expect(200);
        assert_eq!(mounted(&world, &target).await, [("mine".to_owned(), true)]);
        let placed = json!({"source_path": "/srv", "mode": "ro", "target_container_id": id_of(&target),
            "mount_path": "/srv/placed"});
        let placed = bob.post(&shares, placed).await.expect(201).data().clone();
        let path = format!("{shares}/{}", placed["id"].as_str().unwrap());
        bob.patch(&path, json!({"mount_path": "/srv/other"})).await.expect(403);
        assert_eq!(bob.get(&path).await.expect(200).data()["mount_path"], "/srv/placed");
        bob.patch(&path, json!({"mount_path": "/srv//placed/", "mode": "rw"})).await.expect(200);
        bob.patch(&path, json!({"mount_path": null})).await.expect(200);
        bob.patch(&path, json!({"mount_path": "/srv/placed"})).await.expect(403);
        // Who may change the target, too, moves it.
        let edit = json!({"permission_level": "edit"});
        world.client.patch(&format!("{permissions}/{}", permission.as_str().unwrap()), edit).await.expect(200);
        bob.patch(&path, json!({"mount_path": "/srv/other"})).await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn who_only_sees_the_source_neither_shares_nor_changes_anything() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let source = world.create(json!({"name": "source"})).await;
        let target = world.create(json!({"name": "target"})).await;
        let shares = format!("{source}/storage/shares");
        let body = json!({"source_path": "/srv", "mode": "ro", "target_container_id": id_of(&target)});
        let made = world.client.post(&shares, body.clone()).await.expect(201).data().clone();
        let id = made["id"].as_str().unwrap();
        let (reader, user) = Client::new_user(&world.app, "reader", false).await;
        let permission = json!({"user_id": user.to_string(), "permission_level": "read"});
        world.client.post(&format!("/api/v1/projects/{}/permissions", world.project), permission).await.expect(201);
        reader.get(&format!("{shares}/{id}")).await.expect(200);
        reader.post(&shares, body).await.expect(403);
        reader.patch(&format!("{shares}/{id}"), json!({"mode": "rw"})).await.expect(403);
        reader.delete(&format!("/api/v1/storage/shares/{id}")).await.expect(403);
        assert_eq!(world.client.get(&format!("{shares}/{id}")).await.expect(200).data(), &made);
    })
    .await;
}

#[tokio::test]
async fn a_container_that_goes_neither_shares_nor_accepts() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let source = world.create(json!({"name": "source"})).await;
        let target = world.create(json!({"name": "target"})).await;
        let body = json!({"source_path": "/srv", "mode": "ro", "target_container_id": id_of(&target)});
        let shares = format!("{source}/storage/shares");
        let made = world.client.post(&shares, body.clone()).await.expect(201).data().clone();
        let id = made["id"].as_str().unwrap();
        world.offline().await;
        for container in [&source, &target] {
            world.client.delete(container).await.expect(200);
        }
        world.client.post(&shares, body).await.expect(409);
        world.client.patch(&format!("{target}/storage/incoming/{id}/mount"), json!({"mount": false})).await.expect(409);
    })
    .await;
}

#[tokio::test]
async fn there_are_as_many_shares_as_there_can_be() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let source = world.create(json!({"name": "source"})).await;
        let shares = format!("{source}/storage/shares");
        let offer = async |target: &str, path: usize| {
            let path = format!("/srv/{path}");
            let body = json!({"source_path": path, "mode": "ro", "target_container_id": id_of(target)});
            world.client.post(&shares, body).await
        };
        let refused = async |target: &str, field: &str| {
            let refused = offer(target, 100).await.expect(422);
            assert!(refused.json["error"]["details"][field].is_string(), "{}", refused.json);
        };
        let mut targets = Vec::new();
        for name in ["one", "two", "three"] {
            targets.push(world.create(json!({"name": name})).await);
        }
        for target in &targets[..2] {
            for number in 0..MAX_SHARES {
                offer(target, number).await.expect(201);
            }
            if target == &targets[0] {
                refused(target, "target_container_id").await;
            }
        }
        // The most of one container.
        refused(&targets[2], "shares").await;

        // What is over is not in the way of another.
        let body = json!({"source_path": "/srv", "mode": "ro", "target_container_id": id_of(&targets[0])});
        let again = async || world.client.post(&format!("{}/storage/shares", targets[2]), body.clone()).await;
        again().await.expect(422);
        execute(&store, "UPDATE shares SET expired = 1").await;
        again().await.expect(201);
    })
    .await;
}

/// Twenty for a container and twenty for its project are more than it mounts: the newest are not said to be refused.
#[tokio::test]
async fn what_a_container_has_no_room_for_is_said() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let source = world.create(json!({"name": "source"})).await;
        let target = world.create(json!({"name": "target"})).await;
        let mut last = Value::Null;
        for field in ["target_container_id", "target_project_id"] {
            let to = if field == "target_project_id" { world.project.to_string() } else { id_of(&target).to_owned() };
            for number in 0..20 {
                let body = json!({"source_path": format!("/srv/{number}"), "mode": "ro", field: to});
                last = world.client.post(&format!("{source}/storage/shares"), body).await.expect(201).data().clone();
            }
        }
        assert_eq!(last["status_message"], "1 of 1 containers mount 32 older ones already, the most they can");
        let choice = format!("{target}/storage/incoming/{}/mount", last["id"].as_str().unwrap());
        world.client.patch(&choice, json!({"mount": false})).await.expect(200);
        world.client.patch(&choice, json!({"mount": true})).await.expect(422);
        assert_eq!(mounted(&world, &target).await.len(), MAX_SHARES);
    })
    .await;
}

/// Somebody who only sees a project offers it what they like, and keeps nobody there from sharing.
#[tokio::test]
async fn offers_take_no_room_and_are_bounded_for_who_makes_them() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let own = world.create(json!({"name": "own"})).await;
        let (bob, user) = Client::new_user(&world.app, "bob", false).await;
        add_server(&store, "bobs", user).await;
        let project = bob.post("/api/v1/projects", json!({"alias": "Bob"})).await.expect(201);
        let containers = format!("/api/v1/projects/{}/containers", project.data()["id"].as_str().unwrap());
        let made = bob.post(&containers, json!({"name": "source"})).await.expect(200);
        let shares = format!("/api/v1/containers/{}/storage/shares", made.data()["id"].as_str().unwrap());
        let permission = json!({"user_id": user.to_string(), "permission_level": "read"});
        world.client.post(&format!("/api/v1/projects/{}/permissions", world.project), permission).await.expect(201);
        let body = |path: usize| {
            let path = format!("/srv/{path}");
            json!({"source_path": path, "mode": "ro", "target_project_id": world.project.to_string()})
        };
        for number in 0..32 {
            bob.post(&shares, body(number)).await.expect(201);
        }
        let refused = bob.post(&shares, body(32)).await.expect(422);
        assert!(refused.json["error"]["details"]["target_project_id"].is_string(), "{}", refused.json);
        world.client.post(&format!("{own}/storage/shares"), body(0)).await.expect(201);
    })
    .await;
}

#[tokio::test]
async fn what_the_server_cannot_mount_is_said() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let source = world.create(json!({"name": "source"})).await;
        let target = world.running().await;
        world.node.set(Faults { share: Some(ShareProblem::SourceMissing), ..Faults::default() }).await;
        let body = json!({"source_path": "/srv", "mode": "ro", "target_container_id": id_of(&target), "alias": "data"});
        let made = world.client.post(&format!("{source}/storage/shares"), body).await.expect(201);
        assert_eq!(made.data()["status"], "failed");
        assert!(made.data()["status_message"].as_str().unwrap().starts_with("in web: the folder is not there"));
        let warnings = world.client.get(&target).await.expect(200).data()["warnings"].clone();
        assert_eq!(warnings[0]["type"], "share_not_mounted");
        let failed = world.client.get(&format!("{source}/storage/shares?status=failed")).await.expect(200);
        assert_eq!(failed.data().as_array().unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn an_end_is_told_before_and_carried_out_once() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let source = world.create(json!({"name": "source"})).await;
        let target = world.create(json!({"name": "target"})).await;
        let shares = format!("{source}/storage/shares");
        let at = now_ms() / 1000 + 3600;
        let body =
            json!({"source_path": "/srv", "mode": "ro", "target_container_id": id_of(&target), "expires_at": at});
        let made = world.client.post(&shares, body).await.expect(201);
        assert_eq!(made.data()["expires_at"], at);
        let path = format!("{shares}/{}", made.data()["id"].as_str().unwrap());
        for round in 0..2 {
            crate::service::share::tell_ending(&world.app).await.unwrap();
            assert_eq!(crate::service::share::end_due(&world.app).await.unwrap(), 0, "{round}");
        }
        assert_eq!(world.client.get(&path).await.expect(200).data()["expiry_notified"], true);
        assert_eq!(mounted(&world, &target).await.len(), 1);
        execute(&store, &format!("UPDATE shares SET expires_at = {}", now_ms() - 1)).await;
        assert_eq!(crate::service::share::end_due(&world.app).await.unwrap(), 1);
        assert_eq!(crate::service::share::end_due(&world.app).await.unwrap(), 0);
        assert!(mounted(&world, &target).await.is_empty());
        assert_eq!(kinds(&world).await, ["created", "expired", "expiring_soon"]);
        assert_eq!(world.client.get(&shares).await.expect(200).data(), &json!([]));
        let all = world.client.get(&format!("{shares}?include_expired=true")).await.expect(200);
        assert!(all.data()[0]["status_message"].as_str().unwrap().contains("expired"));
        // Put off, it is mounted again; milliseconds are answered as such.
        let later = now_ms() + 3_600_000;
        let changed = world.client.patch(&path, json!({"expires_at": later})).await.expect(200);
        assert_eq!((&changed.data()["expires_at"], &changed.data()["expiry_notified"]), (&json!(later), &json!(false)));
        assert_eq!(mounted(&world, &target).await.len(), 1);
        world.client.patch(&path, json!({"expires_at": 1})).await.expect_invalid(&["expires_at"]);
    })
    .await;
}

#[tokio::test]
async fn a_ramdisk_is_part_of_the_specification() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let path = world.create(json!({"name": "web", "ramdisk": true})).await;
        let data = async || {
            let data = world.client.get(&path).await.expect(200).data().clone();
            (data["ramdisk"].clone(), data["ramdisk_scope"].clone())
        };
        assert_eq!(data().await, (json!(true), json!("container")));
        world.client.patch(&path, json!({"ramdisk_scope": "project"})).await.expect(200);
        assert_eq!(data().await, (json!(true), json!("project")));
        let id = id_of(&path).parse().unwrap();
        let spec = container::get(&store, id).await.unwrap().unwrap().spec;
        assert_eq!(spec.ramdisk, Some(hoody_protocol::share::RamdiskScope::Project));
        world.client.patch(&path, json!({"ramdisk": false})).await.expect(200);
        assert_eq!(data().await, (json!(false), json!("project")));
    })
    .await;
}
