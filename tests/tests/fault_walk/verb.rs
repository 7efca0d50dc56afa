//! What is asked while a program dies, and what a container is before and after.

use anyhow::{Context, Result};
use hoody_tests::api::{Answer, Api};
use reqwest::Method;
use serde_json::{Value, json};

/// The name of the container that is walked over.
pub(super) const NAME: &str = "subject";
/// The name of its snapshot.
pub(super) const KEPT: &str = "kept";

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Create,
    Start,
    Rules,
    /// Its egress goes through a proxy.
    Proxy,
    /// And directly again.
    Direct,
    /// A folder of the container beside appears in it.
    Share,
    /// And is gone again.
    Unshare,
    Restart,
    /// A snapshot is taken.
    Keep,
    /// It is restored.
    Restore,
    /// It is deleted.
    Forget,
    Pause,
    Resume,
    Stop,
    ForceStop,
    Delete,
    /// It is made as a copy of the container beside.
    Copy,
    /// The program itself starts, with a running container there.
    Return,
}

/// What a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shape {
    Absent,
    Stopped,
    Running,
    /// Running, with rules of its owner.
    Ruled,
    /// Running, with an upstream proxy.
    Proxied,
    /// Running, with a folder of another container.
    Shared,
    /// Running, with a snapshot.
    Kept,
    /// Frozen.
    Paused,
}

impl Verb {
    /// In an order in which each is possible after the one before it.
    pub(super) const ALL: [Self; 18] = [
        Self::Create,
        Self::Start,
        Self::Rules,
        Self::Proxy,
        Self::Direct,
        Self::Share,
        Self::Unshare,
        Self::Restart,
        Self::Keep,
        Self::Restore,
        Self::Forget,
        Self::Pause,
        Self::Resume,
        Self::Stop,
        Self::ForceStop,
        Self::Delete,
        Self::Copy,
        Self::Return,
    ];

    pub(super) fn before(self) -> Shape {
        match self {
            Self::Create | Self::Copy => Shape::Absent,
            Self::Restore | Self::Forget => Shape::Kept,
            Self::Start => Shape::Stopped,
            Self::Direct => Shape::Proxied,
            Self::Unshare => Shape::Shared,
            Self::Resume => Shape::Paused,
            Self::Rules
            | Self::Proxy
            | Self::Share
            | Self::Restart
            | Self::Keep
            | Self::Pause
            | Self::Stop
            | Self::ForceStop
            | Self::Delete
            | Self::Return => Shape::Running,
        }
    }

    pub(super) fn after(self) -> Shape {
        match self {
            Self::Delete => Shape::Absent,
            Self::Create | Self::Copy | Self::Stop | Self::ForceStop => Shape::Stopped,
            Self::Start | Self::Restart | Self::Forget | Self::Resume | Self::Return | Self::Direct | Self::Unshare => {
                Shape::Running
            }
            Self::Keep | Self::Restore => Shape::Kept,
            Self::Pause => Shape::Paused,
            Self::Rules => Shape::Ruled,
            Self::Proxy => Shape::Proxied,
            Self::Share => Shape::Shared,
        }
    }

    /// It runs now or never: where it was not done, everything is as before.
    pub(super) fn is_operation(self) -> bool {
        matches!(self, Self::Restart | Self::Keep | Self::Restore | Self::Forget)
    }

    /// True where asking twice is doing it twice: the API takes keys with `POST` alone.
    pub(super) fn repeats(self) -> bool {
        matches!(self, Self::Restore | Self::Forget)
    }

    /// True where the program is to die at this point in this verb. Snapshots and copies go through much that others
    /// are killed in already: only what is theirs, and what makes their outcome the only one, is walked again.
    pub(super) fn is_walked_at(self, point: &str) -> bool {
        const OWN: [&str; 6] = ["snapshot.", "swap.", "restoration.", "copy.", "root.copied", "outcome."];
        !matches!(self, Self::Keep | Self::Restore | Self::Forget | Self::Copy)
            || OWN.iter().any(|own| point.starts_with(own))
    }

