//! Whose pull it is. Registries are of the tenants' choice, and one of them can name any layer: knowing a digest proves
//! nothing. So what is there already is taken without being fetched only by those who could have it anyway, and what one
//! account fetched is not gone on with by another.

use hoody_protocol::{id::UserId, image::Digest};
use std::collections::HashSet;

/// For whom an image is pulled.
#[derive(Debug, Clone)]
pub enum Holder {
    /// The operator, who has every blob.
    Operator,
    /// An account, with the layers of the catalogue's images and of its own containers.
    Account(UserId, HashSet<Digest>),
}

impl Holder {
    /// True where a blob that is there need not be fetched.
    pub(super) fn has(&self, digest: Digest) -> bool {
        match self {
            Self::Operator => true,
            Self::Account(_, layers) => layers.contains(&digest),
        }
    }

    /// Begins the names of the files that layers are fetched into.
    pub(super) fn prefix(&self) -> String {
        match self {
            Self::Operator => String::new(),
            Self::Account(id, _) => format!("{id}-"),
        }
    }
}
