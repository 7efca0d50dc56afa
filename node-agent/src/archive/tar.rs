//! Members of a tar archive (POSIX.1-2001, "pax"), written and counted.

use hoody_protocol::image::Digest;
use sha2::{Digest as _, Sha256};
use std::io::{self, Write};

pub(super) use tar::EntryType as Kind;

const BLOCK_BYTES: usize = 512;
/// Bytes of a name that fits a header.
const NAME_BYTES: usize = 100;
/// Bytes of the records of one member, and their number: what is taken when the archive is unpacked.
const MAX_RECORD_BYTES: usize = 1 << 20;
const MAX_RECORDS: usize = 256;

/// What a member is.
#[derive(Debug)]
pub(super) struct Member<'a> {
    pub(super) kind: Kind,
    pub(super) path: &'a [u8],
    /// Where a link leads.
    pub(super) link: &'a [u8],
    pub(super) mode: u32,
    pub(super) owner: u32,
    pub(super) group: u32,
    /// Seconds and nanoseconds, which count forward.
    pub(super) modified: (i64, i64),
    /// Bytes that follow.
    pub(super) size: u64,
    /// PAX records beside those that the other fields need.
    pub(super) records: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A writer of members.
pub(super) struct TarWriter<W> {
    output: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W: Write> TarWriter<W> {
    pub(super) fn new(output: W) -> Self {
        Self { output, hasher: Sha256::new(), bytes: 0 }
    }

    /// Bytes written so far, and their digest.
    pub(super) fn so_far(&self) -> (u64, Digest) {
        (self.bytes, Digest::from_bytes(self.hasher.clone().finalize().into()))
    }

    /// Bytes written so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Begins a member; false, and nothing is written, where its records are more than can be read again.
    pub(super) fn begin(&mut self, member: Member<'_>) -> io::Result<bool> {
        let (seconds, nanoseconds) = member.modified;
        let mut records = member.records;
        if member.path.len() > NAME_BYTES {
            records.push((b"path".to_vec(), member.path.to_vec()));
        }
        if member.link.len() > NAME_BYTES {
            records.push((b"linkpath".to_vec(), member.link.to_vec()));
        }
        if seconds < 0 || nanoseconds != 0 {
            records.push((b"mtime".to_vec(), time(seconds, nanoseconds).into_bytes()));
        }
        let is_text = |(_, value): &(Vec<u8>, Vec<u8>)| std::str::from_utf8(value).is_ok();
        if !records.iter().all(is_text) {
            // Has to come before what it is about.
            records.insert(0, (b"hdrcharset".to_vec(), b"BINARY".to_vec()));
        }
        if !records.is_empty() {
            let data: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
            if data.len() > MAX_RECORD_BYTES || records.len() > MAX_RECORDS {
                return Ok(false);
            }
            let mut header = header(Kind::XHeader, b"PaxHeaders", data.len() as u64);
            header.set_cksum();
            self.data(header.as_bytes())?;
            self.data(&data)?;
            self.fill(data.len() as u64)?;
        }
        let mut header = header(member.kind, member.path, member.size);
        let link = &member.link[..member.link.len().min(NAME_BYTES)];
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_mode(member.mode);
        header.set_uid(member.owner.into());
        header.set_gid(member.group.into());
        header.set_mtime(u64::try_from(seconds).unwrap_or(0));
        header.set_cksum();
        self.data(header.as_bytes())?;
        Ok(true)
    }

    /// Writes data of the member.
    pub(super) fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.output.write_all(bytes)
    }

    /// Fills up to a block behind `size` bytes of data.
    pub(super) fn fill(&mut self, size: u64) -> io::Result<()> {
        let padding = (size.wrapping_neg() % BLOCK_BYTES as u64) as usize;
        self.data(&[0; BLOCK_BYTES][..padding])
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.output.write_all(&[0; 2 * BLOCK_BYTES])?;
        Ok(self.output)
    }
}

fn header(kind: Kind, path: &[u8], size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    let name = &path[..path.len().min(NAME_BYTES)];
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

/// `<length> <key>=<value>\n`, where the length counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let digits = |length: usize| length.to_string().len();
    let mut length = rest + digits(rest);
    length = rest + digits(length);
    let mut record = format!("{length} ").into_bytes();
    record.extend_from_slice(key);
    record.push(b'=');
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

/// A PAX time: decimal, with a sign where it is before the epoch.
fn time(seconds: i64, nanoseconds: i64) -> String {
    match (seconds < 0, nanoseconds) {
        (true, 1..) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds),
        (_, 0) => seconds.to_string(),
        _ => format!("{seconds}.{nanoseconds:09}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_themselves() {
        for value in [0, 1, 90, 91, 92, 93, 94, 95, 989, 990, 991, 992] {
            let record = record(b"path", &vec![b'x'; value]);
            let said: usize = std::str::from_utf8(&record).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, record.len(), "{value}");
        }
    }

    #[test]
    fn times_before_the_epoch_count_back() {
        assert_eq!(time(1, 0), "1");
        assert_eq!(time(1, 5), "1.000000005");
        assert_eq!(time(-2, 700_000_000), "-1.300000000");
        assert_eq!(time(-2, 0), "-2");
    }
}
