//! Looking through the record, and removing from it.

use super::{COLUMNS, corrupt, read};
use crate::{
    event::{Event, EventKind, ResourceKind},
    store::{
        Store, StoreError, project_permission,
        scope::{Scope, pattern},
    },
};
use hoody_protocol::id::{ContainerId, EventId, ProjectId, RealmId, UserId};
use sqlx::{Any, AssertSqlSafe, Row, query::Query};

/// Shared projects of one user whose events are looked through: the newest.
const MAX_SHARED: u32 = 500;
/// The place in the order of delivery, behind all others before the publisher has given it.
const PLACE: &str = "COALESCE(sequence, 9223372036854775807)";

/// Which events are meant. Whose they are is always said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// In this user's record.
    pub owner: Option<UserId>,
    /// Also in the operators' record.
    pub operators: bool,
    /// Also of the projects that are shared with the owner at the time of the query.
    pub shared: bool,
    /// Of this kind.
    pub kind: Option<EventKind>,
    /// About this kind of resource.
    pub resource_kind: Option<ResourceKind>,
    /// About this resource.
    pub resource: Option<String>,
    /// Of this project.
    pub project: Option<ProjectId>,
    /// Of this container.
    pub container: Option<ContainerId>,
    /// In this realm.
    pub realm: Option<RealmId>,
    /// In the scope of the request.
    pub scope: Scope,
    /// Not before this, milliseconds.
    pub from: Option<i64>,
    /// Before this, milliseconds.
    pub before: Option<i64>,
}

/// Which part of the record, in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// `created_at` or `event_type`; becomes part of the query's text.
    pub by: &'static str,
    /// Largest first.
    pub descending: bool,
    /// At most this many.
    pub limit: u64,
    /// Without the first so many.
    pub offset: u64,
}

/// What the record holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// Events.
    pub total: u64,
    /// Event type → how many.
    pub by_kind: Vec<(String, u64)>,
    /// Resource type → how many.
    pub by_resource: Vec<(String, u64)>,
    /// When the first was written.
    pub oldest: Option<i64>,
    /// When the last was written.
    pub newest: Option<i64>,
}

enum Value {
    Text(String),
    Number(i64),
}

type AnyQuery<'q> = Query<'q, Any, <Any as sqlx::Database>::Arguments>;

impl Filter {
    /// True where the event is in a record that is meant: not of a project that is merely shared.
    pub fn is_own(&self, event: &Event) -> bool {
        match event.owner {
            Some(owner) => self.owner == Some(owner),
            None => self.operators,
        }
    }

    /// True where the event is meant, provided that its project is shared where it is not their own. Says the
    /// same as the conditions below.
    pub fn matches(&self, event: &Event) -> bool {
        (self.is_own(event) || (self.shared && event.project.is_some()))
            && self.kind.is_none_or(|kind| kind == event.kind)
            && self.resource_kind.is_none_or(|kind| kind == event.kind.resource())
            && self.resource.as_ref().is_none_or(|resource| *resource == event.resource)
            && self.project.is_none_or(|project| event.project == Some(project))
            && self.container.is_none_or(|container| event.container == Some(container))
            && self.realm.is_none_or(|realm| event.realms.contains(&realm))
            && self.scope.sees(&event.realms)
            && self.from.is_none_or(|from| event.created_at >= from)
            && self.before.is_none_or(|before| event.created_at < before)
    }

    /// The projects that are shared with the owner now, where they are meant.
    async fn projects(&self, store: &Store) -> Result<Vec<ProjectId>, StoreError> {
        match self.owner {
            Some(owner) if self.shared => project_permission::shared_with(store, owner, MAX_SHARED).await,
            _ => Ok(Vec::new()),
        }
    }

    /// The condition with `$n` for each value; values are always bound, never part of the text. `projects` are
    /// those that are shared.
    fn conditions(&self, projects: &[ProjectId]) -> (String, Vec<Value>) {
        let mut values = Vec::new();
        let mut records = Vec::new();
        if let Some(owner) = self.owner {
            values.push(owner.to_string());
            records.push("user_id = $1".to_owned());
        }
        if self.operators {
            records.push("user_id IS NULL".to_owned());
        }
        if !projects.is_empty() {
            let first = values.len();
            values.extend(projects.iter().map(ProjectId::to_string));
            let places: Vec<String> = (first + 1..=values.len()).map(|place| format!("${place}")).collect();
            records.push(format!("project_id IN ({})", places.join(", ")));
        }
        let records = if records.is_empty() { "1 = 0".to_owned() } else { format!("({})", records.join(" OR ")) };
        let mut conditions = vec![records, self.scope.condition("realm_ids", &mut values)];
        let mut values: Vec<Value> = values.into_iter().map(Value::Text).collect();
        let mut add = |condition: &str, value: Value| {
            values.push(value);
            conditions.push(format!("{condition} ${}", values.len()));
        };
        let texts = [
            ("event_type =", self.kind.map(|kind| kind.as_str().to_owned())),
            ("resource_type =", self.resource_kind.map(|kind| kind.as_str().to_owned())),
            ("resource_id =", self.resource.clone()),
            ("project_id =", self.project.map(|id| id.to_string())),
            ("container_id =", self.container.map(|id| id.to_string())),
            ("realm_ids LIKE", self.realm.map(pattern)),
        ];
        for (condition, value) in texts {
            if let Some(value) = value {
                add(condition, Value::Text(value));
            }
        }
        for (condition, value) in [("created_at >=", self.from), ("created_at <", self.before)] {
            if let Some(value) = value {
                add(condition, Value::Number(value));
            }
        }
        (conditions.join(" AND "), values)
    }
}

