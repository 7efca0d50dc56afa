//! What a node's hello changes, all in one transaction.

use super::{
    Store, StoreError,
    dispatch::{self, Difference},
    join_token,
    node::{self, Arrival},
    unknown,
};
use hoody_protocol::{id::ServerId, link::Hello};

/// Writes down the hello of `server`: what it holds, its facts, that it is online and where; its join tokens
/// are spent.
pub async fn record(
    store: &Store,
    server: ServerId,
    arrival: &Arrival,
    hello: &Hello,
    now: i64,
) -> Result<Difference, StoreError> {
    let (arrival, hello) = (arrival.clone(), hello.clone());
    let write = store.write(move |connection| {
        Box::pin(async move {
            // Containers, join tokens, server: the order of locks. A batch of reports may be on its way meanwhile.
            let difference = dispatch::reconcile_inventory(connection, server, &hello.inventory).await?;
            join_token::spend(connection, server, &arrival.key, now).await?;
            node::record_hello(connection, server, &hello, now).await?;
            node::record_link(connection, server, &arrival, hello.instance.as_deref()).await?;
            unknown::record(connection, server, &difference.unknown, now).await?;
            Ok(difference)
        })
    });
    write.await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        container,
        link_testing::{container, hello, server},
        reservation,
        testing::each_backend,
    };
    use hoody_protocol::{
        container::State, id::ContainerId, link::InventoryEntry, transport::generate_node_key, version::SpecVersion,
    };

    const CONTAINERS: usize = 8;
    const ROUNDS: u64 = 40;

    /// As reports are stored: containers in the order of the reports, and the server's capacity between.
    async fn report(store: &Store, server: ServerId, containers: &[ContainerId]) -> Result<(), StoreError> {
        let mut tx = store.begin().await?;
        container::lock_all(&mut tx, &containers.iter().copied().collect()).await?;
        for id in containers.iter().rev() {
            let limits = container::lock(&mut tx, *id).await?.expect("the container").spec.limits;
            reservation::release(&mut tx, server, &limits).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_hello_and_reports_never_wait_for_each_other() {
        each_backend(|store| async move {
            let server = server(&store, "one").await;
            let key = generate_node_key().unwrap().public_key();
            let arrival = Arrival { key, issuer: "authority".to_owned(), replica: "replica".to_owned() };
            let mut ids = Vec::new();
            for _ in 0..CONTAINERS {
                ids.push(container(&store, server, 1, vec![]).await.id);
            }
            for round in 0..ROUNDS {
                // Other versions each time, so that every row is written.
                let version = SpecVersion { epoch: 1, generation: round % 2 };
                let mut said = hello(4, 1 << 30);
                let entry =
                    |id: &ContainerId| InventoryEntry { container: *id, version, state: State::Running, sequence: 1 };
                said.inventory = ids.iter().map(entry).collect::<Vec<_>>().try_into().unwrap();
                let (recorded, reported) =
                    tokio::join!(record(&store, server, &arrival, &said, 1), report(&store, server, &ids));
                recorded.unwrap();
                reported.unwrap();
            }
        })
        .await;
    }

    #[tokio::test]
    async fn what_a_journal_lost_stands_in_the_servers_record() {
        each_backend(|store| async move {
            let server = server(&store, "one").await;
            let key = generate_node_key().unwrap().public_key();
            let arrival = Arrival { key, issuer: "authority".to_owned(), replica: "replica".to_owned() };
            let mut said = hello(4, 1 << 30);
            for lost in [0, 7] {
                said.journal_lost = lost;
                record(&store, server, &arrival, &said, 1).await.unwrap();
            }
            let sql = "SELECT payload FROM events WHERE event_type = 'server.health_changed' AND resource_id = $1";
            let told: Vec<String> =
                sqlx::query_scalar(sql).bind(server.to_string()).fetch_all(store.reader()).await.unwrap();
            let lost: Vec<_> = told.iter().filter(|payload| payload.contains("journal_lines_lost")).collect();
            assert!(matches!(&lost[..], [one] if one.contains("\"journal_lines_lost\":7")), "{told:?}");
        })
        .await;
    }
}
