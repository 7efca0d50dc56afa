//! Containers that nodes hold and the store does not know, or knows as another server's. They are kept on
//! their nodes; an operator decides. At most [`MAX_PER_SERVER`] of one server are written down, whatever its
//! node claims.

use super::{Store, StoreError};
use hoody_protocol::{
    container::State,
    id::{ContainerId, ProjectId, ServerId},
    link::InventoryEntry,
    version::SpecVersion,
};
use sqlx::{AnyConnection, Row, any::AnyRow};
use std::collections::BTreeMap;

/// Rows of one server.
pub const MAX_PER_SERVER: usize = 512;

/// What an operator decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It becomes a container of the project, under this name.
    Adopt {
        /// The project.
        project: ProjectId,
        /// The name.
        name: String,
    },
    /// The node is told to delete it.
    Remove,
}

/// A container that its node holds and nobody here knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The container.
    pub container: ContainerId,
    /// The version held.
    pub version: SpecVersion,
    /// The state that the node's last hello gave it.
    pub state: String,
    /// When a hello first named it.
    pub first_seen_at: i64,
    /// What was decided and not carried out yet.
    pub decision: Option<Decision>,
    /// Why the last decision could not be carried out.
    pub problem: Option<String>,
}

const COLUMNS: &str = "container_id, epoch, generation, state, first_seen_at, decision, project_id, name, problem";

fn corrupt<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> StoreError {
    move |error| StoreError::Corrupt { what, source: Box::new(error) }
}

fn read(row: &AnyRow) -> Result<Unknown, StoreError> {
    let container: String = row.try_get("container_id")?;
    let decision: Option<String> = row.try_get("decision")?;
    let project: Option<String> = row.try_get("project_id")?;
    let name: Option<String> = row.try_get("name")?;
    let decision = match (decision.as_deref(), project, name) {
        (Some("adopt"), Some(project), Some(name)) => {
            Some(Decision::Adopt { project: project.parse().map_err(corrupt("unknown_containers.project_id"))?, name })
        }
        (Some("remove"), ..) => Some(Decision::Remove),
        // A project that was deleted meanwhile takes the decision with it.
        _ => None,
    };
    Ok(Unknown {
        container: container.parse().map_err(corrupt("unknown_containers.container_id"))?,
        version: SpecVersion {
            epoch: row.try_get::<i64, _>("epoch")?.max(0) as u64,
            generation: row.try_get::<i64, _>("generation")?.max(0) as u64,
        },
        state: row.try_get("state")?,
        first_seen_at: row.try_get("first_seen_at")?,
        decision,
        problem: row.try_get("problem")?,
    })
}

/// What is written down of a server, in the order of the ids.
pub async fn list(store: &Store, server: ServerId) -> Result<Vec<Unknown>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM unknown_containers WHERE server_id = $1 ORDER BY container_id");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(server.to_string()).fetch_all(store.reader()).await?;
    rows.iter().map(read).collect()
}

/// Servers for which a decision is to be carried out.
pub async fn servers_with_decisions(store: &Store) -> Result<Vec<ServerId>, StoreError> {
    let servers: Vec<String> =
        sqlx::query_scalar("SELECT DISTINCT server_id FROM unknown_containers WHERE decision IS NOT NULL")
            .fetch_all(store.reader())
            .await?;
    servers.iter().map(|id| id.parse().map_err(corrupt("unknown_containers.server_id"))).collect()
}

