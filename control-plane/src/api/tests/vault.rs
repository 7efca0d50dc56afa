//! The vault over the API.

use crate::{api::testing::Client, app::testing::app, store::testing::each_backend};
use http::Method;
use serde_json::{Value, json};

const KEYS: &str = "/api/v1/vault/keys";

#[tokio::test]
async fn values_come_back_and_are_nowhere_in_the_clear() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (client, user) = Client::new_user(&app, "ann", false).await;
        let (other, _) = Client::new_user(&app, "bob", false).await;
        let path = format!("{KEYS}/api%20key");
        let body = json!({"value": "hush-hush", "metadata": {"note": "whisper"}});
        let set = client.put(&path, body).await.expect(200);
        assert_eq!((&set.data()["key"], &set.data()["realm_id"]), (&json!("api key"), &json!("")));
        assert_eq!(set.data()["size_bytes"], 9 + r#"{"note":"whisper"}"#.len());
        let got = client.get(&path).await.expect(200);
        assert_eq!((&got.data()["value"], &got.data()["metadata"]["note"]), (&json!("hush-hush"), &json!("whisper")));
        other.get(&path).await.expect(404);

        // An update keeps the metadata, unless it says null.
        client.patch(&path, json!({"value": "new"})).await.expect(200);
        let listed = client.get(KEYS).await.expect(200);
        assert_eq!(
            (&listed.data()[0]["metadata"]["note"], &listed.data()[0]["value"]),
            (&json!("whisper"), &Value::Null)
        );
        client.put(&path, json!({"value": "newer", "metadata": null})).await.expect(200);
        assert_eq!(client.get(&path).await.expect(200).data()["metadata"], Value::Null);

        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT sealed_value, key FROM vault_entries").fetch_all(store.reader()).await.unwrap();
        assert!(!format!("{rows:?}").contains("newer"));
        // A sealed value that is copied to another key does not open there.
        let copy = format!(
            "INSERT INTO vault_entries SELECT user_id, realm_id, 'copy', sealed_value, sealed_metadata, size_bytes, \
             created_at, updated_at FROM vault_entries WHERE user_id = '{user}'"
        );
        super::world::execute(&store, &copy).await;
        client.get(&format!("{KEYS}/copy")).await.expect(500);
        client.delete(&format!("{KEYS}/copy")).await.expect(200);

        client.put(&path, json!({})).await.expect_invalid(&["value"]);
        client.put(&format!("{KEYS}/a%0Ab"), json!({"value": "x"})).await.expect_invalid(&["key"]);
        client.get(&format!("{KEYS}?realm_id=nope")).await.expect_invalid(&["realm_id"]);
        client.delete(&path).await.expect(200);
        client.delete(&path).await.expect(404);
        Client::new(&app).get(KEYS).await.expect(401);
    })
    .await;
}

#[tokio::test]
async fn realms_are_apart_and_limits_hold_also_for_writers_at_the_same_time() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let (client, _) = Client::new_user(&app, "ann", false).await;
        let realm = "0123456789abcdef01234567";
        let in_realm = format!("?realm_id={realm}");
        client.put(&format!("{KEYS}/k"), json!({"value": "outside"})).await.expect(200);
        client.put(&format!("{KEYS}/k{in_realm}"), json!({"value": "inside"})).await.expect(200);
        assert_eq!(client.get(&format!("{KEYS}/k")).await.expect(200).data()["value"], "outside");
        let inside = client.get(&format!("{KEYS}/k{in_realm}")).await.expect(200);
        assert_eq!((&inside.data()["value"], &inside.data()["realm_id"]), (&json!("inside"), &json!(realm)));

        // Two of four at once fit.
        let four_mib = "x".repeat(4 << 20);
        let writes = (0..4).map(|number| {
            let (client, body) = (client.clone(), json!({"value": four_mib}));
            async move { client.put(&format!("{KEYS}/big{number}"), body).await.status.as_u16() }
        });
        let mut statuses = futures::future::join_all(writes).await;
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 422, 422]);
        let stats = client.get("/api/v1/vault/stats").await.expect(200);
        assert_eq!(stats.data()["total_size_bytes"], (8 << 20) + 7);
        assert_eq!((&stats.data()["limit_mb"], &stats.data()["total_keys"]), (&json!(10.0), &json!(3)));
        let used: (i64,) = sqlx::query_as("SELECT size_bytes FROM vault_usage WHERE realm_id = ''")
            .fetch_one(store.reader())
            .await
            .unwrap();
        assert_eq!(used.0, (8 << 20) + 7, "refused writes count for nothing");
        let large = json!({"value": "x", "metadata": {"note": "y".repeat(256 << 10)}});
        client.put(&format!("{KEYS}/k"), large).await.expect_invalid(&["metadata"]);

        let cleared = client.with(Method::DELETE, "/api/v1/vault", &[], None).await.expect(200);
        assert_eq!(cleared.data()["deleted_count"], 3);
        assert_eq!(client.get("/api/v1/vault/stats").await.expect(200).data()["total_size_bytes"], 0);
        client.get(&format!("{KEYS}/k{in_realm}")).await.expect(200);
    })
    .await;
}
