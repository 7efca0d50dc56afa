//! The caller's record: looking through it and removing from it. A tenant's is what has them as owner;
//! operators see their own and, beside it, what belongs to no tenant.

use crate::{
    app::App,
    caller::Caller,
    error::ServiceError,
    event::Event,
    store::{
        event::{self as store, Filter, Slice, Stats},
        scope::Scope,
    },
};
use hoody_protocol::{id::EventId, time::now_ms};

/// Days of the longest retention that can be asked for.
pub const MAX_RETENTION_DAYS: i64 = 365;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const EVENT: &str = "event";

/// `filter`, narrowed to what the caller may see.
pub fn visible(caller: &Caller, mut filter: Filter) -> Filter {
    filter.owner = Some(caller.user);
    filter.operators = caller.is_admin;
    filter.scope = Scope::of(caller);
    filter
}

/// A part of the caller's record, and how many events the filter lets through in all.
pub async fn list(app: &App, caller: &Caller, filter: Filter, slice: Slice) -> Result<(Vec<Event>, u64), ServiceError> {
    Ok(store::list(&app.store, &visible(caller, filter), slice).await?)
}

/// One event of the caller's record.
pub async fn get(app: &App, caller: &Caller, id: EventId) -> Result<Event, ServiceError> {
    let seen = visible(caller, Filter::default());
    let found = store::get(&app.store, id).await?.filter(|event| seen.matches(event));
    found.ok_or(ServiceError::NotFound(EVENT))
}

/// Removes one event of the caller's record.
pub async fn delete(app: &App, caller: &Caller, id: EventId) -> Result<(), ServiceError> {
    match store::delete(&app.store, &visible(caller, Filter::default()), Some(id)).await? {
        0 => Err(ServiceError::NotFound(EVENT)),
        _ => Ok(()),
    }
}

/// Removes what the filter lets through; how many events it were.
pub async fn bulk_delete(app: &App, caller: &Caller, filter: Filter) -> Result<u64, ServiceError> {
    if filter == Filter::default() {
        return Err(ServiceError::invalid(
            "before_date",
            "is required where no other filter says which events: nothing was deleted",
        ));
    }
    Ok(store::delete(&app.store, &visible(caller, filter), None).await?)
}

/// Removes what is older than so many days; how many events it were, and the time before which they were.
pub async fn clean_up(app: &App, caller: &Caller, days: i64) -> Result<(u64, i64), ServiceError> {
    if !(1..=MAX_RETENTION_DAYS).contains(&days) {
        let problem = format!("must be a whole number from 1 to {MAX_RETENTION_DAYS}");
        return Err(ServiceError::invalid("retention_days", problem));
    }
    let cutoff = now_ms() as i64 - days * DAY_MS;
    let filter = Filter { before: Some(cutoff), ..Filter::default() };
    Ok((store::delete(&app.store, &visible(caller, filter), None).await?, cutoff))
}

/// The caller's record, counted.
pub async fn stats(app: &App, caller: &Caller, filter: Filter) -> Result<Stats, ServiceError> {
    Ok(store::stats(&app.store, &visible(caller, filter)).await?)
}
