//! QUIC configurations of both sides, and the admission of a connection after its handshake.

use super::{
    BULK, ENROL, Identity, NODE, PeerCheck, PeerIdentity, TransportError,
    identity::{IdentityError, certificate_identity},
    tls,
};
use crate::image::Digest;
use quinn::{
    AckFrequencyConfig, Connection, IdleTimeout, MtuDiscoveryConfig, TransportConfig, ValidationTokenConfig, VarInt,
    crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig},
};
use rustls::pki_types::CertificateDer;
use std::{sync::Arc, time::Duration};

/// Pause after which a silent connection is kept alive.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Silence after which the peer is gone.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Commands that the control plane may have open at once on a link.
pub const COMMAND_STREAMS: u32 = 40;
/// Processes, terminals and logs that the control plane may have open at once on a link.
pub const EXEC_STREAMS: u32 = 320;

/// Streams that an agent may have open at once on a link: control, reports, renewal, and room for
/// those that are just ending.
const AGENT_BIDI_STREAMS: u32 = 8;
/// Batches of measurements on their way at once.
const AGENT_UNI_STREAMS: u32 = 8;
/// Blobs that a node fetches, and transfers that it sends and receives, at once.
const BULK_STREAMS: u32 = 16;
/// An enrolment is one question.
const ENROL_STREAMS: u32 = 1;

/// Bytes on their way to an agent on one stream of a link.
const STREAM_WINDOW: u32 = 256 << 10;
/// Bytes on their way to the control plane on one stream, whatever its connection: what this is comes before the
/// protocol is known. A transfer is sent at this many bytes in a round trip.
const SERVER_STREAM_WINDOW: u32 = 1 << 20;
/// Bytes on their way on one link, in each direction.
const LINK_WINDOW: u32 = 2 << 20;
/// Bytes that a stranger may send before it is admitted.
const STRANGER_WINDOW: u32 = 64 << 10;
/// Bytes of one blob on their way to a node.
const BULK_STREAM_WINDOW: u32 = 4 << 20;
/// Bytes of all transfers on their way from a node.
const BULK_UPLOAD_WINDOW: u32 = 4 << 20;
/// Bytes of all blobs and transfers on their way to a node.
const BULK_WINDOW: u32 = 16 << 20;

/// Handshakes that the listener holds before it drops new ones.
const MAX_INCOMING: usize = 1024;
/// Bytes kept for one, and for all handshakes that were not answered yet.
const INCOMING_BYTES: u64 = 64 << 10;
const INCOMING_BYTES_TOTAL: u64 = 16 << 20;
/// Life of a retry token, by which a client proves its address. A client whose first packet is passed over
/// while we are busy sends it again with the same token, up to its idle timeout.
const RETRY_TOKEN_LIFETIME: Duration = Duration::from_secs(20);

/// Packets that a peer may receive before it acknowledges them, as many as the kernel hands over at once: quinn would
/// send an acknowledgement for every other one, which is a third of the packets of a transfer.
const ACKNOWLEDGED_PACKETS: u32 = 10;

/// Bytes of the largest packets, which are tried where much is sent; what the network carries is found out. A packet takes
/// as much of the processor whatever its size. quinn hands the kernel ten at once, and one call takes 64 KiB with its
/// headers: larger ones would be lost ten at a time.
pub(super) const LARGEST_PACKET: u16 = 6_500;

/// What every connection has in common.
fn transport(stream_window: u32, window: u32, send_window: u32, bidi: u32, uni: u32) -> TransportConfig {
    transport_with((KEEP_ALIVE, IDLE_TIMEOUT), (stream_window, window, send_window), (bidi, uni))
}

/// Tries packets as large as the peer takes, up to [`LARGEST_PACKET`].
pub(super) fn with_large_packets(mut config: TransportConfig) -> TransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(LARGEST_PACKET);
    config.mtu_discovery_config(Some(discovery));
    config
}

/// The same with other pauses: of keep-alives, and of silence after which the peer is gone.
pub(super) fn transport_with(
    (keep_alive, idle_timeout): (Duration, Duration),
    (stream_window, window, send_window): (u32, u32, u32),
    (bidi, uni): (u32, u32),
) -> TransportConfig {
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements.ack_eliciting_threshold(ACKNOWLEDGED_PACKETS.into());
    let mut config = TransportConfig::default();
    config
        .keep_alive_interval(Some(keep_alive))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_timeout.as_millis() as u32))))
        .stream_receive_window(stream_window.into())
        .receive_window(window.into())
        .send_window(send_window.into())
        .max_concurrent_bidi_streams(bidi.into())
        .max_concurrent_uni_streams(uni.into())
        .datagram_receive_buffer_size(None)
        .ack_frequency_config(Some(acknowledgements));
    config
}

