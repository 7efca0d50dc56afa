//! The catalogue over HTTP.

use crate::{
    api,
    app::{App, testing},
    keys::{Claims, TokenKind},
    service::image::blob_path,
    store::{
        Store,
        image::tests::{image, put_image},
        testing::sqlite,
        user::{self, NewUser},
    },
};
use axum::body::{Body, to_bytes};
use hoody_protocol::{
    id::{ImageId, SessionId},
    image::Digest,
};
use http::{Method, Request, StatusCode};
use serde_json::Value;
use tower::ServiceExt;

struct Fixture {
    app: App,
    data: tempfile::TempDir,
    _database: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let (database, store) = sqlite().await;
        let data = tempfile::tempdir().unwrap();
        let mut config = testing::config();
        config.data_dir = data.path().to_owned();
        Self { app: testing::with_config(&store, config).await, data, _database: database }
    }

    fn store(&self) -> &Store {
        &self.app.store
    }

    async fn token(&self, username: &str, is_admin: bool) -> String {
        let mut transaction = self.store().begin().await.unwrap();
        let new = NewUser { username, email: None, password_hash: "", is_admin };
        let id = user::insert(&mut transaction, &new).await.unwrap();
        transaction.commit().await.unwrap();
        self.app.keys.tokens.sign(&Claims::new(TokenKind::Access, id, SessionId::generate(), 1)).unwrap()
    }

    async fn call(&self, method: Method, path: &str, token: Option<&str>) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::empty()).unwrap();
        let response = api::router(self.app.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }
}

#[tokio::test]
async fn the_catalogue_is_listed_in_pages_and_filtered() {
    let fixture = Fixture::new().await;
    for name in ["busybox", "debian/11", "debian/12"] {
        put_image(fixture.store(), &image(name, name.as_bytes())).await;
    }
    let token = fixture.token("ann", false).await;
    let list = async |query: &str| {
        let (status, body) = fixture.call(Method::GET, &format!("/api/v1/images/public?{query}"), Some(&token)).await;
        assert_eq!(status, StatusCode::OK, "{query}: {body}");
        let images = body["data"]["images"].as_array().unwrap();
        let names: Vec<&str> = images.iter().map(|image| image["alias"].as_str().unwrap()).collect();
        (names.join(" "), body["data"]["pagination"]["total"].as_u64().unwrap())
    };
    assert_eq!(list("").await, ("busybox debian/11 debian/12".to_owned(), 3));
    assert_eq!(list("sort_order=desc&limit=1&page=2").await, ("debian/11".to_owned(), 3));
    assert_eq!(list("os=debian&search=12").await, ("debian/12".to_owned(), 1));
    assert_eq!(list("architecture=x86_64&max_price=0").await.1, 3);
    assert_eq!(list("architecture=arm64").await.1, 0);
    assert_eq!(list("min_rating=1").await.1, 0);
    assert_eq!(list("sort_by=rating&sort_order=asc").await.1, 3);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_field() {
    let fixture = Fixture::new().await;
    let token = fixture.token("ann", false).await;
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
        let (status, body) = fixture.call(Method::GET, &format!("/api/v1/images/public?{query}"), Some(&token)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {body}");
        assert!(body["error"]["details"][field].is_string(), "{query}: {body}");
    }
}

#[tokio::test]
async fn an_image_is_shown_by_id() {
    let fixture = Fixture::new().await;
    let row = put_image(fixture.store(), &image("debian/12", b"layer")).await;
    let token = fixture.token("ann", false).await;
    let path = format!("/api/v1/images/public/{}/", row.id);
    let (status, body) = fixture.call(Method::GET, &path, Some(&token)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let data = &body["data"];
    assert_eq!(
        (&data["image_name"], &data["os"], &data["release"]),
        (&"debian/12".into(), &"debian".into(), &"12".into())
    );
    assert_eq!((&data["size"], &data["price"], &data["variant"]), (&5.into(), &0.0.into(), &Value::Null));
    assert_eq!(data["serial"].as_str().unwrap().len(), 14);
    let unknown = format!("/api/v1/images/public/{}", ImageId::generate());
    assert_eq!(fixture.call(Method::GET, &unknown, Some(&token)).await.0, StatusCode::NOT_FOUND);
    assert_eq!(fixture.call(Method::GET, "/api/v1/images/public/x", Some(&token)).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(fixture.call(Method::GET, &path, None).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn only_operators_see_blobs_and_delete() {
    let fixture = Fixture::new().await;
    let row = put_image(fixture.store(), &image("debian/12", b"layer")).await;
    let blob = blob_path(fixture.data.path(), Digest::of(b"layer"));
    std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
    std::fs::write(&blob, b"layer").unwrap();
    let (user, admin) = (fixture.token("ann", false).await, fixture.token("root", true).await);
    let one = format!("/api/v1/admin/images/{}", row.id);
    for (method, path) in [(Method::GET, "/api/v1/admin/images"), (Method::DELETE, one.as_str())] {
        assert_eq!(fixture.call(method, path, Some(&user)).await.0, StatusCode::FORBIDDEN);
    }
    let (status, body) = fixture.call(Method::GET, "/api/v1/admin/images", Some(&admin)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let layer = &body["data"]["images"][0]["layers"][0];
    assert_eq!(layer["digest"], Digest::of(b"layer").to_string());
    assert_eq!(layer["compression"], "gzip");
    assert!(blob.exists());
    assert_eq!(fixture.call(Method::DELETE, &one, Some(&admin)).await.0, StatusCode::OK);
    assert!(!blob.exists());
    assert_eq!(fixture.call(Method::DELETE, &one, Some(&admin)).await.0, StatusCode::NOT_FOUND);
}
