//! On both databases: an event is there with its change or not at all, and the order of delivery never
//! passes one over.

use super::*;
use crate::{
    event::{Actor, EventKind, ResourceKind},
    store::{Backend, Store, container, link_testing, report, status_log::Trigger, testing::each_backend, user},
};
use hoody_protocol::{
    container::{State, StatusReport},
    id::{ContainerId, RealmId, UserId},
    version::SpecVersion,
};
use std::time::Duration;

/// Long enough for a publication that waits for nobody.
const UNDISTURBED: Duration = Duration::from_millis(300);

async fn account(store: &Store, name: &str) -> UserId {
    let mut tx = store.begin().await.unwrap();
    let new = user::NewUser { username: name, email: None, password_hash: "x", is_admin: false };
    let id = user::insert(&mut tx, &new).await.unwrap();
    tx.commit().await.unwrap();
    // Without the event of the account itself.
    link_testing::execute(store, "DELETE FROM events".to_owned()).await;
    id
}

fn about(owner: UserId, container: ContainerId, kind: EventKind) -> NewEvent {
    NewEvent::new(kind, container, Some(owner), Actor::User(owner)).in_container(container)
}

async fn write(store: &Store, event: &NewEvent) -> EventId {
    let mut tx = store.begin().await.unwrap();
    let id = insert(&mut tx, event).await.unwrap();
    tx.commit().await.unwrap();
    id
}

async fn publish_all(store: &Store) {
    while publish(store, 2).await.unwrap() > 0 {}
}

#[tokio::test]
async fn neither_change_nor_event_is_there_without_the_other() {
    each_backend(|store| async move {
        let server = link_testing::server(&store, "one").await;
        let spec = link_testing::container(&store, server, 1, vec![]).await;
        link_testing::execute(&store, "DELETE FROM events".to_owned()).await;
        let count = async || link_testing::number(&store, "SELECT COUNT(*) FROM events").await;
        let status = async || link_testing::text(&store, "SELECT status FROM containers").await.unwrap();

        let report = StatusReport {
            container: spec.id,
            version: SpecVersion { epoch: 1, generation: 1 },
            state: State::Failed,
            converged: false,
            cause: None,
            exit_code: Some(137),
            address: None,
            started_at: None,
            firewall_error: None,
            limits_error: None,
            ssh_key_error: None,
            oom_kills: 0,
            egress: None,
            share_failures: Default::default(),
            at: 2_000,
        };
        let mut tx = store.begin().await.unwrap();
        report::apply(&mut tx, server, 1, &report, 10_000).await.unwrap();
        // As if the process had been killed here.
        drop(tx);
        assert_eq!((count().await, status().await.as_str()), (0, "creating"));

        let mut tx = store.begin().await.unwrap();
        report::apply(&mut tx, server, 1, &report, 10_000).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!((count().await, status().await.as_str()), (1, "failed"));
        let filter = Filter { owner: Some(spec.owner), ..Filter::default() };
        let slice = Slice { by: "created_at", descending: true, limit: 10, offset: 0 };
        let (events, _) = list(&store, &filter, slice).await.unwrap();
        let told = &events[0];
        assert_eq!((told.kind, told.project), (EventKind::ContainerFailed, Some(spec.project)));
        assert_eq!(told.payload["exit_code"], 137);
        assert_eq!(told.payload["actor"]["type"], "node");

        // An event that cannot be written takes its change with it.
        link_testing::execute(&store, "ALTER TABLE events RENAME TO elsewhere".to_owned()).await;
        let mut tx = store.begin().await.unwrap();
        let row = container::lock(&mut tx, spec.id).await.unwrap().unwrap();
        let mut changed = row.clone();
        let to = container::Status::Running;
        let trigger = Trigger::User(spec.owner);
        crate::store::status_log::transition(&mut tx, &mut changed, to, trigger, None, 11_000).await.unwrap_err();
        drop(tx);
        assert_eq!(status().await, "failed");
    })
    .await;
}

#[tokio::test]
async fn what_commits_late_is_published_behind_what_was_seen() {
    each_backend(|store| async move {
        let ann = account(&store, "ann").await;
        let (one, two) = (ContainerId::generate(), ContainerId::generate());
        let mut late = store.begin().await.unwrap();
        if store.backend() == Backend::Sqlite {
            // Nothing can be written before another and committed after it: there is one writer.
            assert!(tokio::time::timeout(UNDISTURBED, store.begin()).await.is_err());
            return;
        }
        let first = insert(&mut late, &about(ann, one, EventKind::ContainerRunning)).await.unwrap();
        let second = write(&store, &about(ann, two, EventKind::ContainerRunning)).await;
        publish_all(&store).await;
        let seen = after(&store, 0, 10).await.unwrap();
        assert_eq!(seen.iter().map(|event| event.id).collect::<Vec<_>>(), [second]);
        late.commit().await.unwrap();
        publish_all(&store).await;
        let behind = after(&store, seen[0].sequence.unwrap(), 10).await.unwrap();
        assert_eq!(behind.iter().map(|event| event.id).collect::<Vec<_>>(), [first], "its position is smaller");
    })
    .await;
}

