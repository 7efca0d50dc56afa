//! From a client's rule to the rule that the node enforces, with every bad field named.

use super::{
    input::{RuleInput, Scalar},
    peer::{self, Peer},
    ports,
};
use crate::error::ServiceError;
pub use crate::store::firewall_texts::RuleTexts;
use hoody_protocol::{
    bounded::{List, Text},
    firewall::{Action, Direction, FirewallRule, MAX_PORT_RANGES, Match, PortRange, Ports},
    id::RuleId,
};
use std::collections::BTreeMap;

/// Longest remark, in characters.
const MAX_DESCRIPTION_CHARS: usize = 255;

/// The fields of a rule that a client gave, each valid.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Fields {
    pub(super) action: Option<Action>,
    pub(super) protocol: Option<Protocol>,
    pub(super) enabled: Option<bool>,
    pub(super) peer: Option<Peer>,
    pub(super) source_port: Option<List<PortRange, MAX_PORT_RANGES>>,
    pub(super) destination_port: Option<List<PortRange, MAX_PORT_RANGES>>,
    pub(super) icmp_type: Option<u8>,
    pub(super) icmp_code: Option<u8>,
    pub(super) texts: RuleTexts,
    /// A remark was given; its text is in `texts`.
    pub(super) has_description: bool,
}

/// The protocols a rule can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
    Icmp4,
}

type Problems = BTreeMap<String, String>;

/// A new rule with an identity of its own, and the texts to answer with.
pub fn parse_rule(direction: Direction, input: &RuleInput) -> Result<(FirewallRule, RuleTexts), ServiceError> {
    let mut problems = Problems::new();
    let fields = parse_fields(direction, input, &mut problems);
    for (name, missing) in [("action", input.action.is_none()), ("protocol", input.protocol.is_none())] {
        if missing {
            problems.insert(name.to_owned(), "is required".to_owned());
        }
    }
    let (Some(action), Some(protocol), true) = (fields.action, fields.protocol, problems.is_empty()) else {
        return Err(ServiceError::Invalid(problems));
    };
    let ports = Ports {
        source: fields.source_port.unwrap_or_default(),
        destination: fields.destination_port.unwrap_or_default(),
    };
    let (peer, host) = fields.peer.unwrap_or(Peer::Any).parts();
    let rule = FirewallRule {
        id: RuleId::generate(),
        enabled: fields.enabled.unwrap_or(true),
        action,
        matches: match protocol {
            Protocol::Tcp => Match::Tcp(ports),
            Protocol::Udp => Match::Udp(ports),
            Protocol::Icmp4 => Match::Icmp4 { icmp_type: fields.icmp_type, icmp_code: fields.icmp_code },
        },
        peer,
        host: host.map(Text::truncated),
        description: Text::truncated(fields.texts.description.clone()),
    };
    Ok((rule, fields.texts))
}

/// Parses what is given; problems are gathered.
pub(super) fn parse_fields(direction: Direction, input: &RuleInput, problems: &mut Problems) -> Fields {
    let mut fields = Fields {
        action: word(input.action.as_deref(), "action", ACTIONS, problems),
        protocol: word(input.protocol.as_deref(), "protocol", PROTOCOLS, problems),
        enabled: word(input.state.as_deref(), "state", STATES, problems),
        icmp_type: byte(input.icmp_type.as_ref(), "icmp_type", problems),
        icmp_code: byte(input.icmp_code.as_ref(), "icmp_code", problems),
        ..Fields::default()
    };
    if let Some(description) = &input.description {
        if description.chars().count() > MAX_DESCRIPTION_CHARS || description.contains('\0') {
            problems.insert(
                "description".to_owned(),
                format!("takes at most {MAX_DESCRIPTION_CHARS} characters, none of them NUL"),
            );
        }
        fields.texts.description.clone_from(description);
        fields.has_description = true;
    }
    parse_peer(direction, input, &mut fields, problems);
    parse_ports(input, &mut fields, problems);
    if fields.icmp_code.is_some() && input.icmp_type.is_none() {
        problems.insert("icmp_code".to_owned(), "needs an icmp_type".to_owned());
    }
    if matches!(fields.protocol, Some(Protocol::Tcp | Protocol::Udp)) {
        for (name, given) in [("icmp_type", input.icmp_type.is_some()), ("icmp_code", input.icmp_code.is_some())] {
            if given {
                problems.insert(name.to_owned(), "is only for protocol icmp4".to_owned());
            }
        }
    }
    fields
}

const ACTIONS: &[(&str, Action)] = &[("allow", Action::Allow), ("reject", Action::Reject), ("drop", Action::Drop)];
const PROTOCOLS: &[(&str, Protocol)] = &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("icmp4", Protocol::Icmp4)];
const STATES: &[(&str, bool)] = &[("enabled", true), ("disabled", false)];

fn word<T: Copy>(text: Option<&str>, name: &str, words: &[(&str, T)], problems: &mut Problems) -> Option<T> {
    let text = text?;
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    if found.is_none() {
        let known = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        problems.insert(name.to_owned(), format!("must be one of {known}"));
    }
    found
}

fn byte(value: Option<&Scalar>, name: &str, problems: &mut Problems) -> Option<u8> {
    let text = value?.to_string();
    let parsed = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    if parsed.is_none() {
        problems.insert(name.to_owned(), "must be a number from 0 to 255".to_owned());
    }
    parsed
}

fn parse_peer(direction: Direction, input: &RuleInput, fields: &mut Fields, problems: &mut Problems) {
    let (name, text, wrong, given) = match direction {
        Direction::Ingress => ("source", &input.source, "destination", &input.destination),
        Direction::Egress => ("destination", &input.destination, "source", &input.source),
    };
    if given.is_some() {
        let problem = format!("is not for this direction: the container is the {wrong} itself, use \"{name}\"");
        problems.insert(wrong.to_owned(), problem);
    }
    let Some(text) = text else { return };
    match peer::parse(text) {
        Ok(Peer::Host(_)) if direction == Direction::Ingress => {
            let problem =
                "is a host name, which only egress rules take: give an IPv4 address or CIDR such as 10.0.0.0/8";
            problems.insert(name.to_owned(), problem.to_owned());
        }
        Ok(peer) => {
            fields.peer = Some(peer);
            fields.texts.peer = Some(text.trim().to_owned());
        }
        Err(error) => {
            problems.insert(name.to_owned(), error.to_string());
        }
    }
}

fn parse_ports(input: &RuleInput, fields: &mut Fields, problems: &mut Problems) {
    let names =
        [("destination_port", &input.destination_port), ("port", &input.port), ("port_range", &input.port_range)];
    let mut given = names.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?.to_string())));
    let destination = given.next();
    if let Some((name, _)) = given.next() {
        problems.insert(name.to_owned(), "is another name of destination_port: give one of them".to_owned());
    }
    let source = input.source_port.as_ref().map(|value| ("source_port", value.to_string()));
    let mut parsed = |field: Option<(&str, String)>| {
        let (name, text) = field?;
        if fields.protocol == Some(Protocol::Icmp4) {
            problems.insert(name.to_owned(), "is only for protocols tcp and udp".to_owned());
            return None;
        }
        match ports::parse(&text) {
            Ok(ranges) => Some((ranges, text.trim().to_owned())),
            Err(error) => {
                problems.insert(name.to_owned(), error.to_string());
                None
            }
        }
    };
    let (source, destination) = (parsed(source), parsed(destination));
    (fields.source_port, fields.texts.source_port) = source.unzip();
    (fields.destination_port, fields.texts.destination_port) = destination.unzip();
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;
