use super::*;
use crate::store::{link_testing, node, testing::each_backend};
use hoody_protocol::transport::generate_node_key;

fn key() -> PublicKey {
    generate_node_key().unwrap().public_key()
}

async fn token(store: &Store, name: &str, hash: &str) -> ServerId {
    let server = link_testing::server(store, name).await;
    let mut tx = store.begin().await.unwrap();
    insert(&mut tx, server, hash, 1, 100).await.unwrap();
    tx.commit().await.unwrap();
    server
}

#[tokio::test]
async fn a_token_binds_to_its_first_key_and_is_spent_by_the_hello() {
    each_backend(|store| async move {
        let server = token(&store, "one", "h").await;
        let (first, second) = (key(), key());
        assert_eq!(redeem(&store, "other", &first, 10).await.unwrap(), Err(Rejected::Unknown));
        assert_eq!(redeem(&store, "h", &first, 100).await.unwrap(), Err(Rejected::Expired));
        assert_eq!(redeem(&store, "h", &first, 99).await.unwrap(), Ok(server));
        assert_eq!(redeem(&store, "h", &second, 99).await.unwrap(), Err(Rejected::Used));
        assert_eq!(redeem(&store, "h", &first, 500).await.unwrap(), Ok(server), "its answer may have been lost");
        let node = node::by_id(&store, server).await.unwrap().unwrap();
        assert_eq!((node.status, node.public_key), (ServerStatus::Enrolled, Some(first)));
        let mut tx = store.begin().await.unwrap();
        spend(&mut tx, server, &first, 600).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(redeem(&store, "h", &first, 600).await.unwrap(), Err(Rejected::Used));
    })
    .await;
}

#[tokio::test]
async fn of_two_keys_at_once_one_wins() {
    each_backend(|store| async move {
        let server = token(&store, "one", "h").await;
        let keys: Vec<PublicKey> = (0..8).map(|_| key()).collect();
        let redeemed = futures::future::join_all(keys.iter().map(|key| redeem(&store, "h", key, 10))).await;
        let winners: Vec<_> =
            redeemed.into_iter().zip(&keys).filter(|(result, _)| *result.as_ref().unwrap() == Ok(server)).collect();
        assert_eq!(winners.len(), 1);
        let node = node::by_id(&store, server).await.unwrap().unwrap();
        assert_eq!(node.public_key.as_ref(), Some(winners[0].1));
    })
    .await;
}

#[tokio::test]
async fn disabled_servers_and_keys_of_others_do_not_enrol() {
    each_backend(|store| async move {
        let first = token(&store, "one", "h1").await;
        token(&store, "two", "h2").await;
        let shared = key();
        assert_eq!(redeem(&store, "h1", &shared, 10).await.unwrap(), Ok(first));
        assert_eq!(redeem(&store, "h2", &shared, 10).await.unwrap(), Err(Rejected::WrongKey));
        let mut tx = store.begin().await.unwrap();
        sqlx::query("UPDATE servers SET status = 'disabled'").execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        let fresh = key();
        assert_eq!(redeem(&store, "h2", &fresh, 10).await.unwrap(), Err(Rejected::ShutOut));
        assert_eq!(node::by_key(&store, &fresh).await.unwrap(), None, "nothing was pinned");
    })
    .await;
}

#[tokio::test]
async fn old_tokens_are_forgotten() {
    each_backend(|store| async move {
        token(&store, "one", "h").await;
        for (before, expected) in [(100, Rejected::Expired), (101, Rejected::Unknown)] {
            let mut tx = store.begin().await.unwrap();
            forget_expired(&mut tx, before).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(redeem(&store, "h", &key(), 200).await.unwrap(), Err(expected));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_enrols_as_one_server_also_at_the_same_time() {
    each_backend(|store| async move {
        token(&store, "one", "h1").await;
        token(&store, "two", "h2").await;
        let key = key();
        let (one, two) = tokio::join!(redeem(&store, "h1", &key, 10), redeem(&store, "h2", &key, 10));
        let refused = [one.unwrap(), two.unwrap()].into_iter().filter(|r| *r == Err(Rejected::WrongKey)).count();
        assert_eq!(refused, 1);
    })
    .await;
}
