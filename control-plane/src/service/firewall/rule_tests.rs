use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn input(value: Value) -> RuleInput {
    serde_json::from_value(value).unwrap()
}

fn ingress(value: Value) -> Result<(FirewallRule, RuleTexts), ServiceError> {
    parse_rule(Direction::Ingress, &input(value))
}

/// The names of the fields that are refused.
fn refused(direction: Direction, value: Value) -> Vec<String> {
    match parse_rule(direction, &input(value)) {
        Err(ServiceError::Invalid(details)) => details.into_keys().collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_whole_rule() {
    let (rule, texts) = ingress(json!({
        "action": "drop", "protocol": "tcp", "destination_port": "80, 443", "source_port": "1024-65535",
        "source": "10.1.2.3/8", "state": "disabled", "description": "web",
    }))
    .unwrap();
    assert!(!rule.enabled);
    assert_eq!(rule.action, Action::Drop);
    let Match::Tcp(ports) = &rule.matches else { panic!("{rule:?}") };
    assert_eq!(ports.destination.len(), 2);
    assert_eq!((ports.source[0].first(), ports.source[0].last()), (1024, 65535));
    assert_eq!(rule.peer, Some("10.0.0.0/8".parse().unwrap()));
    assert_eq!(rule.description.as_str(), "web");
    assert_eq!(texts.peer.as_deref(), Some("10.1.2.3/8"));
    assert_eq!(texts.destination_port.as_deref(), Some("80, 443"));
}

#[test]
fn ports_as_number_and_under_every_name() {
    for name in ["port", "port_range", "destination_port"] {
        for port in [json!(443), json!("443")] {
            let (rule, _) = ingress(json!({"action": "allow", "protocol": "udp", name: port})).unwrap();
            let Match::Udp(ports) = rule.matches else { panic!() };
            assert_eq!((ports.destination[0].first(), ports.destination[0].last()), (443, 443));
        }
    }
}

#[test]
fn what_is_absent_matches_everything() {
    let (rule, texts) = ingress(json!({"action": "allow", "protocol": "tcp"})).unwrap();
    assert!(rule.enabled);
    assert_eq!((rule.peer, rule.matches), (None, Match::Tcp(Ports::default())));
    assert_eq!(texts, RuleTexts::default());
    let (rule, texts) = ingress(json!({"action": "allow", "protocol": "tcp", "source": "0.0.0.0/0"})).unwrap();
    assert_eq!((rule.peer, texts.peer.as_deref()), (None, Some("0.0.0.0/0")));
}

#[test]
fn icmp_type_and_code() {
    let (rule, _) = ingress(json!({"action": "drop", "protocol": "icmp4", "icmp_type": "8", "icmp_code": 0})).unwrap();
    assert_eq!(rule.matches, Match::Icmp4 { icmp_type: Some(8), icmp_code: Some(0) });
}

#[test]
fn every_bad_field_is_named() {
    use Direction::{Egress, Ingress};
    assert_eq!(refused(Ingress, json!({})), ["action", "protocol"]);
    assert_eq!(
        refused(Ingress, json!({"action": "deny", "protocol": "icmp6", "state": "on"})),
        ["action", "protocol", "state"]
    );
    let rule = |extra: Value| {
        let mut rule = json!({"action": "allow", "protocol": "tcp"});
        rule.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        rule
    };
    assert_eq!(refused(Ingress, rule(json!({"port": 0}))), ["port"]);
    assert_eq!(refused(Ingress, rule(json!({"port": 65536}))), ["port"]);
    assert_eq!(refused(Ingress, rule(json!({"port_range": "90-80"}))), ["port_range"]);
    assert_eq!(refused(Ingress, rule(json!({"port": 80, "port_range": "80"}))), ["port_range"]);
    assert_eq!(
        refused(Ingress, rule(json!({"source_port": "a", "destination_port": "b"}))),
        ["destination_port", "source_port"]
    );
    assert_eq!(refused(Ingress, rule(json!({"icmp_type": 8}))), ["icmp_type"]);
    assert_eq!(refused(Ingress, rule(json!({"source": "::/0"}))), ["source"]);
    assert_eq!(refused(Ingress, rule(json!({"source": "api.example.com"}))), ["source"]);
    assert_eq!(refused(Ingress, rule(json!({"destination": "10.0.0.0/8"}))), ["destination"]);
    assert_eq!(refused(Egress, rule(json!({"source": "10.0.0.0/8"}))), ["source"]);
    assert_eq!(refused(Egress, rule(json!({"destination": "10.0.0.0/99"}))), ["destination"]);
    assert_eq!(refused(Ingress, rule(json!({"description": "x".repeat(256)}))), ["description"]);
    let icmp = |extra: Value| {
        let mut rule = rule(extra);
        rule["protocol"] = json!("icmp4");
        rule
    };
    assert_eq!(refused(Ingress, icmp(json!({"port": 80}))), ["port"]);
    assert_eq!(refused(Ingress, icmp(json!({"icmp_code": 0}))), ["icmp_code"]);
    assert_eq!(refused(Ingress, icmp(json!({"icmp_type": 256}))), ["icmp_type"]);
    assert_eq!(refused(Ingress, icmp(json!({"icmp_type": "echo-request"}))), ["icmp_type"]);
}

#[test]
fn egress_takes_a_host_name_and_ingress_does_not() {
    let rule = input(json!({"action": "allow", "protocol": "tcp", "destination": " API.Example.com. "}));
    let (rule, texts) = parse_rule(Direction::Egress, &rule).unwrap();
    assert_eq!((rule.peer, rule.host.as_deref()), (None, Some("api.example.com")));
    assert_eq!(texts.peer.as_deref(), Some("API.Example.com."), "answered as it was written");
    let ingress = json!({"action": "allow", "protocol": "tcp", "source": "api.example.com"});
    assert_eq!(refused(Direction::Ingress, ingress), ["source"]);
}

#[test]
fn a_long_remark_of_wide_characters_is_kept_whole_for_the_owner() {
    let remark = "ß".repeat(255);
    let (rule, texts) = ingress(json!({"action": "allow", "protocol": "tcp", "description": remark})).unwrap();
    assert_eq!(texts.description, remark);
    assert_eq!(rule.description.chars().count(), 127);
}

proptest! {
    #[test]
    fn any_texts_are_handled(action in "allow|drop|.{0,8}", protocol in "tcp|icmp4|.{0,8}", port in ".{0,20}", source in ".{0,20}", kind in ".{0,4}") {
        let rule = input(json!({"action": action, "protocol": protocol, "port": port, "source": source, "icmp_type": kind}));
        let _ = parse_rule(Direction::Ingress, &rule);
    }
}
