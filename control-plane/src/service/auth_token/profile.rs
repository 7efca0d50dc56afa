//! A token's public profile: what anybody who knows its public key may read.

use super::{
    Input,
    input::{check, public_key},
    write::change,
};
use crate::{app::App, caller::Caller, error::ServiceError, store::auth_token as store};
use hoody_protocol::{id::AuthTokenId, time::now_ms};
use serde_json::{Map, Value};

/// Changes the profile of the request's own token.
pub async fn update_profile(
    app: &App,
    caller: &Caller,
    id: AuthTokenId,
    input: Input,
) -> Result<store::AuthToken, ServiceError> {
    let input = check(input)?;
    change(app, caller, id, |token| {
        if let Some(key) = input.public_key {
            token.public_key = key;
        }
        if let Some(storage) = input.public_storage {
            token.public_storage = storage;
        }
        Ok(())
    })
    .await
}

/// The key in its one form, and what is stored with it. Profiles of tokens that do not work are not shown.
pub async fn public_profile(app: &App, key: &str) -> Result<(String, Option<Map<String, Value>>), ServiceError> {
    let key = public_key(key).map_err(|problem| ServiceError::invalid("public_key", problem))?;
    let token = store::by_public_key(&app.store, &key, now_ms() as i64).await?;
    let token = token.ok_or(ServiceError::NotFound("public profile"))?;
    Ok((key, token.public_storage))
}
