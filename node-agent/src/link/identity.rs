//! The node's identity on disk: its Ed25519 key, which never leaves the server, its certificate, and
//! the authority it trusts.

use crate::desired::{DesiredError, file};
use hoody_protocol::{
    id::ServerId,
    transport::{self, NodeKey},
};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::{
    net::{SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    time::Duration,
};

/// The time the name of a control plane has to resolve at start.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(2);

/// A loaded identity.
#[derive(Debug, Clone)]
pub struct NodeIdentity {
    /// Who the node is.
    pub server: ServerId,
    /// Where the control plane listens, tried in order.
    pub addresses: Vec<String>,
    /// Key and certificate.
    pub identity: std::sync::Arc<transport::Identity>,
    /// What the control plane is verified by.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// What an enrolment or renewal brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificates {
    /// Who the node is.
    pub server: ServerId,
    /// Where the control plane listens.
    pub addresses: Vec<String>,
    /// Hexadecimal DER, leaf first.
    pub chain: Vec<String>,
    /// Hexadecimal DER.
    pub authorities: Vec<String>,
}

/// The folder of the identity.
#[derive(Debug, Clone)]
pub struct IdentityStore {
    folder: PathBuf,
}

/// Why the identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written, or is damaged.
    #[error(transparent)]
    File(#[from] DesiredError),
    /// A file holds something else.
    #[error("{} does not hold what it should", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl IdentityStore {
    /// The identity in `folder`, which exists.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The node's key; made and saved where there is none, so that a join that is cut short
    /// goes on with the same key.
    pub fn key(&self) -> Result<NodeKey, IdentityError> {
        let path = self.folder.join("key");
        if let Some(bytes) = file::read(&path)? {
            return NodeKey::from_pkcs8(&bytes).map_err(malformed(&path));
        }
        let key = transport::generate_node_key().map_err(malformed(&path))?;
        file::write(&path, key.pkcs8())?;
        Ok(key)
    }

    /// Replaces the certificates.
    pub fn save(&self, certificates: &Certificates) -> Result<(), IdentityError> {
        let content = serde_json::to_vec_pretty(certificates).expect("plain data always encodes");
        Ok(file::write(&self.certificates_path(), &content)?)
    }

    /// The identity; `None` where the node has not joined.
    pub fn load(&self) -> Result<Option<NodeIdentity>, IdentityError> {
        let path = self.certificates_path();
        let Some(content) = file::read(&path)? else { return Ok(None) };
        let stored: Certificates = serde_json::from_slice(&content).map_err(malformed(&path))?;
        let identity = transport::Identity::of_node(decode(&path, &stored.chain)?, &self.key()?);
        Ok(Some(NodeIdentity {
            server: stored.server,
            addresses: stored.addresses,
            identity: std::sync::Arc::new(identity),
            authorities: decode(&path, &stored.authorities)?,
        }))
    }

    /// Where the control plane awaits nodes, resolved; empty where the node has not joined. A name that does
    /// not resolve in time is left out: containers must come back without a name server.
    pub async fn control_planes(&self) -> Vec<SocketAddrV4> {
        let Ok(Some(identity)) = self.load() else { return Vec::new() };
        let mut found = Vec::new();
        for address in &identity.addresses {
            match tokio::time::timeout(RESOLVE_DEADLINE, tokio::net::lookup_host(address)).await {
                Ok(Ok(resolved)) => found.extend(resolved.filter_map(|resolved| match resolved {
                    SocketAddr::V4(resolved) => Some(resolved),
                    SocketAddr::V6(_) => None,
                })),
                _ => tracing::warn!(
                    address,
                    "the control plane's name does not resolve: containers are not kept from it"
                ),
            }
        }
        found
    }

    fn certificates_path(&self) -> PathBuf {
        self.folder.join("certificates.json")
    }
}

fn malformed<E: std::error::Error + Send + Sync + 'static>(path: &Path) -> impl Fn(E) -> IdentityError {
    move |error| IdentityError::Malformed { path: path.to_owned(), source: Box::new(error) }
}

fn decode(path: &Path, certificates: &[String]) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let decode = |text: &String| Ok(CertificateDer::from(hex::decode(text).map_err(malformed(path))?));
    certificates.iter().map(decode).collect()
}
