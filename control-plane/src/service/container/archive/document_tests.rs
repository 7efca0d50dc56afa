use super::*;

const DEFAULTS: Limits =
    Limits { cpu_millis: 1000, memory_bytes: 512 * MIB, disk_bytes: 1024 * MIB, pids: 512, network_mbit: Some(100) };

fn written() -> Value {
    json!({
        "version": 1, "name": "web", "image": "debian/12", "architecture": "amd64", "runtime": "lxc",
        "specs": {"cpu_cores": 0.5, "memory_mb": 64, "storage_mb": 128, "network_mbit": 1000},
        "autostart": true, "environment_vars": {"A": "b"},
        "firewall": {"ingress": [{"rule": {"enabled": true, "action": "allow", "matches": {"tcp": {"source": [], "destination": []}}, "peer": null,
            "description": "x"}, "texts": {"description": "x"}}], "egress": []},
        "egress": "block", "attributes": {"color": "#ABCDEF", "comment": "mine"},
    })
}

fn read(value: &Value) -> Result<(Wanted, Restored), ServiceError> {
    Document::parse(value.to_string().as_bytes())?.wanted(DEFAULTS, Over::default())
}

fn fields(outcome: Result<(Wanted, Restored), ServiceError>) -> Vec<String> {
    match outcome {
        Err(ServiceError::Invalid(problems)) => problems.into_keys().collect(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn what_was_exported_is_asked_for_again() {
    let (wanted, restored) = read(&written()).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!((wanted.limits.cpu_millis, wanted.limits.memory_bytes), (500, 64 * MIB));
    assert_eq!(wanted.limits.network_mbit, Some(100), "no more than the operator gives");
    assert!(wanted.autostart && wanted.ssh_public_key.is_none() && !wanted.kvm);
    assert_eq!(restored.egress, Some(EgressSpec::Block));
    assert_eq!((restored.firewall.ingress.len(), restored.rule_texts.len()), (1, 1));
    let over =
        Over { name: Some("other".to_owned()), storage_mb: Some(256), autostart: Some(false), ..Over::default() };
    let document = Document::parse(written().to_string().as_bytes()).unwrap();
    let (wanted, _) = document.wanted(DEFAULTS, over).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!((wanted.name.as_deref(), wanted.limits.disk_bytes, wanted.autostart), (Some("other"), 256 * MIB, false));
}

#[test]
fn everything_in_it_is_checked_as_if_a_client_had_sent_it() {
    let with = |pointer: &str, value: Value| {
        let mut document = written();
        *document.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        fields(read(&document))
    };
    assert_eq!(with("/version", json!(2)), ["archive"]);
    assert_eq!(with("/name", json!("../x")), ["name"]);
    assert_eq!(with("/runtime", json!("vm")), ["runtime"]);
    assert_eq!(with("/specs/memory_mb", json!(1)), ["specs.memory_mb"]);
    assert_eq!(with("/specs/memory_mb", json!("x")), ["archive"]);
    assert_eq!(with("/environment_vars", json!({"HOODY_X": "y"})), ["archive.environment_vars"]);
    assert_eq!(with("/environment_vars", json!({"A": "b\0"})), ["archive.environment_vars"]);
    assert_eq!(with("/image", json!("a\0")), ["archive.image"]);
    assert_eq!(with("/attributes/color", json!("red")), ["color"]);
    assert_eq!(with("/firewall/ingress", json!([{"rule": {"action": "open"}}])), ["archive.firewall"]);
    assert_eq!(with("/firewall/ingress", json!([{"rule": []}])), ["archive.firewall"]);
    let proxy = json!({"proxy": {"kind": "socks5", "host": "a b", "port": 0, "dns": []}});
    assert_eq!(with("/egress", proxy), ["archive.egress"]);
    let known = json!({"proxy": {"kind": "socks5", "host": "proxy.example", "port": 1080, "dns": [],
        "credentials": {"username": "u", "password": "p"}}});
    let mut document = written();
    document["egress"] = known;
    let (_, restored) = read(&document).unwrap_or_else(|error| panic!("{error:?}"));
    assert!(restored.egress.is_some_and(|egress| egress.credentials().is_none()), "credentials of strangers");
    assert!(Document::parse(b"{").is_err() && Document::parse(b"[]").is_err());
}
