//! Reading shares, from the source's side and from the targets'.

use super::{
    SHARE,
    standing::{self, View},
};
use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    service::container,
    store::{
        scope::Scope,
        share::{self, Share, Side, Target},
    },
};
use hoody_protocol::{
    id::{ContainerId, RealmId, ShareId},
    time::now_ms,
};

/// Which of a container's shares a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// For containers (true), or for projects (false).
    pub for_containers: Option<bool>,
    /// With this label.
    pub label: Option<String>,
    /// Failed, or not.
    pub failed: Option<bool>,
    /// Enabled, or not.
    pub enabled: Option<bool>,
    /// Also those that are over.
    pub expired: bool,
    /// Of this realm.
    pub realm: Option<RealmId>,
}

/// A share from a target's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// The share, and how it fares.
    pub view: View,
    /// The container's choice, or what holds without one; `None` where no container is asked for.
    pub mount: Option<bool>,
}

fn is_over(share: &Share) -> bool {
    share.expired || share.expires_at.is_some_and(|at| at <= now_ms() as i64)
}

async fn views(app: &App, shares: Vec<Share>) -> Result<Vec<View>, ServiceError> {
    let mut views = Vec::with_capacity(shares.len());
    for share in shares {
        views.push(standing::view(app, share).await?);
    }
    Ok(views)
}

/// The shares of a container's folders.
pub async fn list(
    app: &App,
    caller: &Caller,
    source: ContainerId,
    filter: ListFilter,
) -> Result<Vec<View>, ServiceError> {
    container::get(app, caller, source).await?;
    let mut shares = share::of_source(app.store.reader(), source).await?;
    shares.retain(|share| {
        filter.for_containers.is_none_or(|wanted| wanted == matches!(share.target, Target::Container(_)))
            && filter.label.as_ref().is_none_or(|label| share.label.as_ref() == Some(label))
            && filter.enabled.is_none_or(|enabled| share.enabled == enabled)
            && filter.realm.is_none_or(|realm| share.realms.contains(&realm))
            && (filter.expired || !is_over(share))
    });
    let mut views = views(app, shares).await?;
    views.retain(|view| filter.failed.is_none_or(|failed| view.standing.failed == failed));
    Ok(views)
}

/// One share of a container's folders.
pub async fn get(app: &App, caller: &Caller, source: ContainerId, id: ShareId) -> Result<View, ServiceError> {
    container::get(app, caller, source).await?;
    let share = share::get(app.store.reader(), id).await?.filter(|share| share.source == source);
    standing::view(app, share.ok_or(ServiceError::NotFound(SHARE))?).await
}

/// The shares of every container that the caller sees, without those that are over.
pub async fn list_all(app: &App, caller: &Caller, realm: Option<RealmId>) -> Result<Vec<View>, ServiceError> {
    let shares = share::list(&app.store, caller.user, Side::Outgoing, &Scope::of(caller), realm).await?;
    views(app, shares).await
}

/// The shares for a container, without those that are over.
pub async fn list_incoming(app: &App, caller: &Caller, target: ContainerId) -> Result<Vec<Incoming>, ServiceError> {
    let row = container::get(app, caller, target).await?;
    let mut incoming = Vec::new();
    for share in share::incoming(app.store.reader(), target, row.spec.project).await? {
        if is_over(&share) {
            continue;
        }
        let choice = share::choice(app.store.reader(), share.id, target).await?;
        let mount = Some(choice.map_or(share.accepted, |choice| choice.mount));
        incoming.push(Incoming { view: standing::view(app, share).await?, mount });
    }
    Ok(incoming)
}

/// The shares for every container and project that the caller sees.
pub async fn list_incoming_all(
    app: &App,
    caller: &Caller,
    realm: Option<RealmId>,
) -> Result<Vec<Incoming>, ServiceError> {
    let shares = share::list(&app.store, caller.user, Side::Incoming, &Scope::of(caller), realm).await?;
    let views = views(app, shares).await?;
    Ok(views.into_iter().map(|view| Incoming { view, mount: None }).collect())
}
