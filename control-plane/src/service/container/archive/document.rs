//! `container.json`: what a container is, without what is its installation's own and without secrets: no ids, no
//! credentials of proxies, no keys, no shares, no KVM.

use super::super::{
    creation::{self, CreateInput, Wanted},
    fields::{check_env_key, check_env_size, check_env_value},
    limits::SpecsInput,
};
use crate::{
    error::ServiceError,
    store::{
        container::{Attributes, ContainerRow, NetworkSettings},
        firewall_texts::RuleTexts,
    },
};
use hoody_protocol::{
    bounded::Text,
    container::{Limits, MAX_DNS_SERVERS},
    egress::EgressSpec,
    export::VERSION,
    firewall::{Direction, FirewallRule, FirewallSpec},
    id::RuleId,
    image::ImageConfig,
    share::RamdiskScope,
    time::now_ms,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::Ipv4Addr};

const MIB: u64 = 1 << 20;
/// Bytes of one variable's value: what a single one may have.
const MAX_VALUE: usize = 32_768;
/// Characters of an image's name that is shown.
const MAX_IMAGE_CHARS: usize = 512;

/// The document. What it does not know is ignored when it is read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Document {
    /// Of the archive's format.
    version: u32,
    /// When it was made, RFC 3339.
    #[serde(default)]
    exported_at: String,
    name: String,
    /// What it was made from, for people.
    image: String,
    /// In OCI terms.
    pub(super) architecture: String,
    /// `lxc` or `docker`.
    runtime: String,
    specs: SpecsInput,
    #[serde(default)]
    autostart: bool,
    #[serde(default)]
    environment_vars: BTreeMap<String, String>,
    /// How its first process is run, where `environment_vars` does not say.
    #[serde(default)]
    image_config: ImageConfig,
    #[serde(default)]
    dns: Vec<Ipv4Addr>,
    #[serde(default)]
    firewall: Rules,
    /// Without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network: Option<NetworkSettings>,
    /// What is in force of it, without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    egress: Option<EgressSpec>,
    #[serde(default)]
    ramdisk: bool,
    #[serde(default)]
    attributes: Kept,
}

/// Rules of both directions, in order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Rules {
    #[serde(default)]
    ingress: Vec<Rule>,
    #[serde(default)]
    egress: Vec<Rule>,
}

/// A rule without its id, and what its owner wrote.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Rule {
    rule: Value,
    #[serde(default)]
    texts: RuleTexts,
}

/// Attributes that mean something elsewhere too.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    color: Option<String>,
    comment: Option<String>,
    ai: bool,
    dev_kit: bool,
    hoody_kit: bool,
    prespawn: bool,
    bypass_prespawn: bool,
    cache: bool,
    cache_image: bool,
    ramdisk_scope: Option<String>,
}

/// What an import has beside what a creation asks for.
#[derive(Debug)]
pub(in super::super) struct Restored {
    /// What the answers show as its image.
    pub(in super::super) image_name: String,
    image_config: ImageConfig,
    dns: Vec<Ipv4Addr>,
    firewall: FirewallSpec,
    rule_texts: BTreeMap<RuleId, RuleTexts>,
    network: Option<NetworkSettings>,
    egress: Option<EgressSpec>,
}

