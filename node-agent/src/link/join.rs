//! `hoody-agent join <token>`: the first certificate. The control plane is verified by the fingerprint in
//! the token; the key is made here and stays here. Asking again with the same token and key, after a crash
//! for example, gives a certificate again.

use super::{
    DialError, dial,
    identity::{Certificates, IdentityError, IdentityStore},
};
use hoody_protocol::{
    bounded::Text,
    container::Cause,
    enrol::{EnrolReply, EnrolRequest},
    id::ServerId,
    join_token::JoinToken,
    stream::{self, AskError},
    transport,
};
use std::time::Duration;

/// The time the control plane has to issue a certificate.
const ENROL_DEADLINE: Duration = Duration::from_secs(20);

/// Why joining failed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The identity's files cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The control plane could not be reached, or is not the one that made the token.
    #[error("the control plane of the token could not be reached")]
    Dial(#[from] DialError),
    /// The TLS configuration cannot be made.
    #[error("the connection cannot be configured")]
    Transport(#[from] transport::TransportError),
    /// The key cannot be used.
    #[error("the node's key cannot be used")]
    Key(#[from] transport::IdentityError),
    /// No answer.
    #[error("the control plane did not answer")]
    Ask(#[from] AskError),
    /// No certificate.
    #[error("the control plane refused: {}", .0.message)]
    Refused(Cause),
    /// The answer is larger than allowed.
    #[error("the signing request is too large")]
    TooLarge(#[from] hoody_protocol::bounded::TooLong),
}

/// Enrols this node; gives its identity, which is saved on return.
pub async fn join(store: &IdentityStore, token: &JoinToken) -> Result<ServerId, JoinError> {
    let key = store.key()?;
    let request = EnrolRequest {
        secret: token.secret.clone(),
        csr: transport::signing_request(&key)?.try_into()?,
        agent_version: Text::truncated(env!("CARGO_PKG_VERSION")),
    };
    let addresses: Vec<String> = token.addresses.iter().map(ToString::to_string).collect();
    let (_, connection) = dial(&addresses, &transport::enrol_client_config(token.authority)?, transport::ENROL).await?;
    let reply: EnrolReply = stream::ask(&connection, &request, ENROL_DEADLINE).await?;
    transport::Close::Done.close(&connection);
    match reply {
        EnrolReply::Refused(cause) => Err(JoinError::Refused(cause)),
        EnrolReply::Issued { server, chain, authorities } => {
            let chain = chain.iter().map(|der| hex::encode(&**der)).collect();
            let authorities = authorities.iter().map(|der| hex::encode(&**der)).collect();
            store.save(&Certificates { server, addresses, chain, authorities })?;
            Ok(server)
        }
    }
}
