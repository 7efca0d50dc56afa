//! The image that a creation means: one of the catalogue, or one of a registry, which is pulled first.

use super::{archive::Restored, creation::Wanted};
use crate::{
    app::App,
    error::ServiceError,
    service::image::{
        self,
        registry::{MAX_REFERENCE_CHARS, Reference},
    },
    store::image::{ImageRow, hold},
};
use hoody_protocol::image::{ImageConfig, ImageSpec};
use sqlx::AnyConnection;

/// The image of a creation that names none.
const DEFAULT_IMAGE: &str = "debian/12";
/// Longest name that is looked up.
const MAX_NAME_CHARS: usize = 128;

/// 400 for what cannot be a name.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    // Longer names and digests are of registries.
    if name.len() <= MAX_REFERENCE_CHARS && Reference::has_registry(name) {
        return name.parse::<Reference>().map(drop).map_err(|error| error.to_string());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "./:_-".contains(c);
    let plain = !name.is_empty()
        && name.len() <= MAX_NAME_CHARS
        && name.chars().all(allowed)
        && !name.contains("..")
        && !name.starts_with('/');
    if plain { Ok(()) } else { Err("is not an image name such as debian/12".to_owned()) }
}

/// Where a container's image comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// The catalogue.
    Catalogue(Box<ImageRow>),
    /// A registry: the container waits for the pull.
    Registry(Reference),
    /// An archive of a container, which is a blob already.
    Archive {
        /// What a node needs.
        spec: Box<ImageSpec>,
        /// In OCI terms.
        architecture: String,
        /// What else the archive says.
        restored: Box<Restored>,
    },
}

impl Source {
    /// In OCI terms; `None`: the server's decides.
    pub(super) fn architecture(&self) -> Option<&str> {
        match self {
            Self::Catalogue(row) => Some(&row.architecture),
            Self::Registry(_) => None,
            Self::Archive { architecture, .. } => Some(architecture),
        }
    }

    /// What the container's answer shows.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Catalogue(row) => row.name.clone(),
            Self::Registry(reference) => reference.to_string(),
            Self::Archive { restored, .. } => restored.image_name.clone(),
        }
    }

    /// What a generated name of a container begins with.
    pub(super) fn short_name(&self) -> String {
        match self {
            Self::Catalogue(row) => row.name.clone(),
            Self::Registry(reference) => reference.short_name(),
            Self::Archive { .. } => "imported".to_owned(),
        }
    }

    /// What is known now: nothing of an image that is yet to be pulled.
    pub(super) fn spec(&self) -> ImageSpec {
        match self {
            Self::Catalogue(row) => row.spec.clone(),
            Self::Registry(_) => ImageSpec::new(Default::default(), ImageConfig::default()),
            Self::Archive { spec, .. } => (**spec).clone(),
        }
    }

    /// The same, which stays until the transaction ends: a container made from an image in it keeps the image's
    /// blobs from being collected.
    pub(super) async fn hold(self, connection: &mut AnyConnection) -> Result<Self, ServiceError> {
        let row = match self {
            Self::Catalogue(row) => row,
            other => return Ok(other),
        };
        match hold(connection, row.id).await? {
            Some(held) => Ok(Self::Catalogue(Box::new(held))),
            None => {
                Err(ServiceError::Conflict(format!("the image {} was removed meanwhile: choose another", row.name)))
            }
        }
    }
}

/// What the creation's image means: the catalogue goes first; 422 where nobody has one such.
pub(super) async fn resolve(app: &App, wanted: &Wanted) -> Result<Source, ServiceError> {
    let name = wanted.image.as_deref().unwrap_or(DEFAULT_IMAGE);
    if let Some(row) = image::resolve(&app.store, name).await? {
        return Ok(Source::Catalogue(Box::new(row)));
    }
    if Reference::has_registry(name) {
        let parsed = name.parse();
        return parsed.map(Source::Registry).map_err(|error: image::registry::InvalidReference| {
            ServiceError::invalid("container_image", error.to_string())
        });
    }
    Err(ServiceError::Unprocessable {
        message: format!(
            "there is no image {name}: list the catalogue with GET /api/v1/images/public, or name one of a registry \
             with its host, for example docker.io/library/debian:12"
        ),
        details: [("container_image".to_owned(), format!("{name} is not in the catalogue"))].into(),
    })
}
