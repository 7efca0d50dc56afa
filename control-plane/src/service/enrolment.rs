//! Join tokens and revocation: how servers come and go.

use crate::{
    app::App,
    error::ServiceError,
    nodes::authority,
    store::{join_token, node, node::ServerStatus},
};
use hoody_protocol::{
    bounded::Text,
    id::ServerId,
    join_token::JoinToken,
    time::{UnixMs, now_ms},
};
use std::time::Duration;

/// Validity of a join token.
pub const JOIN_TOKEN_LIFETIME: Duration = Duration::from_secs(15 * 60);
/// Random bytes of a join token's secret.
const SECRET_BYTES: usize = 32;
/// Expired tokens are kept this long, so that their use is answered with "expired" and not "unknown".
const KEEP_EXPIRED: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes a join token for the server; its text form, shown once, and when it expires.
pub async fn create_join_token(app: &App, server: ServerId) -> Result<(String, UnixMs), ServiceError> {
    let node = node::by_id(&app.store, server).await?.ok_or(ServiceError::NotFound("server"))?;
    match node.status {
        ServerStatus::Created | ServerStatus::Enrolled => {}
        ServerStatus::Disabled => return Err(ServiceError::Conflict("the server is disabled: enable it first".into())),
        ServerStatus::Revoked => {
            return Err(ServiceError::Conflict("the server was revoked for good: create a new server".into()));
        }
    }
    let addresses = addresses(&app.config.node_public_addresses)?;
    let authorities = authority::open(&app.store, &app.keys).await.map_err(ServiceError::internal)?;
    let secret: [u8; SECRET_BYTES] = rand::random();
    let secret = hex::encode(secret);
    let now = now_ms();
    let expires_at = now + JOIN_TOKEN_LIFETIME.as_millis() as u64;
    let mut tx = app.store.begin().await?;
    join_token::forget_expired(&mut tx, now.saturating_sub(KEEP_EXPIRED.as_millis() as u64) as i64).await?;
    let hash = crate::nodes::secret_hash(&secret);
    join_token::insert(&mut tx, server, &hash, now as i64, expires_at as i64).await?;
    tx.commit().await.map_err(crate::store::StoreError::from)?;
    let secret = Text::try_from(secret).map_err(ServiceError::internal)?;
    let token = JoinToken { addresses, authority: authorities.present.digest(), secret };
    tracing::info!(%server, "a join token was made");
    Ok((token.reveal(), expires_at))
}

fn addresses(configured: &[String]) -> Result<hoody_protocol::bounded::List<Text<255>, 8>, ServiceError> {
    if configured.is_empty() {
        return Err(ServiceError::Unavailable(
            "the setting node_public_addresses is empty: set host:port under which servers reach this control plane"
                .to_owned(),
        ));
    }
    let texts = configured.iter().map(|address| Text::try_from(address.as_str())).collect::<Result<Vec<_>, _>>();
    texts
        .and_then(TryInto::try_into)
        .map_err(|error| ServiceError::Unavailable(format!("the setting node_public_addresses is {error}")))
}

/// Revokes the server for good: its connections are closed at once, here and, within a second or two, on
/// other replicas; its agent is never let in again.
pub async fn revoke(app: &App, server: ServerId) -> Result<(), ServiceError> {
    let mut tx = app.store.begin().await?;
    let found = node::revoke(&mut tx, server, now_ms() as i64).await?;
    tx.commit().await.map_err(crate::store::StoreError::from)?;
    if !found {
        return Err(ServiceError::NotFound("server"));
    }
    app.nodes.close(server);
    tracing::info!(%server, "the server was revoked");
    Ok(())
}
