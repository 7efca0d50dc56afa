//! Reading a tar archive entry by entry: ustar, GNU long names and PAX records.
//!
//! The `tar` crate decodes header fields; the framing is done here, for two reasons: the crate's own reader
//! cuts PAX records at newlines, which destroys binary extended attributes (file capabilities), and it
//! reads extension headers of any announced length into memory.
//!
//! Like Go's `archive/tar`, which builds and reads most layers, it takes an archive that lacks what carries nothing:
//! the padding behind the last entry and the blocks of zeros at the end. An entry's data is never short.
//!
//! Of sparse files the form of PAX records 1.0 is taken, which is what GNU tar and exports of containers write; older
//! ones (GNU `S`, 0.x) are not.

use super::report::{Refusal, Stop};
use std::io::{self, Read};

const BLOCK_BYTES: u64 = 512;
/// Longest extension header: a path, a link target and extended attributes fit well.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;
/// Records in one PAX header.
const MAX_RECORDS: usize = 256;
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    Symlink,
    HardLink,
    Fifo,
    Device,
}

/// One entry, its headers merged. Its data follows in the reader.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) owner: u32,
    pub(crate) group: u32,
    /// Seconds and nanoseconds.
    pub(crate) modified: (i64, i64),
    /// Names and values.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) size: u64,
    /// Length of the file where it is sparse: its data then begins with a map ([`super::sparse`]).
    pub(crate) real_size: Option<u64>,
}

/// Highest user or group id of a container.
const MAX_ID: u64 = 65_535;

