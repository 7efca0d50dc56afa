//! The alias of a snapshot: only the control plane knows it.

use super::{AliasInput, check_unused, lock, ready};
use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    event::Actor,
    store::{
        StoreError,
        container::ContainerRow,
        snapshot::{self, SnapshotRow},
    },
};
use hoody_protocol::id::ContainerId;

/// Gives the snapshot another alias, or none.
pub async fn rename(
    app: &App,
    caller: &Caller,
    id: ContainerId,
    called: &str,
    input: AliasInput,
) -> Result<(ContainerRow, SnapshotRow), ServiceError> {
    let alias = input.check()?;
    let mut tx = app.store.begin().await?;
    let row = lock(&mut tx, caller, id).await?;
    let all = snapshot::list(&mut *tx, id).await?;
    let snapshot = ready(all.clone(), called)?;
    let others: Vec<SnapshotRow> = all.into_iter().filter(|other| other.id != snapshot.id).collect();
    check_unused(&others, alias.as_deref(), "alias")?;
    if alias != snapshot.alias {
        snapshot::set_alias(&mut tx, snapshot.id, alias.as_deref()).await?;
        snapshot::tell_renamed(&mut tx, &row, Actor::User(caller.user), &snapshot, alias.as_deref()).await?;
        tx.commit().await.map_err(StoreError::from)?;
    }
    Ok((row, SnapshotRow { alias, ..snapshot }))
}
