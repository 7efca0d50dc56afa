//! A client of the whole API in this process, for tests: a real router, store and keys, no sockets.

use crate::{app::App, service::session};
use axum::{Router, body::Body};
use hoody_protocol::id::UserId;
use http::{HeaderMap, Method, Request, StatusCode, header};
use serde_json::Value;
use tower::ServiceExt;

/// The password of every account that [`Client::new_user`] makes.
pub const PASSWORD: &str = "correct horse battery";

/// A response, read whole.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body's bytes.
    pub bytes: Vec<u8>,
    /// The body as JSON; null where it is none.
    pub json: Value,
}

impl Answer {
    /// `data` of the envelope.
    pub fn data(&self) -> &Value {
        &self.json["data"]
    }

    /// Fails the test unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.bytes));
        assert_eq!(self.json["statusCode"], status, "{}", self.json);
        assert_eq!(self.json["success"], self.status.is_success());
        assert!(self.headers.contains_key("x-request-id"));
        self
    }

    /// Fails the test unless this is a 400 that names exactly these fields.
    #[track_caller]
    pub fn expect_invalid(self, fields: &[&str]) -> Self {
        let answer = self.expect(400);
        let details = answer.json["error"]["details"].as_object().expect("details");
        assert_eq!(details.keys().map(String::as_str).collect::<Vec<_>>(), fields, "{}", answer.json);
        assert_eq!(answer.json["code"], "VALIDATION_ERROR");
        answer
    }
}

/// A client, logged in or not. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    router: Router,
    /// Sent as the bearer token.
    pub token: Option<String>,
}

impl Client {
    /// A client that is not logged in.
    pub fn new(app: &App) -> Self {
        Self { router: crate::api::router(app.clone()), token: None }
    }

    /// Makes an account and logs in with it.
    pub async fn new_user(app: &App, username: &str, is_admin: bool) -> (Self, UserId) {
        let password = PASSWORD.to_owned().into();
        let id = session::create_user(app, username, None, password, is_admin).await.expect("create the user");
        let mut client = Self::new(app);
        let body = serde_json::json!({"username": username, "password": PASSWORD});
        let answer = client.post("/api/v1/users/auth/login", body).await.expect(200);
        client.token = answer.data()["token"].as_str().map(str::to_owned);
        (client, id)
    }

    /// The same client with another token.
    pub fn with_token(&self, token: &str) -> Self {
        Self { router: self.router.clone(), token: Some(token.to_owned()) }
    }

    /// Sends a request built by the caller.
    pub async fn send(&self, mut request: Request<Body>) -> Answer {
        if let (Some(token), false) = (&self.token, request.headers().contains_key(header::AUTHORIZATION)) {
            let value = format!("Bearer {token}").parse().expect("a header value");
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let response = self.router.clone().oneshot(request).await.expect("the router answers");
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("read the body").to_vec();
        let json = serde_json::from_slice(&bytes).unwrap_or_default();
        Answer { status: parts.status, headers: parts.headers, bytes, json }
    }

    /// Sends a request with these further headers.
    pub async fn with(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map_or_else(Body::empty, |json| Body::from(json.to_string()));
        self.send(request.body(body).expect("a request")).await
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.with(Method::GET, path, &[], None).await
    }

    /// POST.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.with(Method::POST, path, &[], Some(body)).await
    }

    /// PUT.
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.with(Method::PUT, path, &[], Some(body)).await
    }

    /// PATCH.
    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.with(Method::PATCH, path, &[], Some(body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.with(Method::DELETE, path, &[], None).await
    }
}

/// Where the requests of tests come from.
pub fn origin() -> crate::caller::Origin {
    crate::caller::Origin { address: std::net::Ipv4Addr::LOCALHOST.into(), client: None }
}
