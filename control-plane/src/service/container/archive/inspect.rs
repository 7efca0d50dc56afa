//! Reads an uploaded archive once to its end: is it whole, does its manifest say the truth, how large is it? The files in
//! it are the node's business, which unpacks them in a process of its own; what can be told here is refused here.
//!
//! Nothing of the archive is taken at its word: headers have their checksums looked at, lengths are bounded before they
//! are read, and nothing but the document and the manifest is kept in memory. A small upload can be hundreds of GiB without
//! its compression: reading ends where that is more than the container's disk could hold, and where nobody waits for it.

use hoody_protocol::{
    export::{DOCUMENT, MANIFEST, MAX_ARCHIVE_BYTES, MAX_DOCUMENT_BYTES, MAX_MANIFEST_BYTES, Manifest, ROOT, VERSION},
    image::Digest,
};
use sha2::{Digest as _, Sha256};
use std::{
    io::{self, BufReader, Read},
    sync::atomic::{AtomicBool, Ordering},
};

const BLOCK_BYTES: u64 = 512;
/// Largest zstd window, log2.
const WINDOW_LOG: u32 = 27;
/// Longest extension header.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;
/// Members of an archive.
const MAX_ENTRIES: u64 = 2_000_000;
/// Bytes behind the archive's end, which some programs fill up.
const MAX_TAIL_BYTES: u64 = 1 << 20;
/// Highest user or group id of a container.
const MAX_ID: u64 = 65_535;
/// What a member comes to beside its content and its attributes, which are on the disk as well: its headers, a name and a
/// link of 4 KiB, what fills up blocks.
const BESIDE_BYTES: u64 = 16 << 10;
const BUFFER_BYTES: usize = 256 << 10;

