//! Import of an image from a root file system tar (plain, gzip or zstd), an OCI image layout folder or
//! an OCI archive; which of them it is, is found out by looking.
//!
//! The blobs are on disk before the catalogue names them. An import that ends early leaves blobs that
//! nobody names, which the next collection removes.

mod archive;
pub(super) mod compression;
mod configuration;
pub(super) mod documents;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod layout;
mod platform;
pub(super) mod search;

pub use configuration::Overrides;
pub(super) use configuration::apply;
pub use error::ImportError;
pub use platform::{Platform, oci_architecture};

use super::{
    blobs::{BlobFolder, LOCK_DEADLINE},
    name::is_valid_name,
};
use crate::store::{
    Store,
    image::{self, ImageRow, NewImage},
};
use archive::Content;
use hoody_protocol::{
    bounded::List,
    image::{ImageConfig, ImageSpec, Layer, MAX_LAYER_BYTES},
};
use layout::Layout;
use std::path::{Path, PathBuf};

/// Characters of each description field.
const MAX_FIELD_CHARS: usize = 256;

/// What an image is called in the catalogue.
#[derive(Debug, Clone, Default)]
pub struct Naming {
    /// Catalogue name.
    pub name: String,
    /// A sentence for people; absent: made from the name.
    pub description: Option<String>,
    /// Distribution; absent: the name's first segment.
    pub os: Option<String>,
    /// Its release; absent: the name's second segment.
    pub release: Option<String>,
    /// Flavour; absent: the name's third segment.
    pub variant: Option<String>,
}

/// What to import, and what to call it.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// What to call it.
    pub naming: Naming,
    /// A root file system tar, a layout folder or an OCI archive.
    pub source: PathBuf,
    /// The platform to choose of several, and that of a root file system.
    pub platform: Platform,
    /// Which image of a layout with several (`org.opencontainers.image.ref.name`).
    pub reference: Option<String>,
    /// Configuration over the image's own.
    pub overrides: Overrides,
}

/// Imports an image, replacing what its name meant. Containers made from the former one are as they were.
pub async fn import(store: &Store, data_dir: &Path, request: ImportRequest) -> Result<ImageRow, ImportError> {
    request.naming.check()?;
    let data_dir = data_dir.to_owned();
    let copy = tokio::task::spawn_blocking(move || {
        let blobs = BlobFolder::lock(&data_dir, LOCK_DEADLINE)?;
        let copied = copy_source(&request, &blobs)?;
        Ok::<_, ImportError>((request.naming.describe(copied.spec, copied.size, copied.architecture)?, blobs))
    });
    // The lock is held until the catalogue names the blobs.
    let (new, _blobs) = copy.await.map_err(ImportError::Interrupted)??;
    put(store, &new).await
}

/// Makes the catalogue name an image whose blobs are there and locked.
pub(super) async fn put(store: &Store, new: &NewImage) -> Result<ImageRow, ImportError> {
    let mut transaction = store.begin().await?;
    let row = image::put(&mut transaction, new).await?;
    transaction.commit().await.map_err(crate::store::StoreError::from)?;
    Ok(row)
}

struct Copied {
    spec: ImageSpec,
    size: u64,
    architecture: String,
}

fn copy_source(request: &ImportRequest, blobs: &BlobFolder) -> Result<Copied, ImportError> {
    let source = &request.source;
    let metadata = std::fs::metadata(source).map_err(|error| ImportError::Io {
        action: "open",
        path: source.clone(),
        source: error,
    })?;
    if metadata.is_dir() {
        return copy_layout(source, request, blobs);
    }
    // A link to the archive is the operator's own choice; from here on it is the file itself.
    let source = std::fs::canonicalize(source).map_err(|error| ImportError::Io {
        action: "open",
        path: source.clone(),
        source: error,
    })?;
    let inspected = archive::inspect(&source)?;
    match inspected.content {
        Content::Layout => {
            let scratch = blobs.scratch()?;
            archive::unpack_layout(&source, scratch.path())?;
            copy_layout(scratch.path(), request, blobs)
        }
        Content::RootFs => {
            let config = configuration::apply(ImageConfig::default(), &request.overrides)?;
            let (digest, size) = blobs.add(layout::open_regular(&source)?, MAX_LAYER_BYTES, None)?;
            let layer = Layer { digest, size, compression: inspected.compression, archive_bytes: None };
            let layers = List::try_from(vec![layer])
                .map_err(|error| ImportError::Limit { what: "number of layers".to_owned(), max: error.max as u64 })?;
            let architecture = request.platform.architecture.clone();
            Ok(Copied { spec: ImageSpec::new(layers, config), size, architecture })
        }
    }
}

fn copy_layout(folder: &Path, request: &ImportRequest, blobs: &BlobFolder) -> Result<Copied, ImportError> {
    let mut layout = Layout::open(folder)?;
    let mut found = layout.find(&request.platform, request.reference.as_deref())?;
    found.config = configuration::apply(found.config, &request.overrides)?;
    let architecture = found.platform.architecture.clone();
    let (spec, size) = layout.copy(found, blobs)?;
    Ok(Copied { spec, size, architecture })
}

impl Naming {
    /// An error where the name is not one for the catalogue.
    pub(super) fn check(&self) -> Result<(), ImportError> {
        if is_valid_name(&self.name) { Ok(()) } else { Err(ImportError::Name(self.name.clone())) }
    }

    /// The catalogue's row for an image.
    pub(super) fn describe(
        self,
        spec: ImageSpec,
        size_bytes: u64,
        architecture: String,
    ) -> Result<NewImage, ImportError> {
        let mut segments = self.name.splitn(3, '/').map(str::to_owned);
        let (os, release, variant) = (segments.next(), segments.next(), segments.next());
        let os = self.os.or(os).unwrap_or_default();
        let release = self.release.or(release).unwrap_or_default();
        let variant = self.variant.or(variant);
        let description = self.description.unwrap_or_else(|| match release.as_str() {
            "" => os.clone(),
            release => format!("{os} {release}"),
        });
        let fields = [("os", &os), ("release", &release), ("description", &description)];
        for (field, value) in fields.into_iter().chain(variant.as_ref().map(|variant| ("variant", variant))) {
            if value.chars().count() > MAX_FIELD_CHARS || value.chars().any(char::is_control) {
                let problem = format!("it must be at most {MAX_FIELD_CHARS} printable characters");
                return Err(ImportError::Config { field, problem });
            }
        }
        Ok(NewImage { name: self.name, description, os, release, variant, architecture, size_bytes, spec })
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
