//! Events as clients see them.

use crate::{
    api::time::rfc3339,
    event::Event,
    store::event::{Slice, Stats},
};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// An event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RecordedEventData)]
pub(super) struct EventData {
    id: String,
    event_type: &'static str,
    resource_type: &'static str,
    resource_id: String,
    /// Whose record it is in; empty: the operators'.
    user_id: String,
    /// Details; `actor` says who brought it about.
    #[schema(value_type = Object)]
    payload: Map<String, Value>,
    realm_ids: Vec<String>,
    created_at: String,
}

impl From<&Event> for EventData {
    fn from(event: &Event) -> Self {
        Self {
            id: event.id.to_string(),
            event_type: event.kind.as_str(),
            resource_type: event.kind.resource().as_str(),
            resource_id: event.resource.clone(),
            user_id: event.owner.map(|owner| owner.to_string()).unwrap_or_default(),
            payload: event.payload.clone(),
            realm_ids: event.realms.iter().map(ToString::to_string).collect(),
            created_at: rfc3339(event.created_at),
        }
    }
}

/// A part of the record.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventListData {
    events: Vec<EventData>,
    pagination: OffsetPagination,
}

#[derive(Debug, Serialize, ToSchema)]
struct OffsetPagination {
    total: u64,
    limit: u64,
    offset: u64,
    has_more: bool,
}

impl EventListData {
    pub(super) fn new(events: Vec<Event>, slice: Slice, total: u64) -> Self {
        let Slice { limit, offset, .. } = slice;
        let has_more = offset.saturating_add(events.len() as u64) < total;
        let events = events.iter().map(Into::into).collect();
        Self { events, pagination: OffsetPagination { total, limit, offset, has_more } }
    }
}

/// The record, counted.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RecordStatsData)]
pub(super) struct StatsData {
    total_events: u64,
    by_type: BTreeMap<String, u64>,
    by_resource: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_event: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    newest_event: Option<String>,
}

impl From<Stats> for StatsData {
    fn from(stats: Stats) -> Self {
        Self {
            total_events: stats.total,
            by_type: stats.by_kind.into_iter().collect(),
            by_resource: stats.by_resource.into_iter().collect(),
            oldest_event: stats.oldest.map(rfc3339),
            newest_event: stats.newest.map(rfc3339),
        }
    }
}
