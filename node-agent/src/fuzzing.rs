//! Entry points for fuzzing: any bytes through the decoders that the agent keeps to itself. Each checks
//! what must hold whatever the bytes are, and panics where it does not.

use crate::{
    commands::policy::Policy,
    desired::{
        file, journal,
        record::{self, Record},
    },
    firewall,
    images::unpack::fuzzing as unpack,
    logs::record as record_of_log,
    runtime,
    storage::{self, receive},
};
use hoody_protocol::{
    bounded::Text,
    command::{Account, Order},
    firewall::FirewallSpec,
};
use std::path::Path;

pub use unpack::{LayerRoot, archive, with_checksums};

/// A journal: whatever is read is within what the file can hold, and can be written and read again.
pub fn journal(bytes: &[u8]) {
    journal::fuzzing(bytes);
}

/// A line of a container's log.
pub fn log_line(bytes: &[u8]) {
    record_of_log::fuzzing(bytes);
}

/// A record's file, its content, and what is salvaged of a damaged one.
pub fn record(bytes: &[u8]) {
    let _ = file::open(bytes.to_vec());
    assert_eq!(file::open(file::close(bytes)).as_deref(), Ok(bytes));
    let _ = record::salvage_bytes(bytes);
    let Ok(record) = serde_json::from_slice::<Record>(bytes) else { return };
    let written = serde_json::to_vec(&record).expect("what was read can be written");
    assert_eq!(serde_json::from_slice::<Record>(&written).expect("our own record"), record);
    assert_eq!(record::salvage_bytes(&written), Some((record.address, record.ids)), "salvaged from a whole one");
}

/// A send stream, command by command up to its end: none is longer than the kernel's buffer.
pub fn send_stream(bytes: &[u8]) {
    receive::fuzzing(bytes);
}

/// A firewall policy as the link brings it, compiled and put into netlink messages.
pub fn policy(spec: FirewallSpec) {
    firewall::fuzzing(spec);
}

/// The policy for commands on the server: what it does not name is refused, and what it names are plain programs.
pub fn commands_policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(policy) = Policy::parse(text) else { return };
    let program = |path: &str, account| {
        let argv = vec![Text::truncated(path)].try_into().expect("one argument");
        Order::Custom { slug: Text::truncated("x"), argv, account, working_directory: Text::default() }
    };
    for named in &policy.programs {
        assert!(named.is_absolute() && named.components().all(|part| part != std::path::Component::ParentDir));
    }
    for path in ["/bin/sh", "/usr/bin/uptime", "sh"] {
        let named = policy.programs.iter().any(|named| named == Path::new(path));
        assert_eq!(policy.check(&program(path, Account::Nobody)).is_ok(), named);
        assert_eq!(policy.check(&program(path, Account::Root)).is_ok(), named && policy.programs_as_root);
    }
    for slug in ["reboot", "disk-usage", "no-such"] {
        let order = Order::BuiltIn { slug: Text::truncated(slug), parameters: Default::default() };
        assert_eq!(policy.check(&order).is_ok(), policy.built_in.iter().any(|named| named == slug));
    }
}

/// What is read in a container: its accounts, its root's keys, what its programs say of themselves.
pub fn inside(bytes: &[u8]) {
    storage::authorized_keys_fuzzing(bytes);
    let text = String::from_utf8_lossy(bytes);
    runtime::user_fuzzing(&text);
    runtime::inspection_fuzzing(&text);
}
