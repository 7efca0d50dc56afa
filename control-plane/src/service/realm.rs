//! Realms: labels that an account gives to its projects, containers and tokens. A realm exists as long as
//! something carries it.

use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    store::realm::{self as store, Usage},
};
use hoody_protocol::id::RealmId;
use std::collections::BTreeMap;

/// The account's realms that the request may see, and what carries them.
pub async fn list(app: &App, caller: &Caller) -> Result<BTreeMap<RealmId, Usage>, ServiceError> {
    let mut realms = store::list(&app.store, caller.user).await?;
    let scope = caller.realms();
    realms.retain(|realm, _| scope.is_empty() || scope.contains(realm));
    Ok(realms)
}
