//! An OCI image layout folder (image-spec v1.1, image-layout.md): finds the one image that fits and
//! copies its layers. Nothing in the folder is trusted: names are made from parsed digests only, files
//! must be regular files, every byte is verified, and every count and size has a limit.

use super::{
    ImportError,
    compression::sniff,
    configuration,
    documents::{Configuration, Descriptor, Index, Kind, LayoutHeader, MAX_DOCUMENT_BYTES, Manifest, parse, shortened},
    platform::Platform,
};
use crate::service::image::blobs::{BlobError, BlobFolder};
use hoody_protocol::{
    bounded::List,
    image::{Digest, ImageConfig, ImageSpec, Layer, MAX_LAYER_BYTES, MAX_LAYERS},
};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Indexes inside indexes.
const MAX_DEPTH: u32 = 4;
/// Documents read while looking for the image.
const MAX_DOCUMENTS: u32 = 512;
/// Platforms named in a message.
const MAX_NAMED: usize = 12;

/// A layout that is being searched.
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
    documents_read: u32,
    /// What was there but did not fit, for the message.
    seen: Vec<String>,
}

/// The image found.
#[derive(Debug)]
pub(super) struct Found {
    layers: Vec<Descriptor>,
    pub(super) config: ImageConfig,
    pub(super) platform: Platform,
}

impl Layout {
    /// Opens a folder that has an `oci-layout` file of a version we know.
    pub(super) fn open(root: &Path) -> Result<Self, ImportError> {
        let layout = Self { root: root.to_owned(), documents_read: 0, seen: Vec::new() };
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
        for descriptor in chosen {
            if let Some(found) = self.search(descriptor, platform, 0)? {
                return Ok(found);
            }
        }
        let wanted = match reference {
            Some(reference) => format!("{platform} under the reference {:?}", shortened(reference)),
            None => platform.to_string(),
        };
        Err(ImportError::NoMatch { wanted, found: list(self.seen.iter().map(String::as_str)) })
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
            layers.push(Layer { digest, size, compression });
        }
        let layers = List::try_from(layers).map_err(|_| too_many_layers())?;
        Ok((ImageSpec::new(layers, found.config), total))
    }

    /// Depth first; the first image that fits is taken, as the specification advises.
    fn search(
        &mut self,
        descriptor: &Descriptor,
        platform: &Platform,
        depth: u32,
    ) -> Result<Option<Found>, ImportError> {
        if depth > MAX_DEPTH {
            return Err(ImportError::Limit { what: "depth of indexes".to_owned(), max: MAX_DEPTH.into() });
        }
        if let Some(described) = descriptor.platform.clone().map(Platform::from)
            && !described.fits(platform)
        {
            self.saw(&described);
            return Ok(None);
        }
        match descriptor.kind() {
            Kind::Index => {
                let index: Index = parse("index", &self.read_document(descriptor)?)?;
                for child in &index.manifests {
                    if let Some(found) = self.search(child, platform, depth + 1)? {
                        return Ok(Some(found));
                    }
                }
                Ok(None)
            }
            Kind::Manifest => self.read_image(descriptor, platform),
            Kind::Other => Ok(None),
        }
    }

    fn read_image(&mut self, descriptor: &Descriptor, platform: &Platform) -> Result<Option<Found>, ImportError> {
        let manifest: Manifest = parse("manifest", &self.read_document(descriptor)?)?;
        if !manifest.config.is_configuration() {
            // An artifact or an attestation: something else than an image.
            return Ok(None);
        }
        let configuration: Configuration = parse("image configuration", &self.read_document(&manifest.config)?)?;
        let described = Platform::from(configuration.platform.clone());
        if !described.fits(platform) {
            self.saw(&described);
            return Ok(None);
        }
        let invalid = |problem: String| ImportError::Document { what: "manifest".to_owned(), problem };
        if manifest.layers.is_empty() {
            return Err(invalid("it has no layers".to_owned()));
        }
        if manifest.layers.len() > MAX_LAYERS {
            return Err(too_many_layers());
        }
        let diffs = configuration.rootfs.diff_ids.unwrap_or_default().len();
        if diffs != manifest.layers.len() {
            return Err(invalid(format!("it has {} layers, its configuration {diffs}", manifest.layers.len())));
        }
        let config = configuration::from_oci(configuration.config.unwrap_or_default())?;
        Ok(Some(Found { layers: manifest.layers, config, platform: described }))
    }

    fn read_document(&mut self, descriptor: &Descriptor) -> Result<Vec<u8>, ImportError> {
        self.documents_read += 1;
        if self.documents_read > MAX_DOCUMENTS {
            return Err(ImportError::Limit { what: "number of manifests".to_owned(), max: MAX_DOCUMENTS.into() });
        }
        let digest = descriptor.digest()?;
        if descriptor.size > MAX_DOCUMENT_BYTES {
            return Err(ImportError::Limit { what: format!("document {digest} in bytes"), max: MAX_DOCUMENT_BYTES });
        }
        let path = self.blob_path(digest);
        let bytes = read_small(&path)?;
        if bytes.len() as u64 != descriptor.size {
            return Err(ImportError::Size { digest, announced: descriptor.size, found: bytes.len() as u64 });
        }
        let found = Digest::of(&bytes);
        if found != digest {
            return Err(BlobError::Mismatch { expected: digest, found, size: bytes.len() as u64 }.into());
        }
        Ok(bytes)
    }

    fn blob_path(&self, digest: Digest) -> PathBuf {
        self.root.join("blobs").join("sha256").join(digest.hex())
    }

    fn open_blob(&self, digest: Digest) -> Result<File, ImportError> {
        open_regular(&self.blob_path(digest))
    }

    fn saw(&mut self, platform: &Platform) {
        let text = shortened(&platform.to_string());
        if self.seen.len() < MAX_NAMED && !self.seen.contains(&text) {
            self.seen.push(text);
        }
    }
}

fn too_many_layers() -> ImportError {
    ImportError::Limit { what: "number of layers".to_owned(), max: MAX_LAYERS as u64 }
}

fn list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let items: Vec<String> = items.take(MAX_NAMED).map(shortened).collect();
    if items.is_empty() { "nothing".to_owned() } else { items.join(", ") }
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