impl Document {
    /// Of a container on a server of this architecture.
    pub(super) fn of(row: &ContainerRow, architecture: &str) -> Result<Self, ServiceError> {
        let ContainerRow { spec, attributes, .. } = row;
        let rules = |direction| {
            let rules = spec.firewall.rules(direction).iter().map(|rule| {
                let texts = attributes.rule_texts.get(&rule.id).cloned().unwrap_or_default();
                let mut rule = serde_json::to_value(rule).map_err(ServiceError::internal)?;
                rule.as_object_mut().and_then(|fields| fields.remove("id"));
                Ok(Rule { rule, texts })
            });
            rules.collect::<Result<Vec<_>, ServiceError>>()
        };
        let limits = &spec.limits;
        Ok(Self {
            version: VERSION,
            exported_at: crate::api::time::rfc3339(now_ms() as i64),
            name: row.name.clone(),
            image: row.image_name.clone(),
            architecture: architecture.to_owned(),
            runtime: row.runtime.clone(),
            specs: SpecsInput {
                cpu_cores: Some(f64::from(limits.cpu_millis) / 1000.0),
                memory_mb: Some(limits.memory_bytes / MIB),
                storage_mb: Some(limits.disk_bytes / MIB),
                network_mbit: limits.network_mbit,
            },
            autostart: spec.autostart,
            environment_vars: spec.env.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            image_config: spec.image.config.clone(),
            dns: spec.dns.to_vec(),
            firewall: Rules { ingress: rules(Direction::Ingress)?, egress: rules(Direction::Egress)? },
            network: attributes.network.clone(),
            egress: spec.egress.as_ref().map(EgressSpec::without_credentials),
            ramdisk: spec.ramdisk.is_some(),
            attributes: Kept {
                color: Some(attributes.color.clone()),
                comment: attributes.comment.clone(),
                ai: attributes.ai,
                dev_kit: attributes.dev_kit,
                hoody_kit: attributes.hoody_kit,
                prespawn: attributes.prespawn,
                bypass_prespawn: attributes.bypass_prespawn,
                cache: attributes.cache,
                cache_image: attributes.cache_image,
                ramdisk_scope: (spec.ramdisk == Some(RamdiskScope::Project)).then(|| "project".to_owned()),
            },
        })
    }

    /// The document's bytes.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, ServiceError> {
        serde_json::to_vec_pretty(self).map_err(ServiceError::internal)
    }

    /// Reads a document of anybody's.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ServiceError> {
        let invalid = |problem: String| ServiceError::invalid("archive", format!("container.json {problem}"));
        let value: Value = serde_json::from_slice(bytes).map_err(|error| invalid(format!("is not JSON: {error}")))?;
        if value["version"] != json!(VERSION) {
            return Err(invalid(format!("is of version {}; this installation reads {VERSION}", value["version"])));
        }
        serde_path_to_error::deserialize(value).map_err(|error| invalid(format!("is malformed at {error}")))
    }

    /// What a creation asks for, `over` over what the document says; every bad field is named.
    pub(super) fn wanted(self, defaults: Limits, over: Over) -> Result<(Wanted, Restored), ServiceError> {
        let network_mbit = match (self.specs.network_mbit, defaults.network_mbit) {
            (Some(wanted), Some(most)) => Some(wanted.min(most)),
            (wanted, _) => wanted,
        };
        let specs = SpecsInput {
            cpu_cores: over.cpu_cores.or(self.specs.cpu_cores),
            memory_mb: over.memory_mb.or(self.specs.memory_mb),
            storage_mb: over.storage_mb.or(self.specs.storage_mb),
            network_mbit,
        };
        let kept = self.attributes;
        let input = CreateInput {
            name: Some(over.name.unwrap_or(self.name)),
            server_id: over.server_id,
            runtime: Some(self.runtime),
            specs: Some(specs),
            autostart: Some(over.autostart.unwrap_or(self.autostart)),
            ai: Some(kept.ai),
            dev_kit: Some(kept.dev_kit),
            hoody_kit: Some(kept.hoody_kit),
            prespawn: Some(kept.prespawn),
            bypass_prespawn: Some(kept.bypass_prespawn),
            cache: Some(kept.cache),
            cache_image: Some(kept.cache_image),
            ramdisk: Some(self.ramdisk),
            ramdisk_scope: kept.ramdisk_scope,
            color: kept.color,
            comment: kept.comment,
            ..CreateInput::default()
        };
        let mut wanted = creation::validate(defaults, input)?;
        let mut problems = BTreeMap::new();
        let mut note = |field: &str, problem: String| _ = problems.insert(format!("archive.{field}"), problem);
        let pairs = || self.environment_vars.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let checked = pairs().try_for_each(|(key, value)| {
            check_env_key(key).and_then(|()| check_env_value(value, MAX_VALUE, MAX_VALUE))
        });
        if let Err(problem) = checked.and_then(|()| check_env_size(pairs())) {
            note("environment_vars", problem);
        }
        wanted.env = pairs().map(|(key, value)| (Text::truncated(key), Text::truncated(value))).collect();
        if self.image.chars().count() > MAX_IMAGE_CHARS || self.image.contains('\0') {
            note("image", format!("takes at most {MAX_IMAGE_CHARS} characters, none of them NUL"));
        }
        if self.dns.len() > MAX_DNS_SERVERS {
            note("dns", format!("takes at most {MAX_DNS_SERVERS} addresses"));
        }
        let config = serde_json::to_string(&self.image_config).map_err(ServiceError::internal)?;
        if config.contains("\\u0000") {
            note("image_config", "must not contain NUL".to_owned());
        }
        let mut rule_texts = BTreeMap::new();
        let (ingress, egress) =
            (with_ids(self.firewall.ingress, &mut rule_texts), with_ids(self.firewall.egress, &mut rule_texts));
        let mut firewall = FirewallSpec::default();
        match (
            ingress.and_then(|rules| rules.try_into().map_err(text)),
            egress.and_then(|rules| rules.try_into().map_err(text)),
        ) {
            (Ok(ingress), Ok(egress)) => firewall = FirewallSpec { ingress, egress },
            (Err(problem), _) | (_, Err(problem)) => note("firewall", problem),
        }
        if let Err(problem) = firewall.check() {
            note("firewall", problem.to_owned());
        }
        if let Some(egress) = &self.egress
            && let Err(problem) = egress.check()
        {
            note("egress", problem.to_owned());
        }
        let nul = serde_json::to_string(&(&self.network, &rule_texts)).map_err(ServiceError::internal)?;
        if nul.contains("\\u0000") {
            note("network", "must not contain NUL".to_owned());
        }
        if !problems.is_empty() {
            return Err(ServiceError::Invalid(problems));
        }
        let egress = self.egress.as_ref().map(EgressSpec::without_credentials);
        let restored = Restored {
            image_name: self.image,
            image_config: self.image_config,
            dns: self.dns,
            firewall,
            rule_texts,
            network: self.network,
            egress,
        };
        Ok((wanted, restored))
    }
}