/// An archive being read.
#[derive(Debug)]
pub(crate) struct Archive<R> {
    reader: R,
    /// Bytes of the current entry's data, and of the padding behind it, not read yet.
    data_left: u64,
    padding: u64,
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, data_left: 0, padding: 0 }
    }

    /// The next entry; `None` at the end. What is left of the entry before is skipped. A refusal carries
    /// the path as far as it is known.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, (Stop, Vec<u8>)> {
        let mut extensions = Extensions::default();
        loop {
            let (header, size) = match self.next_header().map_err(|stop| (stop, Vec::new()))? {
                Some(found) => found,
                None if extensions.is_empty() => return Ok(None),
                None => return Err((Refusal::Malformed.into(), Vec::new())),
            };
            let kind = header.entry_type();
            if kind.is_pax_global_extensions() || kind.is_pax_local_extensions() || is_long(kind) {
                let data = self.extension(size).map_err(|stop| (stop, Vec::new()))?;
                let taken = match kind {
                    // Global records apply to the archive; none of them matters to an image.
                    _ if kind.is_pax_global_extensions() => Ok(()),
                    _ if kind.is_gnu_longname() => set_once(&mut extensions.path, terminated(&data)),
                    _ if kind.is_gnu_longlink() => set_once(&mut extensions.link, terminated(&data)),
                    _ => extensions.parse(&data),
                };
                taken.map_err(|refusal| (refusal.into(), Vec::new()))?;
                continue;
            }
            let path = extensions.path.take();
            let path = extensions.sparse.name.take().or(path).unwrap_or_else(|| header.path_bytes().into_owned());
            let entry = Self::merge(&header, path.clone(), extensions, size).map_err(|stop| (stop, path))?;
            self.start_data(entry.size);
            return Ok(Some(entry));
        }
    }

    fn merge(header: &tar::Header, path: Vec<u8>, extensions: Extensions, size: u64) -> Result<Entry, Stop> {
        let kind = match header.entry_type() {
            // An old archive marks a folder by a slash at the end.
            tar::EntryType::Regular if path.ends_with(b"/") => Kind::Folder,
            tar::EntryType::Regular | tar::EntryType::Continuous => Kind::File,
            tar::EntryType::Directory => Kind::Folder,
            tar::EntryType::Symlink => Kind::Symlink,
            tar::EntryType::Link => Kind::HardLink,
            tar::EntryType::Fifo => Kind::Fifo,
            tar::EntryType::Char | tar::EntryType::Block => Kind::Device,
            _ => return Err(Refusal::Kind.into()),
        };
        let number = |found: io::Result<u64>| found.map_err(|_| Refusal::Malformed);
        let owner = |found: u64| u32::try_from(found).ok().filter(|id| u64::from(*id) <= MAX_ID).ok_or(Refusal::Owner);
        let link = extensions.link.or_else(|| header.link_name_bytes().map(|l| l.into_owned())).unwrap_or_default();
        let modified = match extensions.modified {
            Some(time) => time,
            None => (i64::try_from(number(header.mtime())?).unwrap_or(i64::MAX), 0),
        };
        let real_size = extensions.sparse.real_size()?;
        if real_size.is_some() && kind != Kind::File {
            return Err(Refusal::Malformed.into());
        }
        Ok(Entry {
            kind,
            path,
            link,
            mode: header.mode().map_err(|_| Refusal::Malformed)? & 0o7777,
            owner: owner(extensions.owner.map_or_else(|| number(header.uid()), Ok)?)?,
            group: owner(extensions.group.map_or_else(|| number(header.gid()), Ok)?)?,
            modified,
            xattrs: extensions.xattrs,
            size: extensions.size.unwrap_or(size),
            real_size,
        })
    }

    /// The next header that is not all zeros, and its size field.
    fn next_header(&mut self) -> Result<Option<(tar::Header, u64)>, Stop> {
        if self.skip(self.data_left)? < self.data_left {
            return Err(Refusal::Malformed.into());
        }
        // Less padding is the end of the archive, which the header will not be read from either.
        self.skip(self.padding)?;
        (self.data_left, self.padding) = (0, 0);
        let mut header = tar::Header::new_old();
        if !self.fill(header.as_mut_bytes())? || header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u32 = header.as_bytes().iter().map(|byte| u32::from(*byte)).sum();
        let field: u32 = header.as_old().cksum.iter().map(|byte| u32::from(*byte)).sum();
        // The sum is taken with the field itself as eight spaces.
        let expected = sum - field + 8 * u32::from(b' ');
        if header.cksum().map_err(|_| Refusal::Malformed)? != expected {
            return Err(Refusal::Malformed.into());
        }
        let size = header.entry_size().map_err(|_| Refusal::Malformed)?;
        Ok(Some((header, size)))
    }

    fn start_data(&mut self, size: u64) {
        self.data_left = size;
        self.padding = size.wrapping_neg() % BLOCK_BYTES;
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, Stop> {
        if size > MAX_EXTENSION_BYTES {
            return Err(Refusal::PathTooLong.into());
        }
        self.start_data(size);
        let mut data = vec![0; size as usize];
        self.read_exact(&mut data).map_err(truncated)?;
        Ok(data)
    }

    /// Skips so many bytes, fewer where the archive ends; how many.
    fn skip(&mut self, bytes: u64) -> Result<u64, Stop> {
        io::copy(&mut (&mut self.reader).take(bytes), &mut io::sink()).map_err(damaged)
    }

    /// Fills the block; false at the archive's end, where nothing is left to read.
    fn fill(&mut self, block: &mut [u8]) -> Result<bool, Stop> {
        let mut filled = 0;
        while filled < block.len() {
            match self.reader.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(Refusal::Malformed.into()),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(damaged(error)),
            }
        }
        Ok(true)
    }
}

/// Reads the current entry's data; an archive that ends inside it is an error, not an end.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.data_left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let got = self.reader.read(&mut buffer[..wanted])?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.data_left -= got as u64;
        Ok(got)
    }
}

/// What a failure to read the archive means: a damaged one, unless the system itself failed or the limit on
/// bytes was reached.
pub(crate) fn damaged(error: io::Error) -> Stop {
    match error.kind() {
        io::ErrorKind::FileTooLarge if error.raw_os_error().is_none() => Refusal::TooManyBytes.into(),
        _ if error.raw_os_error().is_some() => error.into(),
        _ => Refusal::Malformed.into(),
    }
}

fn truncated(error: io::Error) -> Stop {
    damaged(error)
}

fn is_long(kind: tar::EntryType) -> bool {
    kind.is_gnu_longname() || kind.is_gnu_longlink()
}

/// A GNU long name ends at its first NUL.
fn terminated(data: &[u8]) -> Vec<u8> {
    data.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

fn set_once<T>(place: &mut Option<T>, value: T) -> Result<(), Refusal> {
    // Two values for one field are read differently by different programs: a way to smuggle.
    if place.replace(value).is_some() { Err(Refusal::Malformed) } else { Ok(()) }
}

/// What extension headers say of the entry behind them.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    owner: Option<u64>,
    group: Option<u64>,
    modified: Option<(i64, i64)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: Sparse,
    parsed: bool,
}

