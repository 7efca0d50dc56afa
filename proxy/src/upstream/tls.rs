//! TLS to upstreams of the kind `https`.

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use std::{
    io,
    sync::{Arc, PoisonError, RwLock},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The settings of all connections: the authorities that the server's operating system trusts.
#[derive(Debug)]
pub(crate) struct TlsSettings(RwLock<Arc<ClientConfig>>);

impl TlsSettings {
    pub(crate) fn load() -> Result<Self, rustls::Error> {
        Ok(Self(RwLock::new(client_config()?)))
    }

    /// Reads the authorities again; connections that are open go on.
    pub(crate) fn reload(&self) -> Result<(), rustls::Error> {
        let fresh = client_config()?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Makes the connection one over TLS, with a server that has a certificate for `name`.
    pub(crate) async fn connect(&self, name: &str, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let config = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        TlsConnector::from(config).connect(name, tcp).await
    }
}

fn client_config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "an authority of the system cannot be read");
    }
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::info!(added, ignored, "authorities for upstreams over TLS");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
