//! The ends of shares. The nodes know them too, and unmount without being told where they cannot be reached.

use super::apply::{apply, lock, told};
use crate::{
    app::App,
    error::ServiceError,
    event::{Actor, EventKind},
    store::{StoreError, event, share},
};
use hoody_protocol::{id::ShareId, time::now_ms};

/// Shares that are looked at in one round.
const BATCH: u32 = 100;
/// How long before its end a share is told to end soon.
const SOON_MS: i64 = 24 * 60 * 60 * 1000;

/// Ends what is over; how many.
pub async fn end_due(app: &App) -> Result<usize, ServiceError> {
    let due = share::due(app.store.reader(), now_ms() as i64, BATCH).await?;
    for id in &due {
        end(app, *id).await?;
    }
    Ok(due.len())
}

async fn end(app: &App, id: ShareId) -> Result<(), ServiceError> {
    let Some(known) = share::get(app.store.reader(), id).await? else { return Ok(()) };
    let mut tx = app.store.begin().await?;
    let concerned = lock(&mut tx, known.source, known.target).await?;
    let now = now_ms() as i64;
    // Another replica may have been first, or its end was put off.
    let Some(mut share) = share::lock(&mut tx, id).await? else { return Ok(()) };
    if share.expired || share.expires_at.is_none_or(|at| at > now) {
        return tx.rollback().await.map_err(|error| StoreError::from(error).into());
    }
    share.expired = true;
    share::update(&mut tx, &share).await?;
    let changed = apply(&mut tx, &concerned, Actor::System).await?;
    event::insert(&mut tx, &told(&share, EventKind::StorageShareExpired, Actor::System)).await?;
    tx.commit().await.map_err(StoreError::from)?;
    changed.iter().for_each(|row| app.nodes.wake(row.server));
    Ok(())
}

/// Tells of what ends within a day, once each; how many.
pub async fn tell_ending(app: &App) -> Result<usize, ServiceError> {
    let soon = now_ms() as i64 + SOON_MS;
    let ending = share::ending(app.store.reader(), soon, BATCH).await?;
    for id in &ending {
        let mut tx = app.store.begin().await?;
        let Some(mut share) = share::lock(&mut tx, *id).await? else { continue };
        if share.expired || share.expiry_notified || share.expires_at.is_none_or(|at| at > soon) {
            continue;
        }
        share.expiry_notified = true;
        share::update(&mut tx, &share).await?;
        let told = told(&share, EventKind::StorageShareExpiringSoon, Actor::System);
        event::insert(&mut tx, &told.with("expires_at", share.expires_at)).await?;
        tx.commit().await.map_err(StoreError::from)?;
    }
    Ok(ending.len())
}