    /// Asks for it; with the same `key`, which all but a deletion take, it is done once.
    pub(super) async fn ask(self, tenant: &Tenant, key: &str) -> Result<Answer> {
        let Tenant { api, project, server, .. } = tenant;
        let post = async |path: String, body: Value| {
            let headers = [("content-type", "application/json"), ("idempotency-key", key)];
            api.send_bytes(Method::POST, &path, &headers, serde_json::to_vec(&body)?).await
        };
        if self == Self::Create {
            let specs = json!({ "cpu_cores": 0.5, "memory_mb": 64, "storage_mb": 64 });
            let body = json!({ "name": NAME, "container_image": "busybox", "server_id": server, "specs": specs });
            return post(format!("/api/v1/projects/{project}/containers"), body).await;
        }
        if self == Self::Copy {
            return post(format!("/api/v1/containers/{}/copy", tenant.bystander), json!({ "name": NAME })).await;
        }
        let subject = tenant.subject().await?.context("there is no container")?;
        if matches!(self, Self::Share | Self::Unshare) {
            return tenant.share(&subject, self == Self::Share).await;
        }
        let path = subject;
        let path = format!("/api/v1/containers/{path}");
        let operation = match self {
            Self::Delete => return api.send(Method::DELETE, &path, None).await,
            Self::Keep => return post(format!("{path}/snapshots"), json!({ "name": KEPT })).await,
            Self::Restore | Self::Forget => {
                let headers = [("content-type", "application/json"), ("idempotency-key", key)];
                let method = if self == Self::Restore { Method::PUT } else { Method::DELETE };
                return api.send_bytes(method, &format!("{path}/snapshots/{KEPT}"), &headers, Vec::new()).await;
            }
            Self::Rules => {
                // A list of ports: its set is made in a transaction of its own.
                let rule = json!({ "action": "drop", "protocol": "tcp", "port": "7000-7100,7777", "description": "" });
                return post(format!("{path}/firewall/ingress"), rule).await;
            }
            Self::Proxy => {
                // It is dialled only when the container connects to something.
                let proxy = json!({ "proxy": { "enabled": true, "url": "socks5://1.1.1.1:1080" } });
                return api.put(&format!("{path}/network"), proxy).await;
            }
            Self::Direct => return api.delete(&format!("{path}/network"), None).await,
            Self::Start => "start",
            Self::Stop => "stop",
            Self::ForceStop => "force-stop",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Create | Self::Copy | Self::Share | Self::Unshare | Self::Return => {
                anyhow::bail!("{self:?} is no request on a container")
            }
        };
        post(format!("{path}/{operation}"), json!({})).await
    }

    /// True where asking again is of no use: a deletion, which takes no key, that was accepted or is done.
    pub(super) async fn is_accepted(self, tenant: &Tenant) -> Result<bool> {
        let Some(id) = tenant.subject().await? else { return Ok(self == Self::Delete) };
        let row = tenant.api.get(&format!("/api/v1/containers/{id}")).await?.data()?;
        Ok(self == Self::Delete && row["status"] == "deleting")
    }
}

impl Shape {
    /// The word of the API.
    pub(super) fn status(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Stopped => "stopped",
            Self::Running | Self::Ruled | Self::Proxied | Self::Shared | Self::Kept => "running",
            Self::Paused => "paused",
        }
    }
}

/// Who asks, and where.
#[derive(Debug, Clone)]
pub(super) struct Tenant {
    pub(super) api: Api,
    pub(super) admin: Api,
    pub(super) project: String,
    pub(super) server: String,
    /// The container beside the walk.
    pub(super) bystander: String,
}

impl Tenant {
    /// The id of the container that is walked over.
    pub(super) async fn subject(&self) -> Result<Option<String>> {
        let path = format!("/api/v1/projects/{}/containers?limit=100", self.project);
        let list = self.api.get(&path).await?.data()?;
        let rows = list["containers"].as_array().context("no list of containers")?;
        let row = rows.iter().find(|row| row["name"] == NAME);
        Ok(row.and_then(|row| row["id"].as_str()).map(str::to_owned))
    }

    /// Shares a folder of the bystander with the subject, or does so no more; asked again, nothing changes.
    async fn share(&self, subject: &str, enabled: bool) -> Result<Answer> {
        let path = format!("/api/v1/containers/{}/storage/shares", self.bystander);
        let list = self.api.get(&path).await?;
        let shares = list.body["data"].as_array().cloned().unwrap_or_default();
        match shares.iter().find(|share| share["target_container_id"] == subject) {
            Some(share) => {
                let path = format!("{path}/{}", share["id"].as_str().context("no id")?);
                self.api.patch(&path, json!({ "enabled": enabled })).await
            }
            None if enabled => {
                let body = json!({ "path": "/bin", "mode": "ro", "alias": "beside", "target_container_id": subject,
                    "mount_path": "/srv/beside/deep" });
                self.api.post(&path, body).await
            }
            None => Ok(list),
        }
    }

    /// How many operations the container has had, and the states of those that have not ended.
    pub(super) async fn operations(&self, id: &str) -> Result<(u64, Vec<Value>)> {
        let path = format!("/api/v1/admin/operations?container_id={id}&limit=100");
        let list = self.admin.get(&path).await?.data()?;
        let total = list["pagination"]["total"].as_u64().context("no total")?;
        let rows = list["operations"].as_array().context("no operations")?;
        Ok((total, rows.iter().filter(|row| row["finished_at"].is_null()).cloned().collect()))
    }

    /// True where the container's last operation was done.
    pub(super) async fn last_was_done(&self, id: &str) -> Result<bool> {
        let path = format!("/api/v1/admin/operations?container_id={id}&limit=1");
        let list = self.admin.get(&path).await?.data()?;
        Ok(list["operations"][0]["state"] == "succeeded")
    }
}