#[tokio::test]
async fn the_events_of_one_subject_keep_their_order_also_with_a_clock_that_is_behind() {
    each_backend(|store| async move {
        let ann = account(&store, "ann").await;
        let one = ContainerId::generate();
        let mut ids = vec![write(&store, &about(ann, one, EventKind::ContainerCreating)).await];
        // Written by a replica whose clock is far ahead.
        link_testing::execute(&store, "UPDATE events SET position = position + 1000000000".to_owned()).await;
        for kind in [EventKind::ContainerRunning, EventKind::ContainerStopped, EventKind::ContainerDeleted] {
            ids.push(write(&store, &about(ann, one, kind)).await);
        }
        publish_all(&store).await;
        let seen: Vec<_> = after(&store, 0, 10).await.unwrap().into_iter().map(|event| event.id).collect();
        assert_eq!(seen, ids);
    })
    .await;
}

#[tokio::test]
async fn publishers_take_turns_and_never_give_a_sequence_twice() {
    each_backend(|store| async move {
        let ann = account(&store, "ann").await;
        for _ in 0..20 {
            write(&store, &about(ann, ContainerId::generate(), EventKind::ContainerRunning)).await;
        }
        let publishers = (0..4).map(|_| publish_all(&store));
        futures::future::join_all(publishers).await;
        let sequences: Vec<_> = after(&store, 0, 100).await.unwrap().iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, (1..=20).map(Some).collect::<Vec<_>>());

        // Deleting the newest does not bring their sequences back.
        let filter = Filter { owner: Some(ann), ..Filter::default() };
        assert_eq!(delete(&store, &filter, None).await.unwrap(), 20);
        write(&store, &about(ann, ContainerId::generate(), EventKind::ContainerRunning)).await;
        publish_all(&store).await;
        assert_eq!(after(&store, 0, 10).await.unwrap()[0].sequence, Some(21));
    })
    .await;
}

#[tokio::test]
async fn a_publisher_waits_for_the_one_before() {
    each_backend(|store| async move {
        let ann = account(&store, "ann").await;
        write(&store, &about(ann, ContainerId::generate(), EventKind::ContainerRunning)).await;
        let mut other = store.begin().await.unwrap();
        sqlx::query("UPDATE event_sequence SET value = 7 WHERE id = 1").execute(&mut *other).await.unwrap();
        let waiting = store.clone();
        let mut second = tokio::spawn(async move { publish(&waiting, 10).await.unwrap() });
        assert!(tokio::time::timeout(UNDISTURBED, &mut second).await.is_err(), "it must wait");
        other.commit().await.unwrap();
        assert_eq!(second.await.unwrap(), 1);
        assert_eq!(after(&store, 0, 10).await.unwrap()[0].sequence, Some(8));
    })
    .await;
}

#[tokio::test]
async fn every_filter_narrows_and_nobody_sees_the_record_of_another() {
    each_backend(|store| async move {
        let (ann, bob) = (account(&store, "ann").await, account(&store, "bob").await);
        let (one, two, realm) = (ContainerId::generate(), ContainerId::generate(), RealmId::generate());
        write(&store, &about(ann, one, EventKind::ContainerRunning).in_realms(&[realm])).await;
        write(&store, &about(ann, two, EventKind::ContainerStopped)).await;
        write(&store, &about(bob, one, EventKind::ContainerStopped)).await;
        write(&store, &NewEvent::new(EventKind::ServerCreated, "s", None, Actor::Operator)).await;
        let slice = Slice { by: "event_type", descending: false, limit: 1, offset: 1 };
        let count = async |filter: Filter| list(&store, &filter, slice).await.unwrap().1;
        let of = |owner| Filter { owner: Some(owner), ..Filter::default() };
        assert_eq!(count(of(ann)).await, 2);
        assert_eq!(count(Filter::default()).await, 0, "nobody's record is nothing");
        assert_eq!(count(Filter { operators: true, ..of(ann) }).await, 3);
        assert_eq!(count(Filter { kind: Some(EventKind::ContainerRunning), ..of(ann) }).await, 1);
        assert_eq!(count(Filter { resource_kind: Some(ResourceKind::Project), ..of(ann) }).await, 0);
        assert_eq!(count(Filter { resource: Some(two.to_string()), ..of(ann) }).await, 1);
        assert_eq!(count(Filter { container: Some(one), ..of(ann) }).await, 1);
        assert_eq!(count(Filter { realm: Some(realm), ..of(ann) }).await, 1);
        assert_eq!(count(Filter { before: Some(1), ..of(ann) }).await, 0);
        assert_eq!(count(Filter { from: Some(1), ..of(ann) }).await, 2);
        let (page, _) = list(&store, &of(ann), slice).await.unwrap();
        assert_eq!(page.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::ContainerStopped]);
        let stats = stats(&store, &of(ann)).await.unwrap();
        assert_eq!((stats.total, stats.by_resource), (2, vec![("container".to_owned(), 2)]));

        publish_all(&store).await;
        assert_eq!(delete(&store, &of(ann), Some(page[0].id)).await.unwrap(), 1);
        assert_eq!(delete(&store, &of(ann), Some(page[0].id)).await.unwrap(), 0);
        assert_eq!(delete_before(&store, i64::MAX, 2).await.unwrap(), 2);
        assert_eq!(delete_before(&store, i64::MAX, 2).await.unwrap(), 1);
    })
    .await;
}
