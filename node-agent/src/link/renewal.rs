//! Renews the certificate over the live link at two thirds of its life, or when the control plane asks for it. The new one is used from the next
//! connection on; the control plane closes a connection whose certificate expires.

use super::{
    identity::{Certificates, IdentityStore, NodeIdentity},
    session::SessionEnd,
};
use hoody_protocol::{
    enrol::{EnrolReply, RenewRequest},
    stream,
    time::{UnixMs, now_ms},
    transport::{self, IdentityError},
};
use quinn::Connection;
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

const RENEW_DEADLINE: Duration = Duration::from_secs(20);
/// Pause after a renewal that failed.
const RETRY: Duration = Duration::from_secs(60);
/// The longest sleep at once: clocks may be set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// Waits for the time and renews. Returns after a renewal, which ends the session, so that the next one
/// is made with the new certificate.
pub(super) async fn run(
    connection: Connection,
    store: IdentityStore,
    identity: NodeIdentity,
    ordered: Arc<Notify>,
) -> SessionEnd {
    let mut due = match due(&identity) {
        Ok(due) => due,
        Err(error) => return error.into(),
    };
    loop {
        let remaining = Duration::from_millis(due.saturating_sub(now_ms()));
        if !remaining.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(remaining.min(LOOK_AGAIN)) => {}
                () = ordered.notified() => due = 0,
            }
            continue;
        }
        match renew(&connection, &store, &identity).await {
            Ok(()) => {
                tracing::info!(server = %identity.server, "the certificate was renewed");
                return SessionEnd::Renewed;
            }
            Err(SessionEnd::Broken(error)) => tracing::warn!(%error, "the certificate could not be renewed"),
            Err(SessionEnd::Refused { cause, .. }) => tracing::warn!(cause = %cause.message, "the renewal was refused"),
            Err(SessionEnd::Renewed | SessionEnd::Restarting { .. }) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn due(identity: &NodeIdentity) -> Result<UnixMs, IdentityError> {
    let leaf = identity.identity.chain.first().ok_or(IdentityError::NoCertificate)?;
    let left_when_due = transport::NODE_CERTIFICATE_LIFETIME.saturating_sub(transport::RENEW_AFTER);
    Ok(transport::certificate_identity(leaf)?.not_after.saturating_sub(left_when_due.as_millis() as u64))
}

/// True where the certificate is no longer valid: nothing but its renewal is allowed with it.
pub(super) fn is_expired(identity: &NodeIdentity) -> bool {
    let leaf = identity.identity.chain.first();
    leaf.and_then(|leaf| transport::certificate_identity(leaf).ok()).is_some_and(|leaf| leaf.not_after <= now_ms())
}

/// Renews an expired certificate over a connection for enrolment: the signature of the request by the key that
/// the control plane has pinned proves who asks. The control plane is verified by its authority as always.
pub(super) async fn renew_expired(store: &IdentityStore, identity: &NodeIdentity) -> Result<(), SessionEnd> {
    let config = transport::client_config(None, &identity.authorities, transport::ENROL)?;
    let (_, connection) = super::dial(&identity.addresses, &config, transport::ENROL).await?;
    let renewed = renew(&connection, store, identity).await;
    transport::Close::Done.close(&connection);
    renewed
}

async fn renew(connection: &Connection, store: &IdentityStore, identity: &NodeIdentity) -> Result<(), SessionEnd> {
    let csr = transport::signing_request(&store.key()?)?;
    let request = RenewRequest { csr: csr.try_into()? };
    match stream::ask(connection, &request, RENEW_DEADLINE).await? {
        EnrolReply::Refused(cause) => Err(SessionEnd::Refused { cause, retry: true }),
        EnrolReply::Issued { server, chain, authorities } => {
            let chain = chain.iter().map(|der| hex::encode(&**der)).collect();
            let authorities = authorities.iter().map(|der| hex::encode(&**der)).collect();
            let addresses = identity.addresses.clone();
            Ok(store.save(&Certificates { server, addresses, chain, authorities })?)
        }
    }
}