fn query(sql: String, values: Vec<Value>) -> AnyQuery<'static> {
    values.into_iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, value| match value {
        Value::Text(text) => query.bind(text),
        Value::Number(number) => query.bind(number),
    })
}

/// A part of the record, and how many events the filter lets through in all.
pub async fn list(store: &Store, filter: &Filter, slice: Slice) -> Result<(Vec<Event>, u64), StoreError> {
    let projects = filter.projects(store).await?;
    let (conditions, values) = filter.conditions(&projects);
    let count = format!("SELECT CAST(COUNT(*) AS BIGINT) AS total FROM events WHERE {conditions}");
    let total: i64 = query(count, values).fetch_one(store.reader()).await?.try_get("total")?;
    let direction = if slice.descending { "DESC" } else { "ASC" };
    let sql = format!(
        "SELECT {COLUMNS} FROM events WHERE {conditions} ORDER BY {} {direction}, {PLACE} {direction}, position {direction}, \
         id {direction} LIMIT {} OFFSET {}",
        slice.by, slice.limit, slice.offset
    );
    let (_, values) = filter.conditions(&projects);
    let rows = query(sql, values).fetch_all(store.reader()).await?;
    Ok((rows.iter().map(read).collect::<Result<_, _>>()?, total as u64))
}

/// At most `limit` events behind `after` up to `until` in the order of delivery.
pub async fn replay(
    store: &Store,
    filter: &Filter,
    after: i64,
    until: i64,
    limit: u32,
) -> Result<Vec<Event>, StoreError> {
    let (conditions, mut values) = filter.conditions(&filter.projects(store).await?);
    values.extend([Value::Number(after), Value::Number(until)]);
    let sql = format!(
        "SELECT {COLUMNS} FROM events WHERE {conditions} AND sequence > ${} AND sequence <= ${} \
         ORDER BY sequence LIMIT {limit}",
        values.len() - 1,
        values.len()
    );
    query(sql, values).fetch_all(store.reader()).await?.iter().map(read).collect()
}

/// The event with this id, whosever it is.
pub async fn get(store: &Store, id: EventId) -> Result<Option<Event>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM events WHERE id = $1");
    let row = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string()).fetch_optional(store.reader()).await?;
    row.as_ref().map(read).transpose()
}

/// Removes what the filter lets through and was published; how many events it were.
pub async fn delete(store: &Store, filter: &Filter, id: Option<EventId>) -> Result<u64, StoreError> {
    let (mut conditions, mut values) = filter.conditions(&filter.projects(store).await?);
    if let Some(id) = id {
        values.push(Value::Text(id.to_string()));
        conditions.push_str(&format!(" AND id = ${}", values.len()));
    }
    // What was not delivered yet stays until it was.
    let sql = format!("DELETE FROM events WHERE sequence IS NOT NULL AND {conditions}");
    let mut tx = store.begin().await?;
    let deleted = query(sql, values).execute(&mut *tx).await?.rows_affected();
    tx.commit().await?;
    Ok(deleted)
}

/// Removes at most `limit` published events of all users from before `before`, and notes up to where; how many it
/// were.
pub async fn delete_before(store: &Store, before: i64, limit: u32) -> Result<u64, StoreError> {
    let mut tx = store.begin().await?;
    let deleted: Vec<i64> = sqlx::query_scalar(
        "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE created_at < $1 AND sequence IS NOT NULL \
         ORDER BY created_at LIMIT $2) RETURNING sequence",
    )
    .bind(before)
    .bind(i64::from(limit))
    .fetch_all(&mut *tx)
    .await?;
    if let Some(last) = deleted.iter().max() {
        sqlx::query("UPDATE event_sequence SET removed_until = $1 WHERE id = 1 AND removed_until < $1")
            .bind(last)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(deleted.len() as u64)
}

/// What the filter lets through, counted.
pub async fn stats(store: &Store, filter: &Filter) -> Result<Stats, StoreError> {
    let (conditions, values) = filter.conditions(&filter.projects(store).await?);
    let sql = format!(
        "SELECT event_type, resource_type, CAST(COUNT(*) AS BIGINT) AS number, MIN(created_at) AS oldest, \
         MAX(created_at) AS newest FROM events WHERE {conditions} GROUP BY event_type, resource_type ORDER BY event_type"
    );
    let rows = query(sql, values).fetch_all(store.reader()).await?;
    let mut stats = Stats::default();
    for row in rows {
        let kind: EventKind = row.try_get::<String, _>("event_type")?.parse().map_err(corrupt("events.event_type"))?;
        let number = row.try_get::<i64, _>("number")? as u64;
        let resource = kind.resource().as_str();
        stats.total += number;
        stats.by_kind.push((kind.as_str().to_owned(), number));
        match stats.by_resource.iter_mut().find(|(found, _)| found == resource) {
            Some((_, sum)) => *sum += number,
            None => stats.by_resource.push((resource.to_owned(), number)),
        }
        let (oldest, newest): (i64, i64) = (row.try_get("oldest")?, row.try_get("newest")?);
        stats.oldest = Some(stats.oldest.map_or(oldest, |before| before.min(oldest)));
        stats.newest = Some(stats.newest.map_or(newest, |before| before.max(newest)));
    }
    Ok(stats)
}