/// What whoever imports says over the document.
#[derive(Debug, Clone, Default)]
pub(super) struct Over {
    pub(super) name: Option<String>,
    pub(super) server_id: Option<String>,
    pub(super) autostart: Option<bool>,
    pub(super) cpu_cores: Option<f64>,
    pub(super) memory_mb: Option<u64>,
    pub(super) storage_mb: Option<u64>,
}

/// Any bytes as a document, for fuzzing: what is taken as the wish for a container is one that a node takes.
pub(crate) fn fuzzing(bytes: &[u8]) {
    let defaults =
        Limits { cpu_millis: 1000, memory_bytes: 1 << 30, disk_bytes: 10 << 30, pids: 1024, network_mbit: Some(100) };
    let Ok(document) = Document::parse(bytes) else { return };
    let written = document.to_bytes().expect("what was read can be written");
    assert!(Document::parse(&written).is_ok(), "our own document");
    let Ok((wanted, restored)) = document.wanted(defaults, Over::default()) else { return };
    assert!(wanted.limits.is_valid() && wanted.limits.network_mbit <= defaults.network_mbit);
    assert!(restored.firewall.check().is_ok() && restored.dns.len() <= MAX_DNS_SERVERS);
    assert!(restored.egress.is_none_or(|egress| egress.check().is_ok() && egress.credentials().is_none()));
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Rules with identities of their own.
fn with_ids(rules: Vec<Rule>, texts: &mut BTreeMap<RuleId, RuleTexts>) -> Result<Vec<FirewallRule>, String> {
    let with_id = |Rule { mut rule, texts: written }| {
        let id = RuleId::generate();
        let fields: &mut serde_json::Map<String, Value> =
            Value::as_object_mut(&mut rule).ok_or("a rule is not an object")?;
        fields.insert("id".to_owned(), Value::String(id.to_string()));
        texts.insert(id, written);
        serde_json::from_value(rule).map_err(text)
    };
    rules.into_iter().map(with_id).collect()
}

impl Restored {
    /// How its first process is run.
    pub(super) fn image_config(&self) -> ImageConfig {
        self.image_config.clone()
    }

    /// Puts it into the row of a new container.
    pub(in super::super) fn put_into(&self, row: &mut ContainerRow) -> Result<(), ServiceError> {
        row.spec.dns = self.dns.clone().try_into().map_err(ServiceError::internal)?;
        row.spec.firewall = self.firewall.clone();
        row.spec.egress = self.egress.clone();
        let attributes = std::mem::take(&mut row.attributes);
        row.attributes =
            Attributes { rule_texts: self.rule_texts.clone(), network: self.network.clone(), ..attributes };
        Ok(())
    }
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
