//! The catalogue.

use crate::{
    api::testing::Client,
    app::testing::{app, config, with_config},
    service::image::blob_path,
    store::{
        image::tests::{image, put_image},
        testing::{each_backend, sqlite},
    },
};
use hoody_protocol::{id::ImageId, image::Digest};
use serde_json::{Value, json};

const PUBLIC: &str = "/api/v1/images/public";
const ADMIN: &str = "/api/v1/admin/images";

#[tokio::test]
async fn the_catalogue_is_listed_in_pages_and_filtered() {
    each_backend(|store| async move {
        for name in ["busybox", "debian/11", "debian/12"] {
            put_image(&store, &image(name, name.as_bytes())).await;
        }
        let (client, _) = Client::new_user(&app(&store).await, "ann", false).await;
        let list = async |query: &str| {
            let answer = client.get(&format!("{PUBLIC}?{query}")).await.expect(200);
            let images = answer.data()["images"].as_array().unwrap().clone();
            let names: Vec<&str> = images.iter().map(|image| image["alias"].as_str().unwrap()).collect();
            (names.join(" "), answer.data()["pagination"]["total"].as_u64().unwrap())
        };
        assert_eq!(list("").await, ("busybox debian/11 debian/12".to_owned(), 3));
        assert_eq!(list("sort_order=desc&limit=1&page=2").await, ("debian/11".to_owned(), 3));
        assert_eq!(list("os=debian&search=12").await, ("debian/12".to_owned(), 1));
        assert_eq!(list("architecture=x86_64&max_price=0").await.1, 3);
        assert_eq!(list("architecture=arm64").await.1, 0);
        assert_eq!(list("min_rating=1").await.1, 0);
        assert_eq!(list("sort_by=rating&sort_order=asc").await.1, 3);
    })
    .await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_field() {
    let (_folder, store) = sqlite().await;
    let (client, _) = Client::new_user(&app(&store).await, "ann", false).await;
    for (query, field) in [
        ("sort_by=id", "sort_by"),
        ("sort_order=up", "sort_order"),
        ("page=0", "page"),
        ("limit=101", "limit"),
        ("min_price=cheap", "min_price"),
        ("max_rating=6", "max_rating"),
        ("min_rating=nan", "min_rating"),
        ("search=%00", "search"),
    ] {
        client.get(&format!("{PUBLIC}?{query}")).await.expect_invalid(&[field]);
    }
}

#[tokio::test]
async fn an_image_is_shown_by_id() {
    let (_folder, store) = sqlite().await;
    let row = put_image(&store, &image("debian/12", b"layer")).await;
    let app = app(&store).await;
    let (client, _) = Client::new_user(&app, "ann", false).await;
    let path = format!("{PUBLIC}/{}/", row.id);
    let answer = client.get(&path).await.expect(200);
    let shown = answer.data().as_object().unwrap().clone();
    let expected = json!({
        "id": row.id, "alias": "debian/12", "image_name": "debian/12", "description": "debian/12 for tests",
        "os": "debian", "release": "12", "variant": null, "architecture": "amd64", "size": 5, "price": 0.0,
        "average_rating": 0.0, "rating_count": 0, "prespawn": false, "icon_url": null,
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&shown[field], value, "{field}");
    }
    assert_eq!(shown["serial"].as_str().unwrap().len(), "20260131120000".len());
    client.get(&format!("{PUBLIC}/{}", ImageId::generate())).await.expect(404);
    client.get(&format!("{PUBLIC}/x")).await.expect_invalid(&["id"]);
    Client::new(&app).get(&path).await.expect(401);
}

#[tokio::test]
async fn only_operators_see_blobs_and_delete() {
    let (_folder, store) = sqlite().await;
    let row = put_image(&store, &image("debian/12", b"layer")).await;
    let data = tempfile::tempdir().unwrap();
    let blob = blob_path(data.path(), Digest::of(b"layer"));
    std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
    std::fs::write(&blob, b"layer").unwrap();
    let mut config = config();
    config.data_dir = data.path().to_owned();
    let app = with_config(&store, config).await;
    let (user, _) = Client::new_user(&app, "ann", false).await;
    let (admin, _) = Client::new_user(&app, "operator", true).await;
    let one = format!("{ADMIN}/{}", row.id);
    user.get(ADMIN).await.expect(403);
    user.delete(&one).await.expect(403);
    let answer = admin.get(ADMIN).await.expect(200);
    let layer: &Value = &answer.data()["images"][0]["layers"][0];
    assert_eq!(layer, &json!({"digest": Digest::of(b"layer"), "size": 5, "compression": "gzip"}));
    assert!(blob.exists());
    admin.delete(&one).await.expect(200);
    assert!(!blob.exists());
    admin.delete(&one).await.expect(404);
}

#[tokio::test]
async fn users_take_and_rate_images() {
    each_backend(|store| async move {
        let app = app(&store).await;
        let row = put_image(&store, &image("debian/12", b"a")).await;
        put_image(&store, &image("busybox", b"b")).await;
        let (ann, _) = Client::new_user(&app, "ann", false).await;
        let (bob, _) = Client::new_user(&app, "bob", false).await;
        let rate = format!("/api/v1/images/rate/{}", row.id);
        ann.post(&rate, json!({"rating": 4})).await.expect(409);
        let taken = ann.post(&format!("/api/v1/images/import/{}", row.id), json!({})).await.expect(200);
        assert_eq!(taken.data()["alias"], "debian/12");
        ann.post(&format!("/api/v1/images/import/{}", row.id), json!({})).await.expect(200);
        let bought = bob.post(&format!("/api/v1/images/purchase/{}", row.id), json!({})).await.expect(200);
        assert_eq!(bought.data()["price_paid"], 0.0);
        for operation in ["import", "purchase"] {
            let path = format!("/api/v1/images/{operation}/{}", ImageId::generate());
            ann.post(&path, json!({})).await.expect(404);
        }

        ann.post(&rate, json!({"rating": 5.1})).await.expect_invalid(&["rating"]);
        ann.post(&rate, json!({"rating": -1})).await.expect_invalid(&["rating"]);
        ann.post(&rate, json!({"rating": 1})).await.expect(200);
        ann.post(&rate, json!({"rating": 4.5})).await.expect(200);
        let rated = bob.post(&rate, json!({"rating": 3})).await.expect(200);
        assert_eq!(*rated.data(), json!({"new_rating": 3.0, "average_rating": 3.75, "rating_count": 2}));
        let own = ann.get("/api/v1/images/user?sort_by=created_at&sort_order=asc").await.expect(200);
        assert_eq!(own.data()["pagination"]["total"], 1);
        let first = &own.data()["images"][0];
        assert_eq!((&first["has_rated"], &first["user_rating"]), (&json!(true), &json!(4.5)));
        assert_eq!(first["average_rating"], 3.75);

        let list = async |query: &str| {
            let answer = ann.get(&format!("{PUBLIC}?{query}")).await.expect(200);
            let images = answer.data()["images"].as_array().unwrap().clone();
            images.iter().map(|image| image["alias"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(list("sort_by=rating&sort_order=desc").await, "debian/12 busybox");
        assert_eq!(list("min_rating=3.7").await, "debian/12");
        assert_eq!(list("max_rating=3.7").await, "busybox");
        assert_eq!(list("min_rating=3.75&max_rating=3.75").await, "debian/12");
    })
    .await;
}

#[tokio::test]
async fn an_icon_is_for_everybody() {
    let (_folder, store) = sqlite().await;
    let app = app(&store).await;
    let row = put_image(&store, &image("debian/12", b"a")).await;
    let path = format!("/api/v1/images/{}/icon", row.id);
    let nobody = Client::new(&app);
    nobody.get(&path).await.expect(404);
    crate::store::image_icon::put(&store, row.id, "image/png", "iVBORw0K").await.unwrap();
    let icon = nobody.get(&path).await.expect(200);
    assert_eq!(icon.data(), "data:image/png;base64,iVBORw0K");
    let (ann, _) = Client::new_user(&app, "ann", false).await;
    let shown = ann.get(&format!("{PUBLIC}/{}", row.id)).await.expect(200);
    assert_eq!(shown.data()["icon_url"], path);
}
