//! The caller's record: looking through it and removing from it. A tenant's is what has them as owner;
//! operators see their own and, beside it, what belongs to no tenant. Beside their own record everybody sees
//! the events of projects that are shared with them, as long as they are; only the owner removes those.

use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    event::Event,
    store::{
        Store, StoreError,
        event::{self as store, Filter, Slice, Stats},
        project_permission,
        scope::Scope,
    },
};
use hoody_protocol::{id::EventId, time::now_ms};

/// Days of the longest retention that can be asked for.
pub const MAX_RETENTION_DAYS: i64 = 365;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const EVENT: &str = "event";

/// `filter`, narrowed to what the caller may see.
pub fn visible(caller: &Caller, filter: Filter) -> Filter {
    Filter { shared: true, ..own(caller, filter) }
}

/// `filter`, narrowed to the caller's own record.
fn own(caller: &Caller, mut filter: Filter) -> Filter {
    filter.owner = Some(caller.user);
    filter.operators = caller.is_admin;
    filter.scope = Scope::of(caller);
    filter
}

/// A part of what the caller may see, and how many events the filter lets through in all.
pub async fn list(app: &App, caller: &Caller, filter: Filter, slice: Slice) -> Result<(Vec<Event>, u64), ServiceError> {
    Ok(store::list(&app.store, &visible(caller, filter), slice).await?)
}

/// One event that the caller may see.
pub async fn get(app: &App, caller: &Caller, id: EventId) -> Result<Event, ServiceError> {
    let seen = visible(caller, Filter::default());
    let found = store::get(&app.store, id).await?.filter(|event| seen.matches(event));
    let event = found.ok_or(ServiceError::NotFound(EVENT))?;
    if may_read(&app.store, &seen, &event).await? { Ok(event) } else { Err(ServiceError::NotFound(EVENT)) }
}

/// True where the event is in a record of `seen`, or its project is shared with their owner at this moment.
pub async fn may_read(store: &Store, seen: &Filter, event: &Event) -> Result<bool, StoreError> {
    match (seen.is_own(event), event.project, seen.owner) {
        (true, ..) => Ok(true),
        (false, Some(project), Some(user)) => {
            Ok(project_permission::level(store.reader(), project, user).await?.is_some())
        }
        _ => Ok(false),
    }
}

/// Removes one event of the caller's record.
pub async fn delete(app: &App, caller: &Caller, id: EventId) -> Result<(), ServiceError> {
    if store::delete(&app.store, &own(caller, Filter::default()), Some(id)).await? > 0 {
        return Ok(());
    }
    let event = get(app, caller, id).await?;
    if own(caller, Filter::default()).is_own(&event) {
        return Err(ServiceError::Conflict("the event is being delivered: try again".to_owned()));
    }
    Err(ServiceError::Forbidden("only the owner of the project removes its events: ask them".to_owned()))
}

/// Removes what the filter lets through; how many events it were.
pub async fn bulk_delete(app: &App, caller: &Caller, filter: Filter) -> Result<u64, ServiceError> {
    if filter == Filter::default() {
        return Err(ServiceError::invalid(
            "before_date",
            "is required where no other filter says which events: nothing was deleted",
        ));
    }
    Ok(store::delete(&app.store, &own(caller, filter), None).await?)
}

/// Removes what is older than so many days; how many events it were, and the time before which they were.
pub async fn clean_up(app: &App, caller: &Caller, days: i64) -> Result<(u64, i64), ServiceError> {
    if !(1..=MAX_RETENTION_DAYS).contains(&days) {
        let problem = format!("must be a whole number from 1 to {MAX_RETENTION_DAYS}");
        return Err(ServiceError::invalid("retention_days", problem));
    }
    let cutoff = now_ms() as i64 - days * DAY_MS;
    let filter = Filter { before: Some(cutoff), ..Filter::default() };
    Ok((store::delete(&app.store, &own(caller, filter), None).await?, cutoff))
}

/// What the caller may see, counted.
pub async fn stats(app: &App, caller: &Caller, filter: Filter) -> Result<Stats, ServiceError> {
    Ok(store::stats(&app.store, &visible(caller, filter)).await?)
}
