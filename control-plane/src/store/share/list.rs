//! Lists of shares. Those of one container are bounded by what it may have; those of a user are cut at a number.

use super::{SELECT, Share, read};
use crate::store::{
    Queries, Store, StoreError,
    scope::{self, Scope},
};
use hoody_protocol::id::{ContainerId, ProjectId, RealmId, UserId};
use sqlx::AssertSqlSafe;

/// The most shares that a user's list has.
const MAX_LISTED: u32 = 1000;
/// That the user `$1` sees what the row `{c}` of containers is.
const VISIBLE: &str =
    "({c}.owner_id = $1 OR {c}.project_id IN (SELECT project_id FROM project_permissions WHERE user_id = $1))";

/// From which end a user looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Shares of containers that they see.
    Outgoing,
    /// Shares for containers and projects that they see.
    Incoming,
}

/// Every share of the container's folders, newest first.
pub async fn of_source<'e>(queries: impl Queries<'e>, source: ContainerId) -> Result<Vec<Share>, StoreError> {
    let sql = format!("{SELECT} WHERE s.source_container_id = $1 ORDER BY s.created_at DESC, s.id DESC");
    sqlx::query(AssertSqlSafe(sql)).bind(source.to_string()).fetch_all(queries).await?.iter().map(read).collect()
}

/// Every share for the container, by itself or as one of its project, newest first.
pub async fn incoming<'e>(
    queries: impl Queries<'e>,
    container: ContainerId,
    project: ProjectId,
) -> Result<Vec<Share>, StoreError> {
    let sql = format!(
        "{SELECT} WHERE (s.target_container_id = $1 OR s.target_project_id = $2) AND s.source_container_id <> $1 \
         ORDER BY s.created_at DESC, s.id DESC"
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(container.to_string()).bind(project.to_string());
    query.fetch_all(queries).await?.iter().map(read).collect()
}

/// The newest shares on one side of the user that are not over, in the scope, and of the realm where one is named. A
/// share belongs to the realms of its source.
pub async fn list(
    store: &Store,
    user: UserId,
    side: Side,
    scope: &Scope,
    realm: Option<RealmId>,
) -> Result<Vec<Share>, StoreError> {
    let mut values = vec![user.to_string()];
    let visible = match side {
        Side::Outgoing => VISIBLE.replace("{c}", "c"),
        Side::Incoming => format!(
            "(EXISTS (SELECT 1 FROM containers t WHERE (t.id = s.target_container_id OR t.project_id = s.target_project_id) \
             AND t.id <> s.source_container_id AND {}) \
             OR s.target_project_id IN (SELECT id FROM projects WHERE user_id = $1))",
            VISIBLE.replace("{c}", "t")
        ),
    };
    let scoped = scope.condition("c.realm_ids", &mut values);
    let of_realm = match realm {
        Some(realm) => {
            values.push(scope::pattern(realm));
            format!("c.realm_ids LIKE ${}", values.len())
        }
        None => "1 = 1".to_owned(),
    };
    let sql = format!(
        "{SELECT} WHERE s.expired = 0 AND {visible} AND {scoped} AND {of_realm} \
         ORDER BY s.created_at DESC, s.id DESC LIMIT {MAX_LISTED}"
    );
    let query = values.into_iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, value| query.bind(value));
    query.fetch_all(store.reader()).await?.iter().map(read).collect()
}
