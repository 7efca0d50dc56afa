//! Entry points for fuzzing: any bytes through the decoders that the agent keeps to itself. Each checks
//! what must hold whatever the bytes are, and panics where it does not.

use crate::{
    desired::{
        file, journal,
        record::{self, Record},
    },
    firewall,
    images::unpack::fuzzing as unpack,
    logs::record as record_of_log,
    storage::receive,
};
use hoody_protocol::firewall::FirewallSpec;

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
