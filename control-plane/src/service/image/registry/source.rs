//! The registry's documents for the search of an image. The search is the one of layouts and runs on a thread of
//! its own; what it asks for is awaited here.

use super::{client::Session, error::PullError};
use crate::service::image::import::{
    ImportError, Platform,
    documents::{Descriptor, Kind, MAX_DOCUMENT_BYTES},
    search::{Documents, Found, Search, verify},
};
use hoody_protocol::image::Digest;
use std::sync::Arc;
use tokio::runtime::Handle;

/// What we understand, best first.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// Finds the image for the platform.
pub(super) async fn find(session: &Arc<Session>, platform: &Platform) -> Result<Found, PullError> {
    let name = session.reference.manifest();
    let path = format!("manifests/{name}");
    let (bytes, media_type) = session.document(&path, Some(ACCEPT), MAX_DOCUMENT_BYTES).await?;
    let digest = Digest::of(&bytes);
    let root = Descriptor {
        media_type,
        // What the reference is pinned to; a tag means whatever it leads to.
        digest: session.reference.digest().unwrap_or(digest).to_string(),
        size: bytes.len() as u64,
        annotations: None,
        platform: None,
    };
    if root.kind() == Kind::Other {
        let problem = format!("its type is {:?}", root.media_type.chars().take(100).collect::<String>());
        return Err(PullError::Import(ImportError::Document { what: path, problem }));
    }
    verify(&root, root.digest()?, &bytes)?;
    let (session, runtime, platform) = (session.clone(), Handle::current(), platform.clone());
    // A search holds its place while it waits for the network, which a worker of the runtime must not.
    let search = tokio::task::spawn_blocking(move || {
        let reference = session.reference.clone();
        let mut documents = Registered { session, runtime, root: Some(bytes) };
        let mut search = Search::new(&mut documents, &platform);
        match search.descend(&root)? {
            Some(found) => Ok(found),
            None => Err(search.no_match(format!("{platform} in {reference}"))),
        }
    });
    Ok(search.await??)
}

struct Registered {
    session: Arc<Session>,
    runtime: Handle,
    /// The document that the search begins with.
    root: Option<Vec<u8>>,
}

impl Documents for Registered {
    fn fetch(&mut self, descriptor: &Descriptor, digest: Digest) -> Result<Vec<u8>, ImportError> {
        if let Some(root) = self.root.take() {
            return Ok(root);
        }
        let folder = if descriptor.kind() == Kind::Other { "blobs" } else { "manifests" };
        let path = format!("{folder}/{digest}");
        let asked = self.session.document(&path, Some(ACCEPT), MAX_DOCUMENT_BYTES);
        let (bytes, _) = self.runtime.block_on(asked).map_err(|error| ImportError::Registry(Box::new(error)))?;
        verify(descriptor, digest, &bytes)?;
        Ok(bytes)
    }
}
