//! Layers for tests, the hostile ones too: nothing is checked on the way.

use std::io::Write;

/// A tar archive in the making.
#[derive(Default)]
pub struct Archive(Vec<u8>);

/// Owner, mode and time of an entry.
#[derive(Clone, Copy)]
pub struct Meta {
    pub mode: u32,
    pub owner: u64,
    pub group: u64,
    pub modified: u64,
}

pub const PLAIN: Meta = Meta { mode: 0o644, owner: 0, group: 0, modified: 1_000_000_000 };

impl Archive {
    pub fn entry(mut self, kind: tar::EntryType, path: &str, link: &str, meta: Meta, data: &[u8]) -> Self {
        self.header(kind, path, link, meta, data.len() as u64);
        self.data(data);
        self
    }

    pub fn file(self, path: &str, data: &[u8]) -> Self {
        self.entry(tar::EntryType::Regular, path, "", PLAIN, data)
    }

    pub fn folder(self, path: &str) -> Self {
        self.entry(tar::EntryType::Directory, path, "", Meta { mode: 0o755, ..PLAIN }, b"")
    }

    pub fn symlink(self, path: &str, link: &str) -> Self {
        self.entry(tar::EntryType::Symlink, path, link, PLAIN, b"")
    }

    pub fn hard_link(self, path: &str, link: &str) -> Self {
        self.entry(tar::EntryType::Link, path, link, PLAIN, b"")
    }

    /// PAX records for the entry that follows.
    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let body = key.len() + value.len() + 3;
            let length = (1..).map(|digits| body + digits).find(|n| n.to_string().len() + body == *n).unwrap();
            data.extend(format!("{length} {key}=").into_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.header(tar::EntryType::XHeader, "pax", "", PLAIN, data.len() as u64);
        self.data(&data);
        self
    }

    /// A header that announces `size` bytes which do not follow.
    pub fn announce(mut self, kind: tar::EntryType, path: &str, size: u64) -> Self {
        self.header(kind, path, "", PLAIN, size);
        self
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    pub fn gzip(self) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&self.end()).unwrap();
        encoder.finish().unwrap()
    }

    pub fn zstd(self) -> Vec<u8> {
        zstd::encode_all(&self.end()[..], 1).unwrap()
    }

    fn header(&mut self, kind: tar::EntryType, path: &str, link: &str, meta: Meta, size: u64) {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(meta.mode);
        header.set_uid(meta.owner);
        header.set_gid(meta.group);
        header.set_mtime(meta.modified);
        header.set_size(size);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
    }

    fn data(&mut self, data: &[u8]) {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }
}
