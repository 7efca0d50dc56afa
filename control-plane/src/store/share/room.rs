//! What counts towards what a target has room for: shares that are not over, and that it takes. What is only offered to it
//! is bounded for each account that offers.

use super::Target;
use crate::store::{Queries, StoreError};
use hoody_protocol::{
    id::{ContainerId, ProjectId, UserId},
    time::now_ms,
};
use sqlx::{AssertSqlSafe, Row};

/// Of a row `s` of shares, that it is not over at `$1`.
const NOT_OVER: &str = "s.expired = 0 AND (s.expires_at IS NULL OR s.expires_at > $1)";

/// Shares that the container takes, by itself or as one of its project, enabled or not.
pub async fn taken_by<'e>(
    queries: impl Queries<'e>,
    container: ContainerId,
    project: ProjectId,
) -> Result<usize, StoreError> {
    let sql = format!(
        "SELECT COUNT(*) AS shares FROM shares s \
         LEFT JOIN share_choices o ON o.share_id = s.id AND o.container_id = $2 \
         WHERE (s.target_container_id = $2 OR s.target_project_id = $3) AND s.source_container_id <> $2 \
         AND {NOT_OVER} AND COALESCE(o.mount, s.accepted) = 1"
    );
    count(queries, sql, [container.to_string(), project.to_string()]).await
}

/// Shares for every container of the project.
pub async fn taken_by_all_of<'e>(queries: impl Queries<'e>, project: ProjectId) -> Result<usize, StoreError> {
    let sql = format!(
        "SELECT COUNT(*) AS shares FROM shares s WHERE s.target_project_id = $2 AND {NOT_OVER} AND s.accepted = 1"
    );
    count(queries, sql, [project.to_string()]).await
}

/// Shares of the account's containers that are only offered to the target.
pub async fn offered_by<'e>(queries: impl Queries<'e>, owner: UserId, target: Target) -> Result<usize, StoreError> {
    let (column, target) = match target {
        Target::Container(id) => ("target_container_id", id.to_string()),
        Target::Project(id) => ("target_project_id", id.to_string()),
    };
    let sql = format!(
        "SELECT COUNT(*) AS shares FROM shares s JOIN containers c ON c.id = s.source_container_id \
         WHERE s.{column} = $2 AND c.owner_id = $3 AND {NOT_OVER} AND s.accepted = 0"
    );
    count(queries, sql, [target, owner.to_string()]).await
}

async fn count<'e, const N: usize>(
    queries: impl Queries<'e>,
    sql: String,
    values: [String; N],
) -> Result<usize, StoreError> {
    let query = sqlx::query(AssertSqlSafe(sql)).bind(now_ms() as i64);
    let query = values.into_iter().fold(query, |query, value| query.bind(value));
    let shares: i64 = query.fetch_one(queries).await?.try_get("shares")?;
    Ok(usize::try_from(shares).unwrap_or(usize::MAX))
}
