//! An OCI image layout folder (image-spec v1.1, image-layout.md): finds the one image that fits
//! ([`super::search`]) and copies its layers. Nothing in the folder is trusted: names are made from parsed
//! digests only, files must be regular files, every byte is verified, and every count and size has a limit.

use super::{
    ImportError,
    compression::sniff,
    documents::{Descriptor, Index, LayoutHeader, MAX_DOCUMENT_BYTES, parse, shortened},
    platform::Platform,
    search::{Documents, Found, Search, list, too_many_layers, verify},
};
use crate::service::image::blobs::{BlobError, BlobFolder};
use hoody_protocol::{
    bounded::List,
    image::{Digest, ImageSpec, Layer, MAX_LAYER_BYTES},
};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// A layout that is being searched.
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

/// The documents among the layout's blobs.
impl Documents for Layout {
    fn fetch(&mut self, descriptor: &Descriptor, digest: Digest) -> Result<Vec<u8>, ImportError> {
        let path = self.blob_path(digest);
        let bytes = read_small(&path)?;
        verify(descriptor, digest, &bytes)?;
        Ok(bytes)
    }
}

impl Layout {
    /// Opens a folder that has an `oci-layout` file of a version we know.
    pub(super) fn open(root: &Path) -> Result<Self, ImportError> {
        let layout = Self { root: root.to_owned() };
        let path = root.join("oci-layout");
        if !path.exists() {
            return Err(ImportError::NotALayout(root.to_owned()));
        }
        let header: LayoutHeader = parse("oci-layout", &read_small(&path)?)?;
        if header.image_layout_version != "1.0.0" {
            let problem = format!("unknown version {:?}", shortened(&header.image_layout_version));
            return Err(ImportError::Document { what: "oci-layout".to_owned(), problem });
        }
        Ok(layout)
    }

    /// The image for `platform`, of those that `reference` names.
    pub(super) fn find(&mut self, platform: &Platform, reference: Option<&str>) -> Result<Found, ImportError> {
        let index: Index = parse("index.json", &read_small(&self.root.join("index.json"))?)?;
        let chosen: Vec<&Descriptor> = index
            .manifests
            .iter()
            .filter(|descriptor| reference.is_none() || descriptor.reference() == reference)
            .collect();
        let mut references: Vec<&str> = chosen.iter().filter_map(|descriptor| descriptor.reference()).collect();
        references.sort_unstable();
        references.dedup();
        if reference.is_none() && references.len() > 1 {
            return Err(ImportError::Ambiguous { found: list(references.iter().copied()) });
        }
        let mut search = Search::new(self, platform);
        for descriptor in chosen {
            if let Some(found) = search.descend(descriptor)? {
                return Ok(found);
            }
        }
        let wanted = match reference {
            Some(reference) => format!("{platform} under the reference {:?}", shortened(reference)),
            None => platform.to_string(),
        };
        Err(search.no_match(wanted))
    }

    /// Copies the image's layers; gives the specification and the bytes of all layers.
    pub(super) fn copy(&self, found: Found, blobs: &BlobFolder) -> Result<(ImageSpec, u64), ImportError> {
        let mut layers = Vec::with_capacity(found.layers.len());
        let mut copied: HashMap<Digest, u64> = HashMap::new();
        let mut total = 0u64;
        for descriptor in &found.layers {
            let (digest, compression) = (descriptor.digest()?, descriptor.compression()?);
            if descriptor.size > MAX_LAYER_BYTES {
                return Err(ImportError::Limit { what: format!("layer {digest} in bytes"), max: MAX_LAYER_BYTES });
            }
            let size = match copied.get(&digest) {
                Some(size) => *size,
                None => {
                    let mut file = self.open_blob(digest)?;
                    let failed = |source| ImportError::Io { action: "read", path: self.blob_path(digest), source };
                    if sniff(&mut file).map_err(failed)? != compression {
                        return Err(ImportError::LayerContent { digest });
                    }
                    file.rewind().map_err(failed)?;
                    match blobs.add(file, descriptor.size, Some(digest)) {
                        Ok((_, size)) => size,
                        Err(BlobError::TooLarge(announced)) => {
                            return Err(ImportError::Size { digest, announced, found: announced + 1 });
                        }
                        Err(other) => return Err(other.into()),
                    }
                }
            };
            if size != descriptor.size {
                return Err(ImportError::Size { digest, announced: descriptor.size, found: size });
            }
            copied.insert(digest, size);
            total = total.saturating_add(size);
            layers.push(Layer { digest, size, compression, archive_bytes: None });
        }
        let layers = List::try_from(layers).map_err(|_| too_many_layers())?;
        Ok((ImageSpec::new(layers, found.config), total))
    }

    fn blob_path(&self, digest: Digest) -> PathBuf {
        self.root.join("blobs").join("sha256").join(digest.hex())
    }

    fn open_blob(&self, digest: Digest) -> Result<File, ImportError> {
        open_regular(&self.blob_path(digest))
    }
}

/// Opens a regular file; does not follow a link at the end and does not wait for a pipe's other side.
pub(super) fn open_regular(path: &Path) -> Result<File, ImportError> {
    let failed = |source: io::Error| {
        if source.raw_os_error() == Some(libc::ELOOP) {
            ImportError::NotAFile(path.to_owned())
        } else {
            ImportError::Io { action: "open", path: path.to_owned(), source }
        }
    };
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_file() { Ok(file) } else { Err(ImportError::NotAFile(path.to_owned())) }
}

/// Reads a file of at most [`MAX_DOCUMENT_BYTES`].
fn read_small(path: &Path) -> Result<Vec<u8>, ImportError> {
    let mut bytes = Vec::new();
    let read = open_regular(path)?.take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|source| ImportError::Io { action: "read", path: path.to_owned(), source })?;
    if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
        return Err(ImportError::Limit { what: format!("{} in bytes", path.display()), max: MAX_DOCUMENT_BYTES });
    }
    Ok(bytes)
}
