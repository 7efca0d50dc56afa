//! Events about containers: of a change of status, and of a change of what a container should be.

use super::{Actor, EventKind, NewEvent};
use crate::store::container::{ContainerRow, Status};
use hoody_protocol::{
    firewall::{Direction, FirewallRule},
    id::{ContainerId, ProjectId, RealmId, UserId},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What every event of a container says about it.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The container.
    pub id: ContainerId,
    /// Its owner.
    pub owner: UserId,
    /// Its project.
    pub project: ProjectId,
    /// Its name.
    pub name: &'a str,
    /// Its realms.
    pub realms: &'a [RealmId],
}

impl<'a> Identity<'a> {
    /// Of this row.
    pub fn of(row: &'a ContainerRow) -> Self {
        let spec = &row.spec;
        Self { id: spec.id, owner: spec.owner, project: spec.project, name: &row.name, realms: &row.realm_ids }
    }

    /// An event about the container itself.
    pub fn event(self, kind: EventKind, actor: Actor) -> NewEvent {
        self.about(kind, self.id.to_string(), actor)
    }

    /// An event about something that belongs to the container.
    fn about(self, kind: EventKind, resource: String, actor: Actor) -> NewEvent {
        NewEvent::new(kind, resource, Some(self.owner), actor)
            .in_project(self.project)
            .in_container(self.id)
            .in_realms(self.realms)
            .with("name", self.name)
    }

    /// An event about a new status; the contract has kinds of their own for the most important ones.
    pub fn status(self, from: Option<&str>, to: Status, actor: Actor) -> NewEvent {
        let kind = match to {
            // A repair, for example: the cause says what occurred.
            Status::Running if from == Some(to.as_str()) => EventKind::ContainerResourceUpdated,
            Status::Creating | Status::Copying => EventKind::ContainerCreating,
            Status::Running => EventKind::ContainerRunning,
            Status::Stopped => EventKind::ContainerStopped,
            Status::Failed => EventKind::ContainerFailed,
            Status::Deleting => EventKind::ContainerDeleting,
            Status::Deleted => EventKind::ContainerDeleted,
            Status::Paused | Status::Claiming => EventKind::ContainerResourceUpdated,
        };
        let event = self.event(kind, actor).with("status", to.as_str());
        match from {
            Some(from) => event.with("previous_status", from),
            None => event,
        }
    }
}

/// What a change of the row is told as. Values of variables are secrets and never part of it.
pub fn changes(before: &ContainerRow, after: &ContainerRow, actor: Actor) -> Vec<NewEvent> {
    let identity = Identity::of(after);
    let mut events = Vec::new();
    if before.name != after.name {
        let renamed = identity.event(EventKind::ContainerRenamed, actor);
        events.push(renamed.with("previous_name", before.name.as_str()));
    }
    if before.spec.autostart != after.spec.autostart {
        let kind = match after.spec.autostart {
            true => EventKind::ContainerAutostartEnabled,
            false => EventKind::ContainerAutostartDisabled,
        };
        events.push(identity.event(kind, actor));
    }
    let (old, new) = (&before.spec.ssh_public_key, &after.spec.ssh_public_key);
    if old != new {
        events.extend(old.as_ref().map(|_| identity.event(EventKind::ContainerSshKeyRemoved, actor)));
        events.extend(new.as_ref().map(|_| identity.event(EventKind::ContainerSshKeyAdded, actor)));
    }
    let fields = changed_fields(before, after);
    if !fields.is_empty() {
        events.push(identity.event(EventKind::ContainerResourceUpdated, actor).with("changed", fields));
    }
    for direction in [Direction::Ingress, Direction::Egress] {
        rules(identity, before, after, direction, actor, &mut events);
    }
    events
}

/// Names of fields, as clients call them.
fn changed_fields(before: &ContainerRow, after: &ContainerRow) -> Vec<&'static str> {
    let (old, new) = (&before.attributes, &after.attributes);
    [
        ("environment_vars", before.spec.env != after.spec.env),
        ("specs", before.spec.limits != after.spec.limits),
        ("realm_ids", before.realm_ids != after.realm_ids),
        ("color", old.color != new.color),
        ("comment", old.comment != new.comment),
        ("ai", old.ai != new.ai),
        ("ramdisk_scope", old.ramdisk_scope != new.ramdisk_scope),
        ("shares", before.spec.shares != after.spec.shares),
        ("ramdisk", before.spec.ramdisk.is_some() != after.spec.ramdisk.is_some()),
        ("kvm", before.spec.kvm != after.spec.kvm),
        ("dns", before.spec.dns != after.spec.dns),
        ("network", old.network != new.network || before.egress_credentials != after.egress_credentials),
    ]
    .into_iter()
    .filter_map(|(field, changed)| changed.then_some(field))
    .collect()
}

fn rules(
    identity: Identity<'_>,
    before: &ContainerRow,
    after: &ContainerRow,
    direction: Direction,
    actor: Actor,
    events: &mut Vec<NewEvent>,
) {
    let by_id = |row: &ContainerRow| -> BTreeMap<_, FirewallRule> {
        row.spec.firewall.rules(direction).iter().map(|rule| (rule.id, rule.clone())).collect()
    };
    let (mut old, word) = (by_id(before), if direction == Direction::Ingress { "ingress" } else { "egress" });
    let mut tell = |kind, rule: &FirewallRule| {
        let event = identity.about(kind, rule.id.to_string(), actor);
        events.push(event.with("direction", word).with("rule", described(rule)));
    };
    for rule in after.spec.firewall.rules(direction) {
        match old.remove(&rule.id) {
            None => tell(EventKind::FirewallRuleAdded, rule),
            Some(before) if before == *rule => {}
            Some(before) if (FirewallRule { enabled: rule.enabled, ..before.clone() }) == *rule => {
                let kind = match rule.enabled {
                    true => EventKind::FirewallRuleEnabled,
                    false => EventKind::FirewallRuleDisabled,
                };
                tell(kind, rule);
            }
            Some(_) => tell(EventKind::FirewallRuleUpdated, rule),
        }
    }
    for rule in old.values() {
        tell(EventKind::FirewallRuleRemoved, rule);
    }
}

fn described(rule: &FirewallRule) -> Value {
    serde_json::to_value(rule).unwrap_or_else(|_| json!({"id": rule.id.to_string()}))
}
