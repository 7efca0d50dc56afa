//! Certificate and key of the public API.

use super::{ServeError, failed};
use crate::config::Tls;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{io, sync::Arc};

/// HTTP versions that are offered within TLS (ALPN, RFC 7301), the preferred one first.
pub(super) const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Reads the files and checks that they belong together.
pub(super) fn load(files: &Tls) -> Result<Arc<ServerConfig>, ServeError> {
    let what = format!("load certificate {} and key {}", files.certificate.display(), files.key.display());
    read(files).map_err(failed(what))
}

fn read(files: &Tls) -> io::Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(io::Error::other)?;
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).map_err(io::Error::other)?;
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    Ok(Arc::new(config))
}