/// The control plane's side of all three protocols. Connections begin without the right to open a
/// stream; [`admit`] gives it.
pub fn server_config(
    identity: Identity,
    authorities: &[CertificateDer<'static>],
    check: Arc<dyn PeerCheck>,
) -> Result<quinn::ServerConfig, TransportError> {
    let tls = tls::server(identity, authorities, check)?;
    let transport = transport(SERVER_STREAM_WINDOW, STRANGER_WINDOW, STRANGER_WINDOW, 0, 0);
    // Of agents, only bulk connections take them.
    server_with(tls, with_large_packets(transport))
}

/// A listener's side: bounded handshakes, and no tokens by which a connection could skip one.
pub(super) fn server_with(
    tls: rustls::ServerConfig,
    transport: TransportConfig,
) -> Result<quinn::ServerConfig, TransportError> {
    let crypto = QuicServerConfig::try_from(tls).map_err(|_| TransportError::Suite)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let mut validation = ValidationTokenConfig::default();
    validation.sent(0);
    config
        .transport_config(Arc::new(transport))
        .validation_token_config(validation)
        .retry_token_lifetime(RETRY_TOKEN_LIFETIME)
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
    Ok(config)
}

/// The node's side of a connection with this protocol ([`NODE`] or [`BULK`]). Connect to
/// [`super::SERVER_NAME`], whatever the address.
pub fn client_config(
    identity: Option<&Identity>,
    authorities: &[CertificateDer<'static>],
    alpn: &'static [u8],
) -> Result<quinn::ClientConfig, TransportError> {
    let transport = if alpn == BULK {
        with_large_packets(transport(BULK_STREAM_WINDOW, BULK_WINDOW, BULK_UPLOAD_WINDOW, 0, 0))
    } else {
        transport(STREAM_WINDOW, LINK_WINDOW, LINK_WINDOW, COMMAND_STREAMS + EXEC_STREAMS, 0)
    };
    client(tls::client(identity, authorities, alpn)?, transport)
}

/// The node's side of enrolment: the control plane is known by the digest of its authority's
/// certificate, as the join token carries it.
pub fn enrol_client_config(authority: Digest) -> Result<quinn::ClientConfig, TransportError> {
    client(tls::enrol_client(authority)?, transport(STREAM_WINDOW, STREAM_WINDOW, STREAM_WINDOW, 0, 0))
}

pub(super) fn client(
    tls: rustls::ClientConfig,
    transport: TransportConfig,
) -> Result<quinn::ClientConfig, TransportError> {
    let crypto = QuicClientConfig::try_from(tls).map_err(|_| TransportError::Suite)?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// What a connection was admitted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// A link.
    Node(PeerIdentity),
    /// A node's connection for bulk transfer.
    Bulk(PeerIdentity),
    /// Enrolment; nobody knows who it is.
    Enrol,
}

/// Why a connection is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// No certificate, or one without a node in it.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The protocol is none of ours.
    #[error("the connection has no known protocol")]
    Protocol,
}

/// Decides what a connection that has finished its handshake may do, and lets it open streams. For the
/// control plane's side.
pub fn admit(connection: &Connection) -> Result<Admitted, AdmitError> {
    let protocol = protocol(connection)?;
    let (admitted, bidi, uni, receive, send) = match protocol.as_slice() {
        NODE => (
            Admitted::Node(peer_identity(connection)?),
            AGENT_BIDI_STREAMS,
            AGENT_UNI_STREAMS,
            LINK_WINDOW,
            LINK_WINDOW,
        ),
        BULK => (Admitted::Bulk(peer_identity(connection)?), BULK_STREAMS, 0, BULK_UPLOAD_WINDOW, BULK_WINDOW),
        ENROL => (Admitted::Enrol, ENROL_STREAMS, 0, STRANGER_WINDOW, STREAM_WINDOW),
        _ => return Err(AdmitError::Protocol),
    };
    connection.set_receive_window(receive.into());
    connection.set_send_window(send.into());
    connection.set_max_concurrent_bi_streams(bidi.into());
    connection.set_max_concurrent_uni_streams(uni.into());
    Ok(admitted)
}

/// The protocol that both sides have chosen.
pub(super) fn protocol(connection: &Connection) -> Result<Vec<u8>, AdmitError> {
    let handshake = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    handshake.and_then(|data| data.protocol).ok_or(AdmitError::Protocol)
}

/// Who the peer is, by the certificate that the handshake verified.
pub fn peer_identity(connection: &Connection) -> Result<PeerIdentity, IdentityError> {
    certificate_identity(&peer_certificate(connection)?)
}

/// The certificate that the handshake verified.
pub(super) fn peer_certificate(connection: &Connection) -> Result<CertificateDer<'static>, IdentityError> {
    let chain = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or(IdentityError::NoCertificate)?;
    chain.into_iter().next().ok_or(IdentityError::NoCertificate)
}
