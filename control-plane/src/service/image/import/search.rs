//! Finds the one image for a platform among indexes and manifests, wherever they are read from. Depth,
//! number and size of what is read are limited, and what is read has the digest it was asked for by.

use super::{
    ImportError, configuration,
    documents::{Configuration, Descriptor, Index, Kind, MAX_DOCUMENT_BYTES, Manifest, parse, shortened},
    platform::Platform,
};
use crate::service::image::blobs::BlobError;
use hoody_protocol::image::{Digest, ImageConfig, MAX_LAYERS};

/// Indexes inside indexes.
const MAX_DEPTH: u32 = 4;
/// Documents read while looking for the image.
const MAX_DOCUMENTS: u32 = 512;
/// Platforms named in a message.
const MAX_NAMED: usize = 12;

/// Where indexes, manifests and configurations come from.
pub(in crate::service::image) trait Documents {
    /// The bytes that the descriptor points to, [verified](verify).
    fn fetch(&mut self, descriptor: &Descriptor, digest: Digest) -> Result<Vec<u8>, ImportError>;
}

/// The image found.
#[derive(Debug)]
pub(in crate::service::image) struct Found {
    pub(in crate::service::image) layers: Vec<Descriptor>,
    pub(in crate::service::image) config: ImageConfig,
    pub(in crate::service::image) platform: Platform,
}

/// One search.
#[derive(Debug)]
pub(in crate::service::image) struct Search<'a, D> {
    documents: &'a mut D,
    platform: &'a Platform,
    documents_read: u32,
    /// What was there but did not fit, for the message.
    seen: Vec<String>,
}

impl<'a, D: Documents> Search<'a, D> {
    /// A search for the platform's image.
    pub(in crate::service::image) fn new(documents: &'a mut D, platform: &'a Platform) -> Self {
        Self { documents, platform, documents_read: 0, seen: Vec::new() }
    }

    /// The first image that fits below `descriptor`, depth first, as the specification advises.
    pub(in crate::service::image) fn descend(&mut self, descriptor: &Descriptor) -> Result<Option<Found>, ImportError> {
        self.search(descriptor, 0)
    }

    /// That nothing fits, naming what there is instead.
    pub(in crate::service::image) fn no_match(&self, wanted: String) -> ImportError {
        ImportError::NoMatch { wanted, found: list(self.seen.iter().map(String::as_str)) }
    }

    fn search(&mut self, descriptor: &Descriptor, depth: u32) -> Result<Option<Found>, ImportError> {
        if depth > MAX_DEPTH {
            return Err(ImportError::Limit { what: "depth of indexes".to_owned(), max: MAX_DEPTH.into() });
        }
        if let Some(described) = descriptor.platform.clone().map(Platform::from)
            && !described.fits(self.platform)
        {
            self.saw(&described);
            return Ok(None);
        }
        match descriptor.kind() {
            Kind::Index => {
                let index: Index = parse("index", &self.read(descriptor)?)?;
                for child in &index.manifests {
                    if let Some(found) = self.search(child, depth + 1)? {
                        return Ok(Some(found));
                    }
                }
                Ok(None)
            }
            Kind::Manifest => self.read_image(descriptor),
            Kind::Other => Ok(None),
        }
    }

    fn read_image(&mut self, descriptor: &Descriptor) -> Result<Option<Found>, ImportError> {
        let manifest: Manifest = parse("manifest", &self.read(descriptor)?)?;
        if !manifest.config.is_configuration() {
            // An artifact or an attestation: something else than an image.
            return Ok(None);
        }
        let configuration: Configuration = parse("image configuration", &self.read(&manifest.config)?)?;
        let described = Platform::from(configuration.platform.clone());
        if !described.fits(self.platform) {
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

    fn read(&mut self, descriptor: &Descriptor) -> Result<Vec<u8>, ImportError> {
        self.documents_read += 1;
        if self.documents_read > MAX_DOCUMENTS {
            return Err(ImportError::Limit { what: "number of manifests".to_owned(), max: MAX_DOCUMENTS.into() });
        }
        let digest = descriptor.digest()?;
        if descriptor.size > MAX_DOCUMENT_BYTES {
            return Err(ImportError::Limit { what: format!("document {digest} in bytes"), max: MAX_DOCUMENT_BYTES });
        }
        self.documents.fetch(descriptor, digest)
    }

    fn saw(&mut self, platform: &Platform) {
        let text = shortened(&platform.to_string());
        if self.seen.len() < MAX_NAMED && !self.seen.contains(&text) {
            self.seen.push(text);
        }
    }
}

/// An error where the bytes are not those of the descriptor.
pub(in crate::service::image) fn verify(
    descriptor: &Descriptor,
    digest: Digest,
    bytes: &[u8],
) -> Result<(), ImportError> {
    if bytes.len() as u64 != descriptor.size {
        return Err(ImportError::Size { digest, announced: descriptor.size, found: bytes.len() as u64 });
    }
    let found = Digest::of(bytes);
    if found != digest {
        return Err(BlobError::Mismatch { expected: digest, found, size: bytes.len() as u64 }.into());
    }
    Ok(())
}

/// There are more layers than a container's specification holds.
pub(in crate::service::image) fn too_many_layers() -> ImportError {
    ImportError::Limit { what: "number of layers".to_owned(), max: MAX_LAYERS as u64 }
}

/// A few of the items, for a message.
pub(super) fn list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let items: Vec<String> = items.take(MAX_NAMED).map(shortened).collect();
    if items.is_empty() { "nothing".to_owned() } else { items.join(", ") }
}
