//! What clients wrote in a firewall rule, kept beside the rule's meaning.

use serde::{Deserialize, Serialize};

/// The texts a client gave for a rule, to answer with the same. What they mean stands in the
/// [`FirewallRule`](hoody_protocol::firewall::FirewallRule).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RuleTexts {
    /// Address or CIDR.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The sender's ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<String>,
    /// The receiver's ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<String>,
    /// The remark, whole: the node's copy is cut at its limit in bytes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
}
