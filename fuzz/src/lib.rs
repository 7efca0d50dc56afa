//! Every decoder of bytes from outside, as a function of any bytes that panics where something is wrong.
//!
//! `fuzz/corpus/<target>/` holds inputs worth keeping: `cargo test -p hoody-fuzz` replays and mutates
//! them, `make fuzz` lets libFuzzer look for more.

use hoody_agent::fuzzing as agent;
use hoody_control_plane::fuzzing as control_plane;
use hoody_protocol::{
    codec::{self, Frame},
    command::{built_in, schema::Schema, template::Template},
    firewall::FirewallSpec,
    join_token::JoinToken,
    share, tag, transport,
};
use hoody_proxy::fuzzing as proxy;
use serde_json::{Map, Value};
use std::path::{Component, Path};
use tempfile::TempDir;

/// One decoder under test.
pub type Target = fn(&[u8]);

/// Every decoder, by the name of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("access-token", control_plane::access_token),
    ("agent-config", agent_config),
    ("certificate", certificate),
    ("command", command),
    ("commands-policy", agent::commands_policy),
    ("container-archive", container_archive),
    ("container-document", control_plane::container_document),
    ("control-plane-config", control_plane::settings),
    ("dns-message", proxy::dns_message),
    ("firewall-policy", firewall_policy),
    ("firewall-rule", control_plane::rule),
    ("frame", frame),
    ("http-response", proxy::http_response),
    ("image-archive", image_archive),
    ("image-documents", control_plane::documents),
    ("inside", agent::inside),
    ("join-token", join_token),
    ("journal", agent::journal),
    ("layer", layer),
    ("log-line", agent::log_line),
    ("message", message),
    ("proxy-message", proxy::control_message),
    ("record", agent::record),
    ("registry", control_plane::registry),
    ("send-stream", agent::send_stream),
    ("share-path", share_path),
    ("sign-in", control_plane::sign_in),
    ("socks-reply", proxy::socks_reply),
    ("upstream", control_plane::upstream),
];

/// The decoder of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// Any bytes as a sequence of frames: what decodes has one encoding.
fn frame(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some((frame, after))) = codec::split_frame(rest) {
        rest = after;
        has_one_encoding(&frame);
    }
}

/// The first byte is the message's tag, the others are its body.
fn message(bytes: &[u8]) {
    let Some((choice, body)) = bytes.split_first() else { return };
    let tag = u16::from(*choice);
    let Some(max) = tag::max_bytes(tag) else { return };
    has_one_encoding(&Frame { tag, body: body[..body.len().min(max)].to_vec() });
}

fn has_one_encoding(frame: &Frame) {
    let Ok(encoded) = tag::reencode(frame) else { return };
    let (again, left) = codec::split_frame(&encoded).expect("our own frame").expect("a whole frame");
    assert!(left.is_empty());
    assert_eq!(tag::reencode(&again).expect("our own message"), encoded);
}

fn join_token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(token) = text.parse::<JoinToken>() {
        assert_eq!(token.reveal().parse(), Ok(token));
    }
    // The content behind the text's armour, which random text never gets through.
    if let Ok(token) = minicbor_serde::from_slice::<JoinToken>(bytes) {
        assert_eq!(token.reveal().parse(), Ok(token));
    }
}

/// A signing request and a peer's certificate.
fn certificate(bytes: &[u8]) {
    let _ = transport::verify_signing_request(bytes);
    let _ = transport::certificate_identity(&bytes.into());
}

/// A command as operators write it and a client's parameters for it: `[schema, command line, parameters]`. What is
/// rendered has the program that was written, and no argument that a parameter made an option.
fn command(bytes: &[u8]) {
    type Command = (Value, Vec<String>, Map<String, Value>);
    let Ok((schema, line, values)) = serde_json::from_slice::<Command>(bytes) else { return };
    for command in built_in::all() {
        let Ok(parameters) = command.schema().read(&values) else { continue };
        let arguments = command.arguments(&parameters).expect("parameters that were read");
        assert_eq!(arguments.first().map(|program| program.as_str()), command.argv.first().copied());
    }
    let Ok(schema) = Schema::parse(&schema) else { return };
    let (Ok(template), Ok(parameters)) = (Template::parse(&line, &schema), schema.read(&values)) else { return };
    assert_eq!(schema.validate(&parameters), Ok(()), "what was read is valid");
    let Ok(arguments) = template.render(&parameters) else { return };
    assert_eq!(arguments.first().map(|program| program.as_str()), line.first().map(String::as_str));
    assert!(arguments.len() <= line.len());
    let options = |texts: &mut dyn Iterator<Item = &str>| texts.filter(|text| text.starts_with('-')).count();
    assert!(options(&mut arguments.iter().map(|text| text.as_str())) <= options(&mut line.iter().map(String::as_str)));
    assert!(arguments.iter().all(|text| !text.chars().any(char::is_control)));
}

/// A folder that is shared, as clients name it: its plain form is one, leads nowhere else, and is nothing of the system's.
fn share_path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if share::is_name(text) {
        assert!(!text.contains(['/', '.', '\0']));
    }
    let Ok(path) = share::normal_path(text) else { return };
    assert_eq!(share::normal_path(&path).as_deref(), Ok(path.as_str()));
    let parts: Vec<_> = Path::new(&path).components().skip(1).collect();
    assert!(parts.iter().all(|part| matches!(part, Component::Normal(_))) && !parts.is_empty());
    assert!(
        !["/proc", "/sys", "/dev", share::MOUNT_POINT, share::RAMDISK]
            .iter()
            .any(|no| Path::new(&path).starts_with(no))
    );
}

fn agent_config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(config) = hoody_agent::config::Config::parse(text, Path::new("agent.toml")) {
        assert!(config.cgroup_path().components().all(|part| part != Component::ParentDir));
        assert!(config.identity_dir().is_absolute() && config.status_socket().is_absolute());
    }
}

/// Both as JSON, as the store keeps it, and as CBOR, as the link brings it.
fn firewall_policy(bytes: &[u8]) {
    let json = std::str::from_utf8(bytes).ok().and_then(|text| serde_json::from_str::<FirewallSpec>(text).ok());
    if let Some(spec) = json.or_else(|| minicbor_serde::from_slice(bytes).ok()) {
        agent::policy(spec);
    }
}

/// The unpacker's reader, and the unpacker itself in a root of its own; also with checksums put right.
fn layer(bytes: &[u8]) {
    let scratch = scratch();
    let root = agent::LayerRoot::new(scratch.path());
    for bytes in [bytes.to_vec(), agent::with_checksums(bytes)] {
        agent::archive(&bytes);
        root.apply(&bytes);
    }
}

/// An archive of a container that a tenant uploads.
fn container_archive(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), agent::with_checksums(bytes)] {
        control_plane::container_archive(&bytes);
    }
}

/// An archive that an operator imports.
fn image_archive(bytes: &[u8]) {
    let scratch = scratch();
    let source = scratch.path().join("archive");
    let target = scratch.path().join("layout");
    for bytes in [bytes.to_vec(), agent::with_checksums(bytes)] {
        std::fs::write(&source, &bytes).expect("write the archive");
        std::fs::create_dir(&target).expect("an empty folder");
        control_plane::image_archive(&source, &target);
        std::fs::remove_dir_all(&target).expect("remove what was unpacked");
    }
}

/// An empty folder, of one call: what is dropped at a process's end never goes.
fn scratch() -> TempDir {
    tempfile::tempdir().expect("a folder for scratch files")
}