/// Writes down what a hello named: new ones are added as far as there is room, those it no longer names go.
pub async fn record(
    connection: &mut AnyConnection,
    server: ServerId,
    found: &[InventoryEntry],
    now: i64,
) -> Result<(), StoreError> {
    let rows =
        sqlx::query("SELECT container_id, epoch, generation, state FROM unknown_containers WHERE server_id = $1")
            .bind(server.to_string())
            .fetch_all(&mut *connection)
            .await?;
    let mut known: BTreeMap<String, (i64, i64, String)> = BTreeMap::new();
    for row in &rows {
        let held = (row.try_get("epoch")?, row.try_get("generation")?, row.try_get("state")?);
        known.insert(row.try_get("container_id")?, held);
    }
    let mut room = MAX_PER_SERVER.saturating_sub(known.len());
    // What a node is deleting already goes by itself: nobody has to decide about it, and none would be asked again.
    let stays = |entry: &&InventoryEntry| !matches!(entry.state, State::Deleting | State::Deleted);
    for entry in found.iter().filter(stays) {
        let id = entry.container.to_string();
        let held = (signed(entry.version.epoch), signed(entry.version.generation), entry.state.as_str().to_owned());
        let sql = match known.remove(&id) {
            Some(before) if before == held => continue,
            Some(_) => {
                "UPDATE unknown_containers SET epoch = $3, generation = $4, state = $5 \
                 WHERE server_id = $1 AND container_id = $2 AND $6 >= 0"
            }
            None if room == 0 => continue,
            None => {
                room -= 1;
                "INSERT INTO unknown_containers (server_id, container_id, epoch, generation, state, first_seen_at) \
                 VALUES ($1, $2, $3, $4, $5, $6)"
            }
        };
        sqlx::query(sql)
            .bind(server.to_string())
            .bind(id)
            .bind(held.0)
            .bind(held.1)
            .bind(held.2)
            .bind(now)
            .execute(&mut *connection)
            .await?;
    }
    for id in known.into_keys() {
        sqlx::query("DELETE FROM unknown_containers WHERE server_id = $1 AND container_id = $2")
            .bind(server.to_string())
            .bind(id)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Writes down a decision; false where no such container is written down.
pub async fn decide(
    connection: &mut AnyConnection,
    server: ServerId,
    container: ContainerId,
    decision: &Decision,
) -> Result<bool, StoreError> {
    let (word, project, name) = match decision {
        Decision::Adopt { project, name } => ("adopt", Some(project.to_string()), Some(name.clone())),
        Decision::Remove => ("remove", None, None),
    };
    let done = sqlx::query(
        "UPDATE unknown_containers SET decision = $3, project_id = $4, name = $5, problem = NULL \
         WHERE server_id = $1 AND container_id = $2",
    )
    .bind(server.to_string())
    .bind(container.to_string())
    .bind(word)
    .bind(project)
    .bind(name)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The decision could not be carried out; the operator decides again.
pub async fn fail(
    connection: &mut AnyConnection,
    server: ServerId,
    container: ContainerId,
    problem: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE unknown_containers SET decision = NULL, problem = $3 WHERE server_id = $1 AND container_id = $2",
    )
    .bind(server.to_string())
    .bind(container.to_string())
    .bind(problem.to_owned())
    .execute(connection)
    .await?;
    Ok(())
}

/// It is known now, or gone.
pub async fn forget(
    connection: &mut AnyConnection,
    server: ServerId,
    container: ContainerId,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM unknown_containers WHERE server_id = $1 AND container_id = $2")
        .bind(server.to_string())
        .bind(container.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        link_testing::{execute, server},
        testing::each_backend,
    };
    use hoody_protocol::container::State;

    fn entry(generation: u64) -> InventoryEntry {
        let version = SpecVersion { epoch: 1, generation };
        InventoryEntry { container: ContainerId::generate(), version, state: State::Running, sequence: 1 }
    }

    async fn said(store: &Store, server: ServerId, found: &[InventoryEntry], now: i64) -> Vec<Unknown> {
        let mut tx = store.begin().await.unwrap();
        record(&mut tx, server, found, now).await.unwrap();
        tx.commit().await.unwrap();
        list(store, server).await.unwrap()
    }

    #[tokio::test]
    async fn what_a_hello_names_stays_with_its_decision_until_it_is_gone() {
        each_backend(|store| async move {
            let server = server(&store, "one").await;
            let (mut first, second) = (entry(1), entry(2));
            assert_eq!(said(&store, server, &[first, second], 5).await.len(), 2);
            let mut tx = store.begin().await.unwrap();
            assert!(decide(&mut tx, server, first.container, &Decision::Remove).await.unwrap());
            assert!(!decide(&mut tx, server, ContainerId::generate(), &Decision::Remove).await.unwrap());
            tx.commit().await.unwrap();
            assert_eq!(servers_with_decisions(&store).await.unwrap(), [server]);
            first.version.generation = 9;
            let rows = said(&store, server, &[first], 6).await;
            assert_eq!(rows.len(), 1);
            assert_eq!((rows[0].version.generation, rows[0].first_seen_at), (9, 5));
            assert_eq!(rows[0].decision, Some(Decision::Remove));
            assert_eq!(said(&store, server, &[], 7).await, []);
        })
        .await;
    }

    #[tokio::test]
    async fn a_node_cannot_claim_more_than_is_written_down_and_numbers_that_overflow_are_cut() {
        each_backend(|store| async move {
            let server = server(&store, "one").await;
            let many: Vec<_> = (0..MAX_PER_SERVER + 50).map(|_| entry(u64::MAX)).collect();
            assert_eq!(said(&store, server, &many, 1).await.len(), MAX_PER_SERVER);
            let others: Vec<_> = (0..MAX_PER_SERVER + 50).map(|_| entry(1)).collect();
            assert!(said(&store, server, &others, 1).await.len() <= MAX_PER_SERVER);
            execute(&store, "DELETE FROM servers".to_owned()).await;
            assert_eq!(list(&store, server).await.unwrap(), []);
        })
        .await;
    }
}