/// What is wrong with an archive, worded to follow its name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// It ends before its end.
    #[error("ends too early: upload all of it")]
    Truncated,
    /// Its bytes are not those of an archive.
    #[error("is damaged or no archive of a container: {0}")]
    Damaged(&'static str),
    /// Its bytes are not those that its manifest was made for.
    #[error("is damaged: its content is not what its manifest says")]
    Digest,
    /// It is of another version.
    #[error("is of version {0}; this installation reads {VERSION}")]
    Version(u32),
    /// It holds what no container may have.
    #[error("holds what is not acceptable: {0}")]
    Hostile(&'static str),
    /// It is too large.
    #[error("is larger than can be imported: {0}")]
    TooLarge(&'static str),
    /// Its files are more than the container's disk, which has as many bytes.
    #[error("has more files than a disk of {0} bytes can hold")]
    Disk(u64),
    /// Nobody waits for it any more.
    #[error("is not wanted any more")]
    Stopped,
    /// It cannot be read here.
    #[error("cannot be read")]
    Io(#[source] io::Error),
}

/// What an archive comes to.
#[derive(Debug)]
pub(crate) struct Inspected {
    /// Its first member.
    pub(crate) document: Vec<u8>,
    /// Bytes without compression.
    pub(crate) bytes: u64,
    /// Bytes of the files.
    pub(crate) file_bytes: u64,
}

/// Reads no more than the archive's document.
pub(super) fn document(file: impl Read, stopped: &AtomicBool) -> Result<Vec<u8>, Problem> {
    Ok(Tar::open(file, stopped)?.1)
}

/// Reads the archive, for a container with a disk of `most` bytes; ends soon once `stopped` is set.
pub(crate) fn inspect(file: impl Read, most: u64, stopped: &AtomicBool) -> Result<Inspected, Problem> {
    let (mut tar, document) = Tar::open(file, stopped)?;
    let (mut entries, mut file_bytes, mut extended) = (0u64, 0u64, None::<Extension>);
    loop {
        tar.check_beside(most, entries)?;
        let before = tar.bytes;
        let header = tar.header()?.ok_or(Problem::Damaged("it has no manifest"))?;
        if header.name == MANIFEST.as_bytes() && extended.is_none() {
            let digest = Digest::from_bytes(tar.hasher.clone().finalize().into());
            tar.take(&header.block);
            return tar.finish(&header, before, digest, Inspected { document, bytes: 0, file_bytes });
        }
        tar.take(&header.block);
        if header.is_extension() {
            let data = tar.extension(header.size)?;
            extended.get_or_insert_default().read(header.kind, &data)?;
            continue;
        }
        let extension = extended.take().unwrap_or_default();
        extension.check(&header)?;
        entries += 1;
        file_bytes = file_bytes.saturating_add(header.size);
        if entries > MAX_ENTRIES {
            return Err(Problem::TooLarge("it has too many files"));
        }
        if file_bytes > most {
            return Err(Problem::Disk(most));
        }
        tar.skip(header.size)?;
    }
}

/// A reader that fails once its flag is set. Around the decompression, since a few bytes before it are GiB behind it.
struct Stoppable<'a, R> {
    reader: R,
    stopped: &'a AtomicBool,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.reader.read(buffer)
    }
}

type Content<'a, F> = Stoppable<'a, zstd::stream::read::Decoder<'static, BufReader<F>>>;

struct Tar<R> {
    reader: R,
    hasher: Sha256,
    bytes: u64,
    buffer: Vec<u8>,
}

struct Header {
    block: [u8; BLOCK_BYTES as usize],
    name: Vec<u8>,
    kind: tar::EntryType,
    size: u64,
    owners: [u64; 2],
}

impl Header {
    fn is_file(&self) -> bool {
        self.kind == tar::EntryType::Regular
    }

    fn is_extension(&self) -> bool {
        use tar::EntryType::{GNULongLink, GNULongName, XGlobalHeader, XHeader};
        matches!(self.kind, XHeader | XGlobalHeader | GNULongName | GNULongLink)
    }
}

/// What extension headers say of the member behind them, as far as it matters here.
#[derive(Debug, Default)]
struct Extension {
    names: Vec<Vec<u8>>,
}

impl Extension {
    fn read(&mut self, kind: tar::EntryType, mut data: &[u8]) -> Result<(), Problem> {
        if kind == tar::EntryType::GNULongName {
            self.names.push(data.split(|byte| *byte == 0).next().unwrap_or_default().to_vec());
        }
        if kind != tar::EntryType::XHeader {
            return Ok(());
        }
        let malformed = || Problem::Damaged("an extension header is malformed");
        while !data.is_empty() {
            let space = data.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
            let length = std::str::from_utf8(&data[..space]).ok().and_then(|text| text.parse::<usize>().ok());
            let length = length.filter(|length| *length > space).ok_or_else(malformed)?;
            let record =
                data.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(malformed)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
            match &record[..equals] {
                b"path" | b"GNU.sparse.name" => self.names.push(record[equals + 1..].to_vec()),
                // It would mean one length to one program and another to the next.
                b"size" => return Err(Problem::Hostile("a length beside that of its header")),
                b"uid" | b"gid" => return Err(Problem::Hostile("an owner outside of 0 to 65535")),
                _ => {}
            }
            data = &data[length..];
        }
        Ok(())
    }

    fn check(&self, header: &Header) -> Result<(), Problem> {
        let names = if self.names.is_empty() { std::slice::from_ref(&header.name) } else { &self.names[..] };
        for name in names {
            let mut parts = name.split(|byte| *byte == b'/');
            if parts.next() != Some(ROOT.as_bytes()) {
                return Err(Problem::Hostile("a file outside of rootfs/"));
            }
            if parts.any(|part| part == b"..") {
                return Err(Problem::Hostile("a path with .."));
            }
        }
        if header.owners.iter().any(|id| *id > MAX_ID) {
            return Err(Problem::Hostile("an owner outside of 0 to 65535"));
        }
        Ok(())
    }
}

impl<'a, F: Read> Tar<Content<'a, F>> {
    /// Reads the first member, the document.
    fn open(file: F, stopped: &'a AtomicBool) -> Result<(Self, Vec<u8>), Problem> {
        let mut decoder = zstd::stream::read::Decoder::new(file).map_err(Problem::Io)?;
        decoder.window_log_max(WINDOW_LOG).map_err(Problem::Io)?;
        let reader = Stoppable { reader: decoder, stopped };
        let mut tar = Tar { reader, hasher: Sha256::new(), bytes: 0, buffer: vec![0; BUFFER_BYTES] };
        let first = tar.header()?.ok_or(Problem::Truncated)?;
        if first.name != DOCUMENT.as_bytes() || !first.is_file() || first.size > MAX_DOCUMENT_BYTES as u64 {
            return Err(Problem::Damaged("its first member is not container.json"));
        }
        tar.take(&first.block);
        let document = tar.content(first.size)?;
        Ok((tar, document))
    }
}

impl<R: Read> Tar<R> {
    /// An error where what was read is more than `entries` members with contents and attributes of `most` bytes each can
    /// come to: extension headers alone could go on for ever.
    fn check_beside(&self, most: u64, entries: u64) -> Result<(), Problem> {
        let plausible = most.saturating_mul(2).saturating_add((entries + 1) * BESIDE_BYTES);
        let document = MAX_DOCUMENT_BYTES as u64;
        if self.bytes > plausible.saturating_add(document + MAX_EXTENSION_BYTES).min(MAX_ARCHIVE_BYTES) {
            return Err(Problem::TooLarge("it has more beside its files than a container has"));
        }
        Ok(())
    }

    /// The next header, not yet counted; `None` at the archive's end.
    fn header(&mut self) -> Result<Option<Header>, Problem> {
        let mut header = tar::Header::new_old();
        if self.reader.read(&mut header.as_mut_bytes()[..1]).map_err(broken)? == 0 {
            return Err(Problem::Truncated);
        }
        self.reader.read_exact(&mut header.as_mut_bytes()[1..]).map_err(broken)?;
        let block = *header.as_bytes();
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let malformed = || Problem::Damaged("a header is malformed");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        let field: u32 = header.as_old().cksum.iter().map(|byte| u32::from(*byte)).sum();
        if header.cksum().map_err(|_| malformed())? != sum - field + 8 * u32::from(b' ') {
            return Err(malformed());
        }
        let size = header.entry_size().map_err(|_| malformed())?;
        let owners = [header.uid(), header.gid()].map(|id| id.map_err(|_| malformed()));
        let [owner, group] = owners;
        let (name, kind) = (header.path_bytes().into_owned(), header.entry_type());
        Ok(Some(Header { block, name, kind, size, owners: [owner?, group?] }))
    }

    /// Counts bytes that were read.
    fn take(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, Problem> {
        if size > MAX_EXTENSION_BYTES {
            return Err(Problem::Hostile("an extension header that is too long"));
        }
        self.content(size)
    }

    /// A member's content, which the caller has bounded, and what fills up its last block.
    fn content(&mut self, size: u64) -> Result<Vec<u8>, Problem> {
        let mut content = vec![0; size.next_multiple_of(BLOCK_BYTES) as usize];
        self.reader.read_exact(&mut content).map_err(broken)?;
        self.take(&content);
        content.truncate(size as usize);
        Ok(content)
    }

    fn skip(&mut self, size: u64) -> Result<(), Problem> {
        let mut left = size.checked_next_multiple_of(BLOCK_BYTES).filter(|size| *size <= MAX_ARCHIVE_BYTES);
        let left = left.as_mut().ok_or(Problem::TooLarge("it has too many bytes"))?;
        if self.bytes.saturating_add(*left) > MAX_ARCHIVE_BYTES {
            return Err(Problem::TooLarge("it has too many bytes"));
        }
        while *left > 0 {
            let wanted = self.buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            self.reader.read_exact(&mut self.buffer[..wanted]).map_err(broken)?;
            self.hasher.update(&self.buffer[..wanted]);
            self.bytes += wanted as u64;
            *left -= wanted as u64;
        }
        Ok(())
    }

    /// Compares the manifest, and reads on to the end, which the compression's checksum covers.
    fn finish(mut self, header: &Header, before: u64, digest: Digest, found: Inspected) -> Result<Inspected, Problem> {
        if !header.is_file() || header.size > MAX_MANIFEST_BYTES as u64 {
            return Err(Problem::Damaged("its manifest is malformed"));
        }
        let text = self.content(header.size)?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|_| Problem::Damaged("its manifest is malformed"))?;
        if manifest.version != VERSION {
            return Err(Problem::Version(manifest.version));
        }
        if (manifest.bytes, manifest.digest) != (before, digest) {
            return Err(Problem::Digest);
        }
        let mut tail = 0;
        loop {
            let read = self.reader.read(&mut self.buffer).map_err(broken)?;
            tail += read as u64;
            if read == 0 {
                break;
            }
            if tail > MAX_TAIL_BYTES || self.buffer[..read].iter().any(|byte| *byte != 0) {
                return Err(Problem::Damaged("something follows its manifest"));
            }
        }
        if tail < 2 * BLOCK_BYTES {
            return Err(Problem::Truncated);
        }
        Ok(Inspected { bytes: self.bytes + tail, ..found })
    }
}

/// What a failure to read means: the file is ours and can be read, so it is the compression.
fn broken(error: io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Problem::Truncated,
        io::ErrorKind::ConnectionAborted => Problem::Stopped,
        _ if error.raw_os_error().is_some() => Problem::Io(error),
        _ => Problem::Damaged("its compression is damaged"),
    }
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
