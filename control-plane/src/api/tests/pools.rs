//! Pools: roles, invitations, and whose servers one may use.

use super::world::{World, add_server};
use crate::{
    access::{Role, object},
    api::testing::{Answer, Client},
    error::ServiceError,
    store::testing::each_backend,
};
use http::Method;
use serde_json::{Value, json};

const POOLS: &str = "/api/v1/pools";

fn id(answer: &Answer) -> String {
    answer.data()["id"].as_str().unwrap().to_owned()
}

/// Invites and, where they are to, accepts.
async fn join(owner: &Client, pool: &str, member: &Client, name: &str, role: &str) {
    owner.post(&format!("{pool}/members"), json!({"username": name, "role": role})).await.expect(200);
    member.post(&format!("{pool}/accept"), json!({})).await.expect(200);
}

#[tokio::test]
async fn a_pool_lives() {
    each_backend(|store| async move {
        let app = crate::app::testing::app(&store).await;
        let (ann, user) = Client::new_user(&app, "ann", false).await;
        let default = ann.get(POOLS).await.expect(200);
        assert_eq!(default.data()[0]["is_default"], true);
        assert_eq!((&default.data()[0]["user_role"], &default.data()[0]["member_count"]), (&json!("owner"), &json!(1)));
        ann.delete(&format!("{POOLS}/{user}")).await.expect(409);

        ann.post(POOLS, json!({"description": "x".repeat(501)})).await.expect_invalid(&["description"]);
        ann.post(POOLS, json!({"name": " "})).await.expect_invalid(&["name"]);
        let made = ann.post(POOLS, json!({"name": "Team", "settings": {"a": 1}})).await.expect(200);
        assert_eq!((&made.data()["is_default"], &made.data()["settings"]), (&json!(false), &json!({"a": 1})));
        ann.post(POOLS, json!({"name": "Team"})).await.expect(409);
        let pool = format!("{POOLS}/{}", id(&made));
        ann.patch(&pool, json!({"name": "Crew", "description": "us"})).await.expect(200);
        let got = ann.get(&pool).await.expect(200);
        assert_eq!((&got.data()["name"], &got.data()["description"]), (&json!("Crew"), &json!("us")));
        assert_eq!(got.data()["members"][0]["user"]["username"], "ann");
        assert_eq!(got.data()["settings"], json!({"a": 1}));

        let (bob, bobs_id) = Client::new_user(&app, "bob", false).await;
        bob.get(&pool).await.expect(404);
        bob.post(&format!("{pool}/accept"), json!({})).await.expect(404);
        let members = format!("{pool}/members");
        ann.post(&members, json!({"role": "king"})).await.expect_invalid(&["role", "username"]);
        ann.post(&members, json!({"username": "nobody", "role": "user"})).await.expect(404);
        ann.post(&members, json!({"username": "ann", "role": "user"})).await.expect(409);
        let invited = ann.post(&members, json!({"user_id": bobs_id.to_string(), "role": "member"})).await.expect(200);
        assert_eq!((&invited.data()["role"], &invited.data()["is_authorized"]), (&json!("user"), &json!(false)));
        ann.post(&members, json!({"username": "bob", "role": "user"})).await.expect(409);
        // Invited is not in.
        bob.get(&pool).await.expect(404);
        let pending = bob.get(&format!("{POOLS}/invitations/pending")).await.expect(200);
        assert_eq!(pending.data()[0]["pool_name"], "Crew");
        assert_eq!(pending.data()[0]["invited_by"]["username"], "ann");
        bob.post(&format!("{pool}/reject"), json!({})).await.expect(200);
        assert_eq!(bob.get(&format!("{POOLS}/invitations/pending")).await.expect(200).data(), &json!([]));
        join(&ann, &pool, &bob, "bob", "user").await;
        assert_eq!(bob.get(&pool).await.expect(200).data()["members"].as_array().unwrap().len(), 2);
        assert_eq!(bob.get(POOLS).await.expect(200).data()[1]["user_role"], "user");
        bob.delete(&format!("{members}/{bobs_id}")).await.expect(200);
        bob.get(&pool).await.expect(404);
        // Who is in it, or invited, when it is deleted learns that as if they had been removed.
        join(&ann, &pool, &bob, "bob", "user").await;
        let (carl, _) = Client::new_user(&app, "carl", false).await;
        ann.post(&members, json!({"username": "carl", "role": "admin"})).await.expect(200);
        ann.delete(&pool).await.expect(200);
        ann.get(&pool).await.expect(404);
        let told = async |client: &Client| {
            let listed = client.get("/api/v1/events?resource_type=pool&sort_order=asc").await.expect(200);
            let events = listed.data()["events"].as_array().unwrap().clone();
            events.iter().map(|event| event["event_type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let bobs = [
            "pool.invited",
            "pool.invitation_revoked",
            "pool.invited",
            "pool.member.joined",
            "pool.member.left",
            "pool.invited",
            "pool.member.joined",
            "pool.member.left",
        ];
        assert_eq!(told(&bob).await, bobs);
        assert_eq!(told(&carl).await, ["pool.invited", "pool.invitation_revoked"]);
        assert_eq!(told(&ann).await.len(), bobs.len() + 2, "the owner is told of each");
    })
    .await;
}

/// What each role may do with a pool: the status it gets, for owner, admin, user, invited and stranger.
#[tokio::test]
async fn every_operation_asks_for_its_role() {
    each_backend(|store| async move {
        let app = crate::app::testing::app(&store).await;
        let (ann, _) = Client::new_user(&app, "ann", false).await;
        let pool = format!("{POOLS}/{}", id(&ann.post(POOLS, json!({"name": "Team"})).await.expect(200)));
        let members = format!("{pool}/members");
        let mut callers = vec![ann.clone()];
        for (name, role) in [("admin", "admin"), ("user", "user"), ("invited", "user"), ("stranger", "")] {
            let (client, _) = Client::new_user(&app, name, false).await;
            match name {
                "stranger" => {}
                "invited" => {
                    let body = json!({"username": name, "role": role});
                    ann.post(&members, body).await.expect(200);
                }
                _ => join(&ann, &pool, &client, name, role).await,
            }
            callers.push(client);
        }
        let (_, other_admin) = Client::new_user(&app, "otheradmin", false).await;
        ann.post(&members, json!({"username": "otheradmin", "role": "admin"})).await.expect(200);
        let admin = format!("{members}/{other_admin}");
        let nobody = format!("{members}/0123456789abcdef01234567");
        let table: &[(Method, &str, Value, [u16; 5])] = &[
            (Method::GET, &pool, json!(null), [200, 200, 200, 404, 404]),
            (Method::PUT, &pool, json!({"description": "x"}), [200, 403, 403, 404, 404]),
            (Method::POST, &members, json!({"username": "nobody", "role": "user"}), [404, 404, 403, 404, 404]),
            (Method::POST, &members, json!({"username": "nobody", "role": "admin"}), [404, 403, 403, 404, 404]),
            (Method::PUT, &admin, json!({"role": "admin"}), [200, 403, 403, 404, 404]),
            (Method::DELETE, &nobody, json!(null), [404, 404, 403, 404, 404]),
            (Method::DELETE, &admin, json!(null), [200, 403, 403, 404, 404]),
            (Method::DELETE, &pool, json!(null), [200, 403, 403, 404, 404]),
        ];
        for (method, path, body, statuses) in table {
            // The owner last, since it works for them.
            for (client, status) in callers.iter().zip(statuses).rev() {
                let body = (!body.is_null()).then(|| body.clone());
                let answer = client.with(method.clone(), path, &[], body).await;
                assert_eq!(answer.status.as_u16(), *status, "{method} {path}: {}", answer.json);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn members_use_the_servers_and_leave_their_containers() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let (bob, bobs_id) = Client::new_user(&world.app, "bob", false).await;
        let project = id(&bob.post("/api/v1/projects", json!({"alias": "Bobs"})).await.expect(201));
        let containers = format!("/api/v1/projects/{project}/containers");
        let server = format!("/api/v1/servers/{}", world.server);
        let wanted = json!({"name": "guest", "server_id": world.server.to_string()});
        bob.get(&server).await.expect(404);
        bob.post(&containers, wanted.clone()).await.expect(404);

        // The default pool has every server of its owner.
        let default = format!("{POOLS}/{}", world.user);
        world.client.post(&format!("{default}/members"), json!({"username": "bob", "role": "user"})).await.expect(200);
        bob.post(&containers, wanted.clone()).await.expect(404);
        bob.post(&format!("{default}/accept"), json!({})).await.expect(200);
        assert_eq!(bob.get(&default).await.expect(200).data()["servers"][0]["name"], "one");
        assert_eq!(bob.get(&server).await.expect(200).data()["pool_id"], world.user.to_string());
        assert_eq!(bob.get(&server).await.expect(200).data()["access"]["role"], "user");
        assert_eq!(bob.get("/api/v1/servers").await.expect(200).data().as_array().unwrap().len(), 1);
        let guest = bob.post(&containers, wanted.clone()).await.expect(200);
        let guest = format!("/api/v1/containers/{}", id(&guest));
        // Sharing servers shows nobody's containers.
        world.client.get(&guest).await.expect(404);
        let hosts = world.create(json!({"name": "hosts"})).await;
        bob.get(&hosts).await.expect(404);

        world.client.delete(&format!("{default}/members/{bobs_id}")).await.expect(200);
        bob.get(&server).await.expect(404);
        bob.post(&containers, json!({"name": "more"})).await.expect(422);
        bob.get(&guest).await.expect(200);
        bob.delete(&guest).await.expect(200);

        // A pool of its own: only what is in it, and it stays while guests are on it.
        let pool = format!("{POOLS}/{}", id(&world.client.post(POOLS, json!({"name": "Lab"})).await.expect(200)));
        let lab = add_server(&store, "lab", world.user).await;
        world.sql(&format!("UPDATE servers SET pool_id = '{}' WHERE id = '{lab}'", &pool[POOLS.len() + 1..])).await;
        join(&world.client, &pool, &bob, "bob", "admin").await;
        bob.get(&server).await.expect(404);
        bob.get(&format!("/api/v1/servers/{lab}")).await.expect(200);
        world.sql("UPDATE servers SET online = 0").await;
        bob.post(&containers, json!({"name": "labs", "server_id": lab.to_string()})).await.expect(200);
        world.client.delete(&pool).await.expect(409);
        bob.delete(&pool).await.expect(403);
    })
    .await;
}

/// What each may do with a server is shown, and decided, by what they are in its pool.
#[tokio::test]
async fn servers_say_what_their_pools_members_may_do_with_them() {
    each_backend(|store| async move {
        let world = World::new(&store).await;
        let default = format!("{POOLS}/{}", world.user);
        let server = format!("/api/v1/servers/{}", world.server);
        let mut callers = vec![(world.client.clone(), world.user, "owner", Some(Role::Owner))];
        for (name, role, is) in
            [("admin", "admin", Some(Role::Admin)), ("user", "user", Some(Role::User)), ("stranger", "", None)]
        {
            let (client, id) = Client::new_user(&world.app, name, false).await;
            if is.is_some() {
                join(&world.client, &default, &client, name, role).await;
            }
            callers.push((client, id, name, is));
        }
        for (client, id, name, is) in &callers {
            let user = crate::store::user::by_id(&store, *id).await.unwrap().unwrap();
            let caller = crate::caller::Caller::of(&user);
            for needed in [Role::User, Role::Admin, Role::Owner] {
                let answer = object::on_server(store.reader(), &caller, world.server, needed).await;
                match is {
                    None => assert!(matches!(answer, Err(ServiceError::NotFound(_))), "{name}: {answer:?}"),
                    Some(role) if *role >= needed => assert_eq!(answer.unwrap(), *role, "{name}"),
                    Some(_) => assert!(matches!(answer, Err(ServiceError::Forbidden(_))), "{name}: {answer:?}"),
                }
            }
            let Some(role) = is else {
                client.get(&server).await.expect(404);
                continue;
            };
            let manages = *role >= Role::Admin;
            let access = json!({"role": role.as_str(), "can_place_containers": true, "can_manage_rental": manages,
                "can_run_commands": manages});
            assert_eq!(client.get(&server).await.expect(200).data()["access"], access, "{name}");
            assert_eq!(client.get("/api/v1/servers").await.expect(200).data()[0]["access"], access, "{name}");
        }
        // Whoever is made less may do less at once.
        let (_, admin, ..) = &callers[1];
        world.client.put(&format!("{default}/members/{admin}"), json!({"role": "user"})).await.expect(200);
        assert_eq!(callers[1].0.get(&server).await.expect(200).data()["access"]["can_run_commands"], false);
    })
    .await;
}
