//! What a container's owner said about it and its node need not know; one JSON object in the row.

use hoody_protocol::id::{ContainerId, RuleId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::{super::firewall_texts::RuleTexts, network::NetworkSettings};

/// The attributes. What a stored object lacks has its default, so that attributes can be added.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Attributes {
    /// Colour for people, hexadecimal.
    pub color: String,
    /// The owner's remark.
    pub comment: Option<String>,
    /// Marked as meant for AI work.
    pub ai: bool,
    /// The development kit was asked for.
    pub dev_kit: bool,
    /// The platform's kit was asked for.
    pub hoody_kit: bool,
    /// May be handed out from a stock of prepared containers.
    pub prespawn: bool,
    /// Must not come from that stock.
    pub bypass_prespawn: bool,
    /// Caching was asked for.
    pub cache: bool,
    /// Caching of the image was asked for.
    pub cache_image: bool,
    /// `container` or `project`; empty: `container`.
    pub ramdisk_scope: String,
    /// How often a start was asked for: the next start's number is one more.
    pub runs: u64,
    /// It is stopped, and must not change, because it is just being moved to another server.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// The container that it is a copy of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copied_from: Option<ContainerId>,
    /// What clients wrote in firewall rules, to answer with the same.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rule_texts: BTreeMap<RuleId, RuleTexts>,
    /// Its network configuration, in force or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkSettings>,
}
