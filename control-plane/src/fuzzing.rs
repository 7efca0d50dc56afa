//! Entry points for fuzzing: any bytes through the decoders that the control plane keeps to itself. Each
//! checks what must hold whatever the bytes are, and panics where it does not.

use crate::{
    config::Settings,
    keys,
    service::{
        container::archive,
        firewall::{RuleInput, Scalar, parse_rule, render_peer, render_ports},
        image::import,
        network, sign_in,
    },
};
use hoody_protocol::firewall::{Direction, Match};
use std::{path::Path, sync::atomic::AtomicBool};

pub use crate::service::image::registry::fuzzing::registry;
pub use import::fuzzing::{archive as image_archive, documents};

/// A firewall rule as clients write it: what is accepted is rendered and parsed to the same rule.
pub fn rule(bytes: &[u8]) {
    let Ok(input) = serde_json::from_slice::<RuleInput>(bytes) else { return };
    for direction in [Direction::Ingress, Direction::Egress] {
        let Ok((rule, _)) = parse_rule(direction, &input) else { continue };
        let mut again = input.clone();
        let peer = rule.peer.map(render_peer);
        match direction {
            Direction::Ingress => again.source = peer,
            Direction::Egress => again.destination = peer,
        }
        if let Match::Tcp(ports) | Match::Udp(ports) = &rule.matches {
            let text = |ranges: &[_]| (!ranges.is_empty()).then(|| Scalar::Text(render_ports(ranges)));
            (again.port, again.port_range) = (None, None);
            again.source_port = text(&ports.source);
            again.destination_port = text(&ports.destination);
        }
        let (parsed, _) = parse_rule(direction, &again).expect("our own rendering");
        assert_eq!((parsed.matches, parsed.peer, parsed.action), (rule.matches, rule.peer, rule.action));
    }
}

/// An archive of a container, with and without its compression: what is taken has its document and the length it says.
pub fn container_archive(bytes: &[u8]) {
    let compressed = zstd::encode_all(bytes, 1).expect("a text in memory");
    for bytes in [bytes, &compressed] {
        if let Ok(found) = archive::inspect(bytes, u64::MAX, &AtomicBool::new(false)) {
            assert!(found.document.len() as u64 <= found.bytes && found.file_bytes <= found.bytes);
        }
    }
}

/// The configuration file.
pub fn settings(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(settings) = Settings::parse(text, Path::new("control-plane.toml")) {
        let _ = settings.resolve();
    }
}

/// The document of a container's archive.
pub fn container_document(bytes: &[u8]) {
    archive::document_fuzzing(bytes);
}

/// An upstream proxy as clients write it.
pub fn upstream(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        network::upstream_fuzzing(text);
    }
}

/// What those answer with whom people sign in.
pub fn sign_in(bytes: &[u8]) {
    sign_in::fuzzing(bytes);
}

/// What a client shows as its token.
pub fn access_token(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        keys::token_fuzzing(text);
    }
}
