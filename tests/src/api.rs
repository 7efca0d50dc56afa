//! A client of the public API. Every response is checked against the wire contract.

use crate::{contract, secrets};
use anyhow::{Context, Result, bail};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

/// Longest wait for any response.
const DEADLINE: Duration = Duration::from_secs(90);

/// A client, logged in or not.
#[derive(Debug, Clone)]
pub struct Api {
    client: reqwest::Client,
    base_url: String,
    /// Whether responses are checked against the contract.
    checked: bool,
    /// The bearer token.
    pub token: Option<String>,
}

/// A response.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body; `Null` where it is not JSON.
    pub body: Value,
    /// The body as it came.
    pub bytes: Vec<u8>,
    /// What was asked, for messages.
    pub asked: String,
}

impl Answer {
    /// The data of a success; fails otherwise.
    pub fn data(self) -> Result<Value> {
        if !(200..300).contains(&self.status) {
            bail!("{} answered {}: {}", self.asked, self.status, self.body);
        }
        Ok(self.body["data"].clone())
    }

    /// Fails where the status is another one.
    pub fn expect(self, status: u16) -> Result<Value> {
        if self.status != status {
            bail!("{} answered {} instead of {status}: {}", self.asked, self.status, self.body);
        }
        Ok(self.body)
    }

    /// Fails where the answer is not this refusal, in the shape that every refusal has.
    pub fn expect_refusal(self, status: u16, code: &str) -> Result<Value> {
        let asked = self.asked.clone();
        let body = self.expect(status)?;
        let sentence = body["message"].as_str().is_some_and(|message| !message.is_empty());
        let fits = body["success"] == false
            && body["statusCode"] == status
            && body["code"] == code
            && body["error"]["code"] == code
            && body["error"]["message"] == body["message"]
            && sentence
            && body.get("data").is_none();
        if !fits {
            bail!("{asked} does not answer {code} in the envelope of refusals: {body}");
        }
        Ok(body)
    }

    /// Fails where the answer is not this refusal with a detail for `field`.
    pub fn expect_detail(self, status: u16, field: &str) -> Result<()> {
        let asked = self.asked.clone();
        let code = if status == 422 { "UNPROCESSABLE" } else { "VALIDATION_ERROR" };
        let body = self.expect_refusal(status, code)?;
        let detail = body["error"]["details"][field].as_str();
        if detail.is_none_or(str::is_empty) {
            bail!("{asked} says nothing of {field:?} in details: {body}");
        }
        Ok(())
    }
}

impl Api {
    /// A client without credentials.
    pub fn anonymous(base_url: String) -> Result<Self> {
        let client = reqwest::Client::builder().timeout(DEADLINE).build()?;
        Ok(Self { client, base_url, checked: true, token: None })
    }

    /// The same client, which does not check responses against the contract: for measuring.
    pub fn unchecked(&self) -> Self {
        Self { checked: false, ..self.clone() }
    }

    /// Logs in.
    pub async fn login(base_url: String, username: &str, password: &str) -> Result<Self> {
        let mut this = Self::anonymous(base_url)?;
        let body = json!({ "username": username, "password": password });
        let data = this.post("/api/v1/users/auth/login", body).await?.data()?;
        this.token = Some(data["token"].as_str().context("login gave no token")?.to_owned());
        Ok(this)
    }

    /// The same client with another token, or none.
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    /// Sends a request; transport faults are errors, refusals are answers.
    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer> {
        body.iter().for_each(secrets::note_all);
        let body = body.map(|body| serde_json::to_vec(&body)).transpose()?;
        self.send_bytes(method, path, &[("content-type", "application/json")], body.unwrap_or_default()).await
    }

    /// Sends a request with any headers and any bytes.
    pub async fn send_bytes(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer> {
        let asked = format!("{method} {path}");
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.base_url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_empty() {
            request = request.body(body);
        }
        let response = request.send().await.with_context(|| asked.clone())?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let bytes = response.bytes().await?.to_vec();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        secrets::note_all(&body);
        if self.checked {
            contract::check(method.as_str(), path, status, &body).with_context(|| asked.clone())?;
        }
        Ok(Answer { status, headers, body, bytes, asked })
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, None).await
    }

    /// `POST`.
    pub async fn post(&self, path: &str, body: Value) -> Result<Answer> {
        self.send(Method::POST, path, Some(body)).await
    }

    /// `PUT`.
    pub async fn put(&self, path: &str, body: Value) -> Result<Answer> {
        self.send(Method::PUT, path, Some(body)).await
    }

    /// `PATCH`.
    pub async fn patch(&self, path: &str, body: Value) -> Result<Answer> {
        self.send(Method::PATCH, path, Some(body)).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str, body: Option<Value>) -> Result<Answer> {
        self.send(Method::DELETE, path, body).await
    }

    /// A new project; its id.
    pub async fn project(&self, alias: &str) -> Result<String> {
        let data = self.post("/api/v1/projects/", json!({ "alias": alias })).await?.data()?;
        Ok(data["id"].as_str().context("a project has an id")?.to_owned())
    }

    /// A new container, made and stopped; its id. `more` is merged into the request.
    pub async fn container(&self, project: &str, image: &str, more: Value) -> Result<String> {
        let mut body = json!({ "container_image": image });
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        let data = self.post(&format!("/api/v1/projects/{project}/containers"), body).await?.data()?;
        let id = data["id"].as_str().context("a container has an id")?.to_owned();
        self.wait_status(&id, if data["autostart"] == true { "running" } else { "stopped" }).await?;
        Ok(id)
    }

    /// An operation on a container that must succeed.
    pub async fn operate(&self, container: &str, operation: &str) -> Result<Value> {
        self.post(&format!("/api/v1/containers/{container}/{operation}"), json!({})).await?.data()
    }

    /// Waits until the container has this status.
    pub async fn wait_status(&self, container: &str, status: &str) -> Result<Value> {
        let path = format!("/api/v1/containers/{container}");
        let mut last = Value::Null;
        let found = crate::wait::until(&format!("{container} is {status}"), Duration::from_secs(60), async || {
            last = self.get(&path).await?.data()?;
            Ok((last["status"] == status).then(|| last.clone()))
        })
        .await;
        found.with_context(|| format!("last seen: {last}"))
    }
}
