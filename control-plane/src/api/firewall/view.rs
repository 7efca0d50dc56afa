//! Rules in the contract's shape.

use crate::{
    service::firewall::{self as service, MAX_BYTES, Rule, render_peer, render_ports},
    store::container::ContainerRow,
};
use hoody_protocol::{
    container::Cause,
    firewall::{Action, Direction, FirewallRule, MAX_RULES, Match, PortRange, RuleCounter},
};
use serde::Serialize;
use utoipa::ToSchema;

/// A rule.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RuleData {
    /// allow, reject or drop.
    action: &'static str,
    /// tcp, udp or icmp4.
    protocol: &'static str,
    /// enabled or disabled.
    state: &'static str,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_port: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_port: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_code: Option<String>,
}

impl RuleData {
    pub(super) fn new(direction: Direction, (rule, texts): Rule) -> Self {
        let peer = texts.peer.or_else(|| rule.host.as_ref().map(ToString::to_string));
        let peer = peer.or_else(|| rule.peer.map(render_peer));
        let (source, destination) = match direction {
            Direction::Ingress => (peer, None),
            Direction::Egress => (None, peer),
        };
        let ports = |text: Option<String>, ranges: &[PortRange]| {
            text.or_else(|| (!ranges.is_empty()).then(|| render_ports(ranges)))
        };
        let number = |number: u8| number.to_string();
        let (protocol, source_port, destination_port, icmp_type, icmp_code) = match &rule.matches {
            Match::Tcp(of) => (
                "tcp",
                ports(texts.source_port, &of.source),
                ports(texts.destination_port, &of.destination),
                None,
                None,
            ),
            Match::Udp(of) => (
                "udp",
                ports(texts.source_port, &of.source),
                ports(texts.destination_port, &of.destination),
                None,
                None,
            ),
            Match::Icmp4 { icmp_type, icmp_code } => {
                ("icmp4", None, None, icmp_type.map(number), icmp_code.map(number))
            }
        };
        Self {
            action: match rule.action {
                Action::Allow => "allow",
                Action::Reject => "reject",
                Action::Drop => "drop",
            },
            protocol,
            state: if rule.enabled { "enabled" } else { "disabled" },
            description: texts.description,
            source,
            destination,
            source_port,
            destination_port,
            icmp_type,
            icmp_code,
        }
    }
}

/// A rule in a list, with what it has seen.
#[derive(Debug, Serialize, ToSchema)]
struct ListedRule {
    direction: Way,
    #[serde(flatten)]
    rule: RuleData,
    /// Packets that matched since the rule was made, as last measured; null: not measured yet.
    packets: Option<u64>,
    /// Bytes of those packets.
    bytes: Option<u64>,
}

/// ingress or egress.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Way {
    /// To the container.
    Ingress,
    /// From the container.
    Egress,
}

impl From<Direction> for Way {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Ingress => Self::Ingress,
            Direction::Egress => Self::Egress,
        }
    }
}

/// A container's rules.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Rules {
    ingress: Vec<ListedRule>,
    egress: Vec<ListedRule>,
    rule_count: usize,
    max_rules: usize,
    byte_count: usize,
    max_bytes: usize,
    /// The server has put exactly these rules in force.
    in_force: bool,
    /// Why it could not: the rules before these still stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<RuleError>,
}

/// Why rules are not in force.
#[derive(Debug, Serialize, ToSchema)]
struct RuleError {
    code: String,
    message: String,
}

impl Rules {
    pub(super) fn new(row: &ContainerRow, counters: &[RuleCounter]) -> Self {
        let listed = |direction: Direction| -> Vec<ListedRule> {
            let view = |rule: &FirewallRule| {
                let counter = counters.iter().find(|counter| counter.rule == rule.id);
                ListedRule {
                    direction: direction.into(),
                    rule: RuleData::new(direction, (rule.clone(), service::texts(row, rule))),
                    packets: counter.map(|counter| counter.packets),
                    bytes: counter.map(|counter| counter.bytes),
                }
            };
            row.spec.firewall.rules(direction).iter().map(view).collect()
        };
        let report = row.report.as_ref().filter(|report| report.version >= row.spec.version);
        let error = report.and_then(|report| report.firewall_error.as_ref());
        let (ingress, egress) = (listed(Direction::Ingress), listed(Direction::Egress));
        Self {
            rule_count: ingress.len() + egress.len(),
            ingress,
            egress,
            max_rules: MAX_RULES,
            byte_count: service::byte_count(row),
            max_bytes: MAX_BYTES,
            in_force: report.is_some_and(|report| report.converged) && error.is_none(),
            error: error
                .map(|Cause { code, message }| RuleError { code: code.to_string(), message: message.to_string() }),
        }
    }
}

/// The answer to an addition.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AddedRule {
    #[serde(flatten)]
    pub(super) rule: RuleData,
    /// There was such a rule already, and nothing was added.
    pub(super) duplicate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) duplicate_of: Option<Place>,
}

/// Where a rule stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Place {
    pub(super) direction: Way,
    /// Position among the direction's rules, from 0.
    pub(super) index: usize,
}

/// The answer to a toggle.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ToggledRule {
    pub(super) direction: Way,
    /// enabled or disabled.
    pub(super) new_state: &'static str,
    /// The first of the rules that were meant.
    pub(super) updated: RuleData,
    /// How many rules were meant.
    pub(super) updated_count: usize,
}

/// The answer to a removal.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RemovedRules {
    pub(super) direction: Way,
    pub(super) removed: Vec<RuleData>,
    pub(super) removed_count: usize,
}

/// The answer to a reset.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ResetRules {
    pub(super) rules: NoRules,
}

/// No rules in either direction.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct NoRules {
    #[schema(value_type = Vec<Object>)]
    pub(super) ingress: [(); 0],
    #[schema(value_type = Vec<Object>)]
    pub(super) egress: [(); 0],
}
