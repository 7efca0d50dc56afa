//! The journal's file: lines with checksums, and what can still be read of a damaged one.

use super::{super::file, Line};
use crate::desired::DesiredError;
use hoody_protocol::{link::ReportEntry, time::now_ms};
use nix::fcntl::{FallocateFlags, fallocate};
use std::{
    collections::VecDeque,
    fs::File,
    io::{Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Added to the path of a damaged journal that is kept, until the control plane knows of the loss, and then.
const DAMAGED: &str = "damaged";
const REPORTED: &str = "reported";
const PRIVATE: u32 = 0o600;
/// Room that the file holds beyond its content, so that what happens on a full disk can still be reported.
const SPARE_BYTES: i64 = 4 << 20;

/// No position is as large: it would take longer than there are disks to count to it.
const MAX_POSITION: u64 = 1 << 62;

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// Entries that are not acknowledged, in order.
    pub(super) entries: VecDeque<ReportEntry>,
    /// The next position.
    pub(super) next: u64,
    /// Lines that cannot be read; the torn last one, which is what a crash leaves, is none of them.
    pub(super) damaged: u32,
    /// The last line is torn.
    pub(super) torn: bool,
}

impl Loaded {
    /// True where positions are what the journal writes: they grow, and leave room for those to come.
    fn may_follow(&self, line: &Line) -> bool {
        match line {
            Line::Entry(entry) => {
                let last = self.entries.back().map_or(0, |last| last.position);
                entry.position > last && entry.position < MAX_POSITION
            }
            Line::Acked(position) => *position < MAX_POSITION,
        }
    }

    /// The last position that was acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.entries.front().map_or(self.next, |first| first.position) - 1
    }
}

pub(super) fn encode(line: &Line) -> Vec<u8> {
    let json = serde_json::to_vec(line).expect("plain data always encodes");
    let mut bytes = format!("{:08x} ", crc32fast::hash(&json)).into_bytes();
    bytes.extend_from_slice(&json);
    bytes.push(b'\n');
    bytes
}

/// The bytes of a file with these entries.
pub(super) fn content(next: u64, entries: &VecDeque<ReportEntry>) -> Vec<u8> {
    let mut content = format!("{next}\n").into_bytes();
    for entry in entries {
        content.extend_from_slice(&encode(&Line::Entry(Box::new(entry.clone()))));
    }
    content
}

pub(super) fn rewrite(path: &Path, next: u64, entries: &VecDeque<ReportEntry>) -> Result<File, DesiredError> {
    let content = content(next, entries);
    let file = file::replace(path, &content)?;
    // The room is beyond the end of the file, which stays where it is. Without it the journal works too.
    let spare = fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, content.len() as i64 + SPARE_BYTES);
    if let Err(error) = spare {
        tracing::warn!(path = %path.display(), %error, "no room is kept for the journal");
    }
    Ok(file)
}

/// The file as it stands, open behind its last whole line, where there is no room to write it anew.
pub(super) fn reopen(path: &Path) -> Result<File, DesiredError> {
    let failed = |source| DesiredError::Io { action: "open", path: path.to_owned(), source };
    let bytes = std::fs::read(path).map_err(failed)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let mut file = File::options().write(true).open(path).map_err(failed)?;
    if whole < bytes.len() {
        file.set_len(whole as u64).map_err(failed)?;
    }
    file.seek(SeekFrom::End(0)).map_err(failed)?;
    Ok(file)
}

/// Reads the file as far as it can be read; none is an empty one.
pub(super) fn load(path: &Path) -> Result<Loaded, DesiredError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Loaded { next: 1, ..Loaded::default() });
        }
        Err(source) => return Err(DesiredError::Io { action: "read", path: path.to_owned(), source }),
    };
    let loaded = read(&bytes);
    if loaded.torn {
        tracing::warn!(path = %path.display(), "cut off a torn last entry");
    }
    Ok(loaded)
}

/// What such a file's bytes hold.
pub(super) fn read(bytes: &[u8]) -> Loaded {
    let mut loaded = Loaded { next: 1, ..Loaded::default() };
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').peekable();
    match lines.next().and_then(|line| std::str::from_utf8(line).ok()?.strip_suffix('\n')?.parse().ok()) {
        // Positions count from 1.
        Some(next) if (1..=MAX_POSITION).contains(&next) => loaded.next = next,
        _ => loaded.damaged += 1,
    }
    while let Some(line) = lines.next() {
        match parse(line) {
            // A checksum that fits by chance: positions that are none, or out of order, lead to others repeating.
            Some(line) if !loaded.may_follow(&line) => loaded.damaged += 1,
            Some(Line::Entry(entry)) => {
                loaded.next = loaded.next.max(entry.position + 1);
                loaded.entries.push_back(*entry);
            }
            Some(Line::Acked(position)) => {
                loaded.next = loaded.next.max(position + 1);
                while loaded.entries.front().is_some_and(|entry| entry.position <= position) {
                    loaded.entries.pop_front();
                }
            }
            // What a crash in the middle of a write leaves.
            None if lines.peek().is_none() && !line.ends_with(b"\n") => loaded.torn = true,
            None => loaded.damaged += 1,
        }
    }
    if loaded.damaged > 0 {
        // Positions that cannot be read any more are not given again: none is as large as a time.
        loaded.next = loaded.next.max(now_ms());
    }
    loaded
}

/// Keeps a copy of the damaged file, behind what is kept of an earlier one; durable on return.
pub(super) fn keep_damaged(path: &Path) -> Result<(), DesiredError> {
    let kept = path.with_extension(DAMAGED);
    let failed = |source| DesiredError::Io { action: "keep the damaged journal as", path: kept.clone(), source };
    let bytes = std::fs::read(path).map_err(failed)?;
    let mut options = File::options();
    let mut file = options.append(true).create(true).mode(PRIVATE).open(&kept).map_err(failed)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    file::sync_parent(path)
}

/// Damaged lines of which the control plane does not know.
pub(super) fn unreported(path: &Path) -> Result<u32, DesiredError> {
    Ok(load(&path.with_extension(DAMAGED))?.damaged)
}

/// The control plane knows of the loss: the copy stays for an operator.
pub(super) fn reported(path: &Path) -> std::io::Result<()> {
    let kept = path.with_extension(DAMAGED);
    std::fs::rename(&kept, kept.with_extension(format!("{DAMAGED}-{REPORTED}")))
}

fn parse(line: &[u8]) -> Option<Line> {
    let line = line.strip_suffix(b"\n")?;
    let (checksum, json) = line.split_at_checked(9)?;
    let checksum = u32::from_str_radix(std::str::from_utf8(checksum).ok()?.trim_end(), 16).ok()?;
    (crc32fast::hash(json) == checksum).then(|| serde_json::from_slice(json).ok()).flatten()
}

/// Puts the right checksum before each line but the first, for fuzzing.
pub(super) fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let mut whole = lines.next().unwrap_or_default().to_vec();
    for line in lines {
        let json = line.strip_suffix(b"\n").unwrap_or(line);
        whole.extend_from_slice(format!("{:08x} ", crc32fast::hash(json)).as_bytes());
        whole.extend_from_slice(line);
    }
    whole
}