/// What PAX records say of a sparse file.
#[derive(Debug, Default)]
struct Sparse {
    major: Option<u64>,
    minor: Option<u64>,
    name: Option<Vec<u8>>,
    real_size: Option<u64>,
}

impl Sparse {
    /// Length of the file; `None` where it is not sparse.
    fn real_size(&self) -> Result<Option<u64>, Refusal> {
        match (self.major, self.minor, self.real_size) {
            (None, None, None) => Ok(None),
            (Some(1), Some(0), Some(size)) if size <= i64::MAX as u64 => Ok(Some(size)),
            _ => Err(Refusal::Kind),
        }
    }
}

impl Extensions {
    fn is_empty(&self) -> bool {
        !self.parsed && self.path.is_none() && self.link.is_none()
    }

    /// Takes the records of a PAX header: `<length> <key>=<value>\n`, where the length counts the whole
    /// record and the value may hold any byte.
    fn parse(&mut self, mut data: &[u8]) -> Result<(), Refusal> {
        if std::mem::replace(&mut self.parsed, true) {
            return Err(Refusal::Malformed);
        }
        for _ in 0..MAX_RECORDS {
            if data.is_empty() {
                return Ok(());
            }
            let space = data.iter().position(|byte| *byte == b' ').ok_or(Refusal::Malformed)?;
            let length = decimal(&data[..space])?;
            let length = usize::try_from(length).map_err(|_| Refusal::Malformed)?;
            let record = data.get(space + 1..length).ok_or(Refusal::Malformed)?;
            let record = record.strip_suffix(b"\n").ok_or(Refusal::Malformed)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(Refusal::Malformed)?;
            self.take(&record[..equals], &record[equals + 1..])?;
            data = &data[length..];
        }
        Err(Refusal::Malformed)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Refusal> {
        match key {
            // An empty value takes back what an earlier header said (pax(1)); an attribute can be empty.
            _ if value.is_empty() && !key.starts_with(XATTR_PREFIX) => Ok(()),
            b"path" => set_once(&mut self.path, value.to_vec()),
            b"linkpath" => set_once(&mut self.link, value.to_vec()),
            b"size" => set_once(&mut self.size, decimal(value)?),
            b"uid" => set_once(&mut self.owner, decimal(value)?),
            b"gid" => set_once(&mut self.group, decimal(value)?),
            b"mtime" => set_once(&mut self.modified, time(value)?),
            b"GNU.sparse.major" => set_once(&mut self.sparse.major, decimal(value)?),
            b"GNU.sparse.minor" => set_once(&mut self.sparse.minor, decimal(value)?),
            b"GNU.sparse.name" => set_once(&mut self.sparse.name, value.to_vec()),
            b"GNU.sparse.realsize" => set_once(&mut self.sparse.real_size, decimal(value)?),
            _ if key.starts_with(b"GNU.sparse.") => Err(Refusal::Kind),
            _ => {
                if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
                Ok(())
            }
        }
    }
}

fn decimal(text: &[u8]) -> Result<u64, Refusal> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).map_err(|_| Refusal::Malformed)?;
    if digits { text.parse().map_err(|_| Refusal::Malformed) } else { Err(Refusal::Malformed) }
}

/// A PAX time: seconds with an optional sign and fraction.
fn time(text: &[u8]) -> Result<(i64, i64), Refusal> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next().unwrap_or_default())?).map_err(|_| Refusal::Malformed)?;
    let mut nanoseconds = 0;
    let fraction = parts.next().unwrap_or_default();
    for place in 0..9 {
        let digit = fraction.get(place).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return Err(Refusal::Malformed);
        }
        nanoseconds = nanoseconds * 10 + i64::from(digit - b'0');
    }
    match (negative, nanoseconds) {
        (false, _) => Ok((seconds, nanoseconds)),
        (true, 0) => Ok((-seconds, 0)),
        // Nanoseconds count forward from the second before.
        (true, _) => Ok((-seconds - 1, 1_000_000_000 - nanoseconds)),
    }
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
