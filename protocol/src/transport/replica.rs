//! Connections between the replicas of one control plane: both sides show a certificate of the authority that names a
//! replica. Those of nodes name none, and neither does the one that the control plane shows to nodes; a replica's names
//! no node. So none of the three takes another's place.

use super::{
    AdmitError, Identity, IdentityError, TransportError,
    identity::{names, not_after, parse},
    quic, tls,
};
use crate::time::UnixMs;
use quinn::Connection;
use rustls::pki_types::CertificateDer;
use std::time::Duration;
use x509_parser::extensions::GeneralName;

/// ALPN of a connection between replicas.
pub const REPLICA: &[u8] = b"hoody-replica/1";
/// ALPN of a second one, for bulk transfer.
pub const REPLICA_BULK: &[u8] = b"hoody-replica-bulk/1";

/// The domain of the names in replicas' certificates; nothing resolves it.
const DOMAIN: &str = ".replica.hoody.internal";

/// Pause after which a silent connection is kept alive.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Silence after which the other replica is gone: they are near each other, and people wait.
const IDLE_TIMEOUT: Duration = Duration::from_secs(8);
/// Bytes on their way on one connection. A stream stands still where its reader does, be it of an archive, of a log that
/// a node sends unasked, or of input that a process does not take: the windows of all streams together are the
/// connection's, so that none holds up another.
const WINDOW: u32 = 16 << 20;
/// Streams at once that the dialling side may open on a connection.
pub const REPLICA_STREAMS: u32 = 512;
/// The same for bulk transfer.
pub const REPLICA_BULK_STREAMS: u32 = 32;
/// Bytes on their way on one stream: to the dialling side by protocol, and to the listening side, which takes both
/// protocols with one configuration, as few as where there are most streams. Of bulk transfer only verdicts go there.
const STREAM_WINDOW: u32 = WINDOW / REPLICA_STREAMS;
const BULK_STREAM_WINDOW: u32 = WINDOW / REPLICA_BULK_STREAMS;

/// The name in the certificate of a replica; dial it under this name.
pub fn replica_name(replica: &str) -> String {
    format!("{replica}{DOMAIN}")
}

/// A replica, as its certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaPeer {
    /// Its id.
    pub replica: String,
    /// End of the certificate's validity.
    pub not_after: UnixMs,
}

impl ReplicaPeer {
    /// Reads whom an (already verified) certificate names.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let parsed = parse(certificate)?;
        let Some([GeneralName::DNSName(name)]) = names(&parsed) else { return Err(IdentityError::NoReplica) };
        let replica = name.strip_suffix(DOMAIN).filter(|id| !id.is_empty() && !id.contains('.'));
        let replica = replica.ok_or(IdentityError::NoReplica)?.to_owned();
        Ok(Self { replica, not_after: not_after(&parsed) })
    }
}

fn transport(stream_window: u32) -> quinn::TransportConfig {
    let windows = (stream_window, WINDOW, WINDOW);
    quic::with_large_packets(quic::transport_with((KEEP_ALIVE, IDLE_TIMEOUT), windows, (0, 0)))
}

/// The side that listens, for both protocols. Connections begin without the right to open a stream; [`admit_replica`]
/// gives it.
pub fn replica_server_config(
    identity: Identity,
    authorities: &[CertificateDer<'static>],
) -> Result<quinn::ServerConfig, TransportError> {
    quic::server_with(tls::replica_server(identity, authorities)?, transport(STREAM_WINDOW))
}

/// The side that dials, for one of the two protocols.
pub fn replica_client_config(
    identity: &Identity,
    authorities: &[CertificateDer<'static>],
    alpn: &'static [u8],
) -> Result<quinn::ClientConfig, TransportError> {
    let stream_window = if alpn == REPLICA_BULK { BULK_STREAM_WINDOW } else { STREAM_WINDOW };
    quic::client(tls::client(Some(identity), authorities, alpn)?, transport(stream_window))
}

/// Who has connected; lets it open streams. For the side that listens, after the handshake.
pub fn admit_replica(connection: &Connection) -> Result<ReplicaPeer, AdmitError> {
    let peer = ReplicaPeer::of(&quic::peer_certificate(connection)?)?;
    let streams = match quic::protocol(connection)?.as_slice() {
        REPLICA => REPLICA_STREAMS,
        REPLICA_BULK => REPLICA_BULK_STREAMS,
        _ => return Err(AdmitError::Protocol),
    };
    connection.set_max_concurrent_bi_streams(streams.into());
    Ok(peer)
}
