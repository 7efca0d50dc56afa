//! What a node's hello changes, all in one transaction.

use super::{
    Store, StoreError,
    dispatch::{self, Difference},
    join_token, node,
};
use hoody_protocol::{id::ServerId, link::Hello, transport::PublicKey};

/// Writes down the hello of `server`, whose agent has `key`: what it holds, its facts, that it is online;
/// its join tokens are spent.
pub async fn record(
    store: &Store,
    server: ServerId,
    key: &PublicKey,
    hello: &Hello,
    now: i64,
) -> Result<Difference, StoreError> {
    let (key, hello) = (*key, hello.clone());
    let write = store.write(move |connection| {
        Box::pin(async move {
            // Containers, join tokens, server: the order of locks. A batch of reports may be on its way meanwhile.
            let difference = dispatch::reconcile_inventory(connection, server, &hello.inventory).await?;
            join_token::spend(connection, server, &key, now).await?;
            node::record_hello(connection, server, &hello, now).await?;
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
                    tokio::join!(record(&store, server, &key, &said, 1), report(&store, server, &ids));
                recorded.unwrap();
                reported.unwrap();
            }
        })
        .await;
    }
}
