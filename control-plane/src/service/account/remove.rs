//! Removing an account, which ends its sessions and tokens with the same commit.

use crate::{
    app::App,
    error::ServiceError,
    store::{StoreError, user},
};
use hoody_protocol::id::UserId;

/// Removes the account with its projects. One that still has containers stays: they must be deleted first.
pub async fn remove(app: &App, id: UserId) -> Result<(), ServiceError> {
    let found = user::by_id(&app.store, id).await?.ok_or(ServiceError::NotFound("user"))?;
    let mut tx = app.store.begin().await?;
    if found.is_admin && !found.is_banned && user::administrators(&mut tx).await? == 1 {
        let message = "this is the last administrator: make another one first";
        return Err(ServiceError::Conflict(message.to_owned()));
    }
    match user::delete(&mut tx, id).await {
        Ok(true) => {}
        Ok(false) => return Err(ServiceError::NotFound("user")),
        Err(StoreError::MissingReference) => {
            let message = "the account still has containers: delete its projects first";
            return Err(ServiceError::Conflict(message.to_owned()));
        }
        Err(error) => return Err(error.into()),
    }
    tx.commit().await.map_err(StoreError::from)?;
    tracing::info!(user = %id, "an account was removed");
    Ok(())
}
