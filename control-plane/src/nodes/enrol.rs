//! Enrolment connections: the only ones without a client certificate. One question each: a join token for
//! the first certificate, or, from a node whose certificate has expired, a signing request by its pinned
//! key for the next one.

use super::{
    authority::Authorities,
    listener::Context,
    refusal::{self, INVALID_REQUEST, UNKNOWN_SERVER, WRONG_KEY, unavailable},
};
use crate::store::{
    StoreError,
    join_token::{self, Rejected},
    node::{self, ServerStatus},
};
use hoody_protocol::{
    bounded::{Bytes, List},
    container::Cause,
    enrol::{EnrolReply, EnrolRequest, MAX_DER, RenewRequest},
    id::ServerId,
    image::Digest,
    stream::{self, StreamError},
    time::now_ms,
    transport::{AuthorityError, CertificateDer, Close, PublicKey, verify_signing_request},
};
use quinn::Connection;
use std::time::{Duration, SystemTime};

/// Time for the whole exchange.
const DEADLINE: Duration = Duration::from_secs(10);
/// Time for the peer to close after the answer.
const LINGER: Duration = Duration::from_secs(5);

/// Serves one enrolment connection to its end.
pub(super) async fn serve(context: Context, connection: Connection) {
    let remote = connection.remote_address();
    match tokio::time::timeout(DEADLINE, exchange(&context, &connection)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::info!(%remote, error = &error as &dyn std::error::Error, "an enrolment broke off"),
        Err(_) => tracing::info!(%remote, "an enrolment took too long"),
    }
    // The peer closes when it has the answer; closing first could overtake it.
    let _ = tokio::time::timeout(LINGER, connection.closed()).await;
    Close::Done.close(&connection);
}

async fn exchange(context: &Context, connection: &Connection) -> Result<(), StreamError> {
    let (mut send, mut recv) = connection.accept_bi().await.map_err(quinn::ReadError::ConnectionLost)?;
    let reply = match stream::read_frame(&mut recv).await {
        Ok(frame) if frame.is::<EnrolRequest>() => match frame.decode::<EnrolRequest>() {
            Ok(request) => Ok(enrol(context, connection, request).await),
            Err(error) => Err(StreamError::from(error)),
        },
        Ok(frame) => match frame.decode::<RenewRequest>() {
            Ok(request) => Ok(renew_expired(context, request).await),
            Err(error) => Err(StreamError::from(error)),
        },
        Err(error) => Err(error),
    };
    match reply {
        Ok(reply) => {
            stream::write(&mut send, &reply).await?;
            let _ = send.finish();
            Ok(())
        }
        Err(error) => {
            refusal::refuse(&mut send, &mut recv, &error).await;
            let _ = send.finish();
            Err(error)
        }
    }
}

async fn enrol(context: &Context, connection: &Connection, request: EnrolRequest) -> EnrolReply {
    let remote = connection.remote_address();
    let key = match verify_signing_request(&request.csr) {
        Ok(key) => key,
        Err(error) => return EnrolReply::Refused(Cause::new(INVALID_REQUEST, error.to_string())),
    };
    let hash = secret_hash(&request.secret);
    match join_token::redeem(&context.app.store, &hash, &key, now_ms() as i64).await {
        Ok(Ok(server)) => {
            tracing::info!(%server, %remote, key = %key, "a server enrolled");
            // A link with the key before this one is no longer this server's.
            context.app.nodes.close(server);
            issue(&context.present(), server, &key)
        }
        Ok(Err(rejected)) => {
            tracing::warn!(%remote, ?rejected, "an enrolment was refused");
            EnrolReply::Refused(rejection(rejected))
        }
        Err(error) => failed(error),
    }
}

/// The form in which a token's secret is stored: SHA-256, hexadecimal.
pub(crate) fn secret_hash(secret: &str) -> String {
    Digest::of(secret.as_bytes()).hex()
}

fn rejection(rejected: Rejected) -> Cause {
    match rejected {
        Rejected::Unknown => {
            Cause::new("token_unknown", "this control plane did not issue the join token: make a new one")
        }
        Rejected::Expired => Cause::new("token_expired", "the join token has expired: make a new one"),
        Rejected::Used => Cause::new("token_used", "the join token was used before: make a new one"),
        Rejected::ShutOut => Cause::new("server_shut_out", "the server was disabled or revoked"),
        Rejected::WrongKey => Cause::new(
            WRONG_KEY,
            "the key is the identity of another server: remove the agent's state folder to make a new key",
        ),
    }
}

/// The certificate of the present key for a node whose old certificate has expired. The signing request
/// proves that the peer has the pinned key.
async fn renew_expired(context: &Context, request: RenewRequest) -> EnrolReply {
    let key = match verify_signing_request(&request.csr) {
        Ok(key) => key,
        Err(error) => return EnrolReply::Refused(Cause::new(INVALID_REQUEST, error.to_string())),
    };
    match node::by_key(&context.app.store, &key).await {
        Ok(Some(node)) => renewed(context, node, &key),
        Ok(None) => {
            EnrolReply::Refused(Cause::new(UNKNOWN_SERVER, "no server has this key: join with a new join token"))
        }
        Err(error) => failed(error),
    }
}

/// The next certificate over the live link: for the pinned key and no other.
pub(super) async fn renew(context: &Context, server: ServerId, request: &RenewRequest) -> EnrolReply {
    let key = match verify_signing_request(&request.csr) {
        Ok(key) => key,
        Err(error) => return EnrolReply::Refused(Cause::new(INVALID_REQUEST, error.to_string())),
    };
    match node::by_id(&context.app.store, server).await {
        Ok(Some(node)) => renewed(context, node, &key),
        Ok(None) => EnrolReply::Refused(Cause::new(UNKNOWN_SERVER, "the server was deleted")),
        Err(error) => failed(error),
    }
}

fn renewed(context: &Context, node: node::Node, key: &PublicKey) -> EnrolReply {
    if node.status != ServerStatus::Enrolled {
        return EnrolReply::Refused(rejection(Rejected::ShutOut));
    }
    if node.public_key != Some(*key) {
        return EnrolReply::Refused(Cause::new(WRONG_KEY, "a certificate is renewed for the key it was issued for"));
    }
    tracing::info!(server = %node.id, "a certificate was renewed");
    issue(&context.present(), node.id, key)
}

fn issue(authorities: &Authorities, server: ServerId, key: &PublicKey) -> EnrolReply {
    let issued = || -> Result<EnrolReply, IssueError> {
        let chain = authorities.issuing().issue_node(server, key, SystemTime::now())?;
        let authorities = der_list(&authorities.trusted())?;
        Ok(EnrolReply::Issued { server, chain: der_list(&chain)?, authorities })
    };
    issued().unwrap_or_else(failed)
}

#[derive(Debug, thiserror::Error)]
enum IssueError {
    #[error("issue a certificate")]
    Authority(#[from] AuthorityError),
    #[error("a certificate is too large to send")]
    Size(#[from] hoody_protocol::bounded::TooLong),
}

fn der_list(certificates: &[CertificateDer<'_>]) -> Result<List<Bytes<MAX_DER>, 4>, IssueError> {
    let items = certificates.iter().map(|der| Bytes::try_from(der.to_vec())).collect::<Result<Vec<_>, _>>()?;
    Ok(items.try_into()?)
}

fn failed(error: impl Into<Failure>) -> EnrolReply {
    let error: Failure = error.into();
    tracing::error!(error = &error as &dyn std::error::Error, "enrolment");
    EnrolReply::Refused(unavailable())
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("database")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Issue(#[from] IssueError),
}
