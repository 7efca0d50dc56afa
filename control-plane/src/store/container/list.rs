//! Pages of containers.

use super::{ContainerRow, SELECT, read};
use crate::store::{
    Store, StoreError,
    scope::{self, Scope},
};
use hoody_protocol::id::{ProjectId, RealmId, UserId};

/// Which containers a list shows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Of this owner, or in a project for which they have a permission.
    pub visible_to: Option<UserId>,
    /// In this project.
    pub project: Option<ProjectId>,
    /// In this realm.
    pub realm: Option<RealmId>,
    /// What the request may see.
    pub scope: Scope,
    /// Of this runtime.
    pub runtime: Option<String>,
    /// Also those that are being deleted.
    pub deleting: bool,
    /// `Some(now)`: not those on servers whose rental has ended by then.
    pub not_expired_at: Option<i64>,
}

/// Which part of a list, in which order. `by` becomes part of the query: only ever a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// A column of `containers`.
    pub by: &'static str,
    /// Largest first.
    pub descending: bool,
    /// At most this many.
    pub limit: u64,
    /// Without the first so many.
    pub offset: u64,
}

/// A page of containers, and how many the filter lets through in all.
pub async fn list(store: &Store, filter: &Filter, slice: Slice) -> Result<(Vec<ContainerRow>, u64), StoreError> {
    let (conditions, values) = conditions(filter);
    let expired = filter.not_expired_at.map(|now| format!(" AND (s.rental_end IS NULL OR s.rental_end > {now})"));
    let filtered = format!("WHERE {conditions}{}", expired.unwrap_or_default());
    let count =
        format!("SELECT CAST(COUNT(*) AS BIGINT) FROM containers c JOIN servers s ON s.id = c.server_id {filtered}");
    let mut query = sqlx::query_scalar(sqlx::AssertSqlSafe(count));
    for value in &values {
        query = query.bind(value.clone());
    }
    let total: i64 = query.fetch_one(store.reader()).await?;

    let direction = if slice.descending { "DESC" } else { "ASC" };
    let (limit, offset) = (slice.limit, slice.offset);
    let page = format!("{SELECT} {filtered} ORDER BY c.{} {direction}, c.id LIMIT {limit} OFFSET {offset}", slice.by);
    let mut query = sqlx::query(sqlx::AssertSqlSafe(page));
    for value in values {
        query = query.bind(value);
    }
    let rows = query.fetch_all(store.reader()).await?.iter().map(read).collect::<Result<_, _>>()?;
    Ok((rows, total as u64))
}

/// The condition with `$n` for each of the values; values are always bound, never part of the text.
fn conditions(filter: &Filter) -> (String, Vec<String>) {
    let mut conditions = vec!["1 = 1".to_owned()];
    let mut values = Vec::new();
    if let Some(user) = filter.visible_to {
        conditions.push(
            "(c.owner_id = $1 OR c.project_id IN (SELECT project_id FROM project_permissions WHERE user_id = $1))"
                .to_owned(),
        );
        values.push(user.to_string());
    }
    let mut add = |condition: &str, value: String| {
        values.push(value);
        conditions.push(format!("{condition} ${}", values.len()));
    };
    if let Some(project) = filter.project {
        add("c.project_id =", project.to_string());
    }
    if let Some(runtime) = &filter.runtime {
        add("c.runtime =", runtime.clone());
    }
    if let Some(realm) = &filter.realm {
        add("c.realm_ids LIKE", scope::pattern(*realm));
    }
    conditions.push(filter.scope.condition("c.realm_ids", &mut values));
    if !filter.deleting {
        conditions.push("c.deleted_at IS NULL".to_owned());
    }
    (conditions.join(" AND "), values)
}
