//! The record: what took place, written in the same transaction as the change itself.
//!
//! Whoever changes something builds a [`NewEvent`] and gives it to [`crate::store::event::insert`] before
//! the commit, so that neither is ever there without the other. The publisher (`live`) gives
//! committed events their place in the order of delivery.

pub mod container;
mod kind;

pub use kind::{EventKind, ResourceKind, UnknownWord};

use hoody_protocol::id::{ContainerId, EventId, ProjectId, RealmId, ServerId, UserId};
use serde_json::{Map, Value, json};
use std::fmt::Display;

/// Who brought something about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A request of this user.
    User(UserId),
    /// Somebody who administers the platform.
    Operator,
    /// A node's report.
    Node,
    /// Housekeeping.
    System,
}

impl Actor {
    fn json(self) -> Value {
        match self {
            Self::User(id) => json!({"type": "user", "id": id.to_string()}),
            Self::Operator => json!({"type": "operator"}),
            Self::Node => json!({"type": "node"}),
            Self::System => json!({"type": "system"}),
        }
    }
}

/// An event that is about to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// What took place.
    pub kind: EventKind,
    /// The id of what it is about: 24 hexadecimal characters.
    pub resource: String,
    /// Whose record it is in; `None`: the operators'.
    pub owner: Option<UserId>,
    /// The project it belongs to.
    pub project: Option<ProjectId>,
    /// The container it belongs to.
    pub container: Option<ContainerId>,
    /// The realms it can be seen in.
    pub realms: Vec<RealmId>,
    /// Details for clients; never a secret.
    pub payload: Map<String, Value>,
}

impl NewEvent {
    /// An event about `resource` in the record of `owner`; the payload says who brought it about.
    pub fn new(kind: EventKind, resource: impl Display, owner: Option<UserId>, actor: Actor) -> Self {
        Self {
            kind,
            resource: resource.to_string(),
            owner,
            project: None,
            container: None,
            realms: Vec::new(),
            payload: Map::from_iter([("actor".to_owned(), actor.json())]),
        }
    }

    /// An event about a server that `owner` rents.
    pub fn of_server(kind: EventKind, server: ServerId, owner: Option<UserId>, name: &str, actor: Actor) -> Self {
        Self::new(kind, server, owner, actor).with("name", name)
    }

    /// Adds a detail.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.payload.insert(name.to_owned(), value.into());
        self
    }

    /// Says which project it belongs to.
    pub fn in_project(mut self, project: ProjectId) -> Self {
        self.project = Some(project);
        self.with("project_id", project.to_string())
    }

    /// Says which container it belongs to.
    pub fn in_container(mut self, container: ContainerId) -> Self {
        self.container = Some(container);
        self.with("container_id", container.to_string())
    }

    /// Says in which realms it can be seen.
    pub fn in_realms(mut self, realms: &[RealmId]) -> Self {
        self.realms = realms.to_vec();
        self
    }

    /// The row that is locked while the event is written: the container's, or the resource's own.
    pub fn subject(&self) -> String {
        self.container.map_or_else(|| self.resource.clone(), |container| container.to_string())
    }
}

/// An event that was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Identity.
    pub id: EventId,
    /// What took place.
    pub kind: EventKind,
    /// The id of what it is about.
    pub resource: String,
    /// Whose record it is in; `None`: the operators'.
    pub owner: Option<UserId>,
    /// The project it belongs to.
    pub project: Option<ProjectId>,
    /// The container it belongs to.
    pub container: Option<ContainerId>,
    /// The realms it can be seen in.
    pub realms: Vec<RealmId>,
    /// Details for clients.
    pub payload: Map<String, Value>,
    /// Its place in the order of delivery; `None`: not published yet.
    pub sequence: Option<i64>,
    /// Milliseconds since the epoch.
    pub created_at: i64,
}
