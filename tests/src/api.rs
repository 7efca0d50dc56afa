//! A client of the public API. Every response is checked against the wire contract.

use crate::contract;
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

    /// Fails where the answer is not this refusal with a detail for `field`.
    pub fn expect_detail(self, status: u16, field: &str) -> Result<()> {
        let asked = self.asked.clone();
        let body = self.expect(status)?;
        if body["error"]["details"].get(field).is_none() {
            bail!("{asked} says nothing of {field:?} in details: {body}");
        }
        Ok(())
    }
}

impl Api {
    /// A client without credentials.
    pub fn anonymous(base_url: String) -> Result<Self> {
        let client = reqwest::Client::builder().timeout(DEADLINE).build()?;
        Ok(Self { client, base_url, token: None })
    }

    /// Logs in.
    pub async fn login(base_url: String, username: &str, password: &str) -> Result<Self> {
        let mut this = Self::anonymous(base_url)?;
        let body = json!({ "username": username, "password": password });
        let data = this.post("/api/v1/users/auth/login", body).await?.data()?;
        this.token = Some(data["token"].as_str().context("login gave no token")?.to_owned());
        Ok(this)
    }

    /// Sends a request; transport faults are errors, refusals are answers.
    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer> {
        let asked = format!("{method} {path}");
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.base_url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.with_context(|| asked.clone())?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = serde_json::from_slice(&response.bytes().await?).unwrap_or(Value::Null);
        contract::check(method.as_str(), path, status, &body).with_context(|| asked.clone())?;
        Ok(Answer { status, headers, body, asked })
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
