//! Which rules a toggle or a removal means: those that agree with every field given.

use super::{
    input::RuleInput,
    peer::Peer,
    rule::{Fields, Protocol, RuleTexts, parse_fields},
};
use crate::error::ServiceError;
use hoody_protocol::firewall::{Direction, FirewallRule, Match};
use std::collections::BTreeMap;

/// The fields that a rule must agree with.
#[derive(Debug, Clone)]
pub struct Selector(Fields);

impl Selector {
    /// For a toggle: `state` is what the rules are to become, and required.
    pub fn for_toggle(direction: Direction, input: &RuleInput) -> Result<(Self, bool), ServiceError> {
        let mut fields = parse(direction, input)?;
        let Some(enabled) = fields.enabled.take() else {
            return Err(ServiceError::invalid("state", "is required: enabled or disabled"));
        };
        if fields == Fields::default() {
            return Err(ServiceError::invalid("protocol", NO_FIELD));
        }
        Ok((Self(fields), enabled))
    }

    /// For a removal; `None` is every rule of the direction.
    pub fn for_removal(direction: Direction, input: &RuleInput) -> Result<Option<Self>, ServiceError> {
        let fields = parse(direction, input)?;
        match (input.all == Some(true), fields == Fields::default()) {
            (true, true) => Ok(None),
            (true, false) => {
                Err(ServiceError::invalid("all", "stands alone: leave the other fields out, or leave out \"all\""))
            }
            (false, true) => Err(ServiceError::invalid("all", NO_FIELD)),
            (false, false) => Ok(Some(Self(fields))),
        }
    }

    /// True where the rule agrees with every field given.
    pub fn selects(&self, rule: &FirewallRule, texts: &RuleTexts) -> bool {
        let Self(wanted) = self;
        let (protocol, ports, icmp_type, icmp_code) = match &rule.matches {
            Match::Tcp(ports) => (Protocol::Tcp, Some(ports), None, None),
            Match::Udp(ports) => (Protocol::Udp, Some(ports), None, None),
            Match::Icmp4 { icmp_type, icmp_code } => (Protocol::Icmp4, None, *icmp_type, *icmp_code),
        };
        agrees(&wanted.action, &rule.action)
            && agrees(&wanted.protocol, &protocol)
            && agrees(&wanted.enabled, &rule.enabled)
            && agrees(&wanted.peer, &Peer::of(rule))
            && wanted.source_port.as_ref().is_none_or(|w| ports.is_some_and(|p| *w == p.source))
            && wanted.destination_port.as_ref().is_none_or(|w| ports.is_some_and(|p| *w == p.destination))
            && (wanted.icmp_type.is_none() || wanted.icmp_type == icmp_type)
            && (wanted.icmp_code.is_none() || wanted.icmp_code == icmp_code)
            && (!wanted.has_description || wanted.texts.description == texts.description)
    }
}

const NO_FIELD: &str = "say which rules are meant: give at least one of protocol, action, destination_port, \
                        source_port, source, destination, icmp_type, description";

fn parse(direction: Direction, input: &RuleInput) -> Result<Fields, ServiceError> {
    let mut problems = BTreeMap::new();
    let fields = parse_fields(direction, input, &mut problems);
    if problems.is_empty() { Ok(fields) } else { Err(ServiceError::Invalid(problems)) }
}

fn agrees<T: PartialEq>(wanted: &Option<T>, found: &T) -> bool {
    wanted.as_ref().is_none_or(|wanted| wanted == found)
}

#[cfg(test)]
mod tests {
    use super::super::rule::parse_rule;
    use super::*;
    use serde_json::{Value, json};

    fn input(value: Value) -> RuleInput {
        serde_json::from_value(value).unwrap()
    }

    fn rule() -> (FirewallRule, RuleTexts) {
        let rule = json!({"action": "allow", "protocol": "tcp", "port": "80,443", "source": "10.0.0.0/8", "description": "web"});
        parse_rule(Direction::Ingress, &input(rule)).unwrap()
    }

    fn removes(fields: Value) -> bool {
        let (rule, texts) = rule();
        Selector::for_removal(Direction::Ingress, &input(fields)).unwrap().unwrap().selects(&rule, &texts)
    }

    #[test]
    fn any_subset_of_the_fields_selects() {
        for fields in [
            json!({"protocol": "tcp"}),
            json!({"port": "443,80"}),
            json!({"action": "allow", "source": "10.9.9.9/8"}),
            json!({"state": "enabled", "description": "web"}),
        ] {
            assert!(removes(fields.clone()), "{fields}");
        }
    }

    #[test]
    fn one_field_that_differs_does_not_select() {
        for fields in [
            json!({"protocol": "udp"}),
            json!({"protocol": "tcp", "port": 80}),
            json!({"protocol": "tcp", "source_port": 80}),
            json!({"source": "0.0.0.0/0"}),
            json!({"state": "disabled"}),
            json!({"description": ""}),
            json!({"protocol": "icmp4", "icmp_type": 8}),
        ] {
            assert!(!removes(fields.clone()), "{fields}");
        }
    }

    #[test]
    fn a_request_that_names_no_field_is_refused() {
        let direction = Direction::Ingress;
        assert!(Selector::for_removal(direction, &input(json!({}))).is_err());
        assert!(Selector::for_removal(direction, &input(json!({"all": false}))).is_err());
        assert!(Selector::for_removal(direction, &input(json!({"all": true, "port": 1}))).is_err());
        assert!(Selector::for_removal(direction, &input(json!({"all": true}))).unwrap().is_none());
        assert!(Selector::for_toggle(direction, &input(json!({"port": 1}))).is_err());
        assert!(Selector::for_toggle(direction, &input(json!({"state": "disabled"}))).is_err());
        assert!(!Selector::for_toggle(direction, &input(json!({"state": "disabled", "port": 1}))).unwrap().1);
    }
}
