//! Updating a container: the fields that are given change, the others stay.

use super::{
    change::{Effect, Progress, change},
    fields,
    limits::{self, SpecsInput},
    ramdisk,
    ssh_key::{self, SshKey},
};
use crate::{
    access::object,
    app::App,
    caller::Caller,
    error::ServiceError,
    service::environment,
    store::container::{self, ContainerRow},
};
use hoody_protocol::{
    bounded::Text,
    container::{Desired, Limits},
    id::{ContainerId, RealmId},
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Shortest name that an update can give.
const MIN_NAME_CHARS: usize = 1;

/// An update as clients write it.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct UpdateInput {
    /// The new name; also the host name from the next start on.
    #[schema(min_length = 1, max_length = 100)]
    pub name: Option<String>,
    /// Another name of `name`.
    pub alias: Option<String>,
    /// Start it whenever its server boots.
    pub autostart: Option<bool>,
    /// Recorded.
    pub ai: Option<bool>,
    /// Colour for people, hexadecimal.
    pub color: Option<String>,
    /// A remark; `null` removes it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 16000)]
    pub comment: Option<Option<String>>,
    /// Variables to set; the others stay.
    pub environment_vars: Option<BTreeMap<String, Value>>,
    /// The realms it belongs to, all of them.
    pub realm_ids: Option<Vec<String>>,
    /// A file system in memory at `/ramdisk`, from the next start on.
    pub ramdisk: Option<bool>,
    /// Who uses it: `container` or `project`; from the next start on, when what is in it is gone.
    pub ramdisk_scope: Option<String>,
    /// A key that may log in as root; `null` or an empty text removes it. Also while it runs.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, max_length = 4096)]
    pub ssh_public_key: Option<Option<String>>,
    /// Limits to change, also while it runs; the others stay.
    pub specs: Option<SpecsInput>,
}

/// Tells `null` from an absent field.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// What the container's files took when they were measured last.
async fn disk_used(app: &App, id: ContainerId) -> Result<Option<u64>, ServiceError> {
    let Some(row) = container::get(&app.store, id).await? else { return Ok(None) };
    let measured = app.nodes.measured_container(row.server, id).await;
    Ok(measured.and_then(|measured| measured.value.disk_bytes))
}

/// Changes the fields that are given and waits for the node where it has to know.
pub async fn update(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    input: UpdateInput,
) -> Result<(ContainerRow, Progress), ServiceError> {
    let name = match (&input.name, &input.alias) {
        (Some(name), Some(alias)) if name != alias => {
            return Err(ServiceError::invalid("alias", "is another name of \"name\": give one of them"));
        }
        (name, alias) => name.clone().or_else(|| alias.clone()),
    };
    let default_limits = app.config.default_limits;
    let Checked { env, realms, ssh_key } = validate(&input, name.as_deref(), default_limits)?;
    ssh_key::check_permission(caller, ssh_key.is_some())?;
    let disk_used_bytes = match input.specs {
        Some(_) => disk_used(app, id).await?,
        None => None,
    };
    let (row, progress, ()) = change(app, caller, id, |row| {
        if row.spec.desired == Desired::Deleted {
            return Err(ServiceError::Conflict("the container is being deleted".to_owned()));
        }
        let before = row.spec.clone();
        if let Some(name) = name {
            row.spec.hostname = Text::truncated(fields::hostname(&name));
            row.name = name;
        }
        if let Some(specs) = input.specs {
            // Checked already.
            row.spec.limits = limits::apply(row.spec.limits, specs, default_limits.network_mbit, &mut |_, _| ());
            limits::check_shrink(&before.limits, &row.spec.limits, disk_used_bytes)?;
        }
        row.spec.autostart = input.autostart.unwrap_or(row.spec.autostart);
        let attributes = &mut row.attributes;
        attributes.ai = input.ai.unwrap_or(attributes.ai);
        attributes.color = input.color.unwrap_or_else(|| attributes.color.clone());
        attributes.comment = input.comment.unwrap_or_else(|| attributes.comment.clone());
        attributes.ramdisk_scope = input.ramdisk_scope.unwrap_or_else(|| attributes.ramdisk_scope.clone());
        if input.ramdisk.unwrap_or(row.spec.ramdisk.is_some()) {
            row.spec.ramdisk = Some(ramdisk::scope(&attributes.ramdisk_scope));
        } else {
            row.spec.ramdisk = None;
        }
        if let Some(realms) = realms {
            object::check_realms(caller, &row.realm_ids, &realms)?;
            row.realm_ids = realms;
        }
        if let Some(key) = ssh_key {
            row.spec.ssh_public_key = key;
        }
        environment::merge(&mut row.spec, env, "environment_vars")?;
        Ok((if row.spec == before { Effect::Record } else { Effect::Desired }, ()))
    })
    .await?;
    Ok((row, progress))
}

/// What was parsed of an update.
struct Checked {
    env: environment::Variables,
    realms: Option<Vec<RealmId>>,
    /// `Some(None)`: the key goes.
    ssh_key: Option<Option<SshKey>>,
}

fn validate(input: &UpdateInput, name: Option<&str>, default_limits: Limits) -> Result<Checked, ServiceError> {
    let mut problems = BTreeMap::new();
    let mut check = |field: &str, outcome: Result<(), String>| {
        if let Err(problem) = outcome {
            problems.insert(field.to_owned(), problem);
        }
    };
    if let Some(name) = name {
        let field = if input.name.is_some() { "name" } else { "alias" };
        check(field, fields::check_name(name, MIN_NAME_CHARS));
    }
    if let Some(color) = &input.color {
        check("color", fields::check_color(color));
    }
    if let Some(Some(comment)) = &input.comment {
        check("comment", fields::check_comment(comment));
    }
    if let Some(scope) = &input.ramdisk_scope {
        check("ramdisk_scope", ramdisk::check_scope(scope));
    }
    if let Some(specs) = input.specs {
        limits::apply(default_limits, specs, default_limits.network_mbit, &mut check);
    }
    let mut realms = None;
    if let Some(texts) = &input.realm_ids {
        match fields::parse_realms(texts) {
            Ok(ids) => realms = Some(ids),
            Err(problem) => check("realm_ids", Err(problem)),
        }
    }
    let key = input.ssh_public_key.as_ref().map(|key| ssh_key::parse(key.as_deref().unwrap_or_default()));
    let ssh_key = key.transpose().unwrap_or_else(|problem| {
        check("ssh_public_key", Err(problem));
        None
    });
    let variables = input.environment_vars.clone().unwrap_or_default();
    let env = environment::parse_all(variables, "environment_vars.").unwrap_or_else(|found| {
        problems.extend(found);
        BTreeMap::new()
    });
    if !problems.is_empty() {
        return Err(ServiceError::Invalid(problems));
    }
    Ok(Checked { env, realms, ssh_key })
}
