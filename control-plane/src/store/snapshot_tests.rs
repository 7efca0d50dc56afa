use super::*;
use crate::store::{
    container,
    dispatch::{self, mark_dispatched},
    link_testing,
    operation::{self, NewOperation},
    testing::{each_backend, is_indexed},
};
use hoody_protocol::{
    container::Cause,
    id::{OperationId, ServerId, UserId},
    operation::OperationOutcome,
};

struct World {
    store: Store,
    server: ServerId,
    container: ContainerId,
}

impl World {
    async fn new(store: Store) -> Self {
        let server = link_testing::server(&store, "one").await;
        let container = link_testing::container(&store, server, 1, Vec::new()).await.id;
        Self { store, server, container }
    }

    fn row(&self, name: &str, state: SnapshotState) -> SnapshotRow {
        SnapshotRow {
            id: SnapshotId::generate(),
            container: self.container,
            name: name.to_owned(),
            alias: None,
            state,
            size_bytes: 0,
            created_at: 1,
            expires_at: None,
            last_used_at: None,
        }
    }

    async fn add(&self, row: &SnapshotRow) -> Result<(), StoreError> {
        let mut tx = self.store.begin().await.unwrap();
        insert(&mut tx, row).await?;
        tx.commit().await.map_err(StoreError::from)
    }

    /// An operation that was sent and has come to its end.
    async fn end(&self, kind: OperationKind, failure: Option<Cause>) {
        let id = OperationId::generate();
        let new = NewOperation {
            id,
            container: self.container,
            server: self.server,
            user: Some(UserId::generate()),
            sequence: 5,
            kind,
            created_at: 1,
            begin_before: i64::MAX,
            expired: None,
        };
        let mut tx = self.store.begin().await.unwrap();
        operation::insert(&mut tx, &new).await.unwrap();
        tx.commit().await.unwrap();
        assert!(mark_dispatched(&self.store, id, 2).await.unwrap());
        let outcome = OperationOutcome { id, container: self.container, failure, bytes: Some(77), at: 3 };
        for first in [true, false] {
            let mut tx = self.store.begin().await.unwrap();
            assert_eq!(dispatch::record_outcome(&mut tx, self.server, &outcome, 9).await.unwrap(), first);
            tx.commit().await.unwrap();
        }
    }

    async fn all(&self) -> Vec<SnapshotRow> {
        list(self.store.reader(), self.container).await.unwrap()
    }

    async fn shown(&self) -> (i64, Option<String>) {
        let row = container::get(&self.store, self.container).await.unwrap().unwrap();
        (row.snapshot_count, row.last_used_snapshot)
    }

    async fn events(&self, kind: EventKind) -> i64 {
        let sql = "SELECT CAST(COUNT(*) AS BIGINT) FROM events WHERE event_type = $1 AND container_id = $2";
        let query = sqlx::query_scalar(sql).bind(kind.as_str()).bind(self.container.to_string());
        query.fetch_one(self.store.reader()).await.unwrap()
    }
}

#[tokio::test]
async fn a_snapshot_is_there_with_the_outcome_of_its_operation_and_counted_once() {
    each_backend(|store| async move {
        let world = World::new(store).await;
        let row = world.row("one", SnapshotState::Creating);
        world.add(&row).await.unwrap();
        assert_eq!(world.shown().await, (0, None));
        world.end(OperationKind::CreateSnapshot { snapshot: row.id }, None).await;
        let expected = SnapshotRow { state: SnapshotState::Ready, size_bytes: 77, ..row.clone() };
        assert_eq!(world.all().await, std::slice::from_ref(&expected));
        assert_eq!(world.shown().await, (1, None));
        assert_eq!(world.events(EventKind::ContainerSnapshotCreated).await, 1);

        world.end(OperationKind::RestoreSnapshot { snapshot: row.id }, Some(Cause::new("restore_failed", "no"))).await;
        assert_eq!(world.all().await, std::slice::from_ref(&expected));
        world.end(OperationKind::RestoreSnapshot { snapshot: row.id }, None).await;
        assert_eq!(world.all().await[0].last_used_at, Some(9));
        assert_eq!(world.shown().await, (1, Some("one".to_owned())));
        assert_eq!(world.events(EventKind::ContainerSnapshotRestored).await, 1);

        let mut tx = world.store.begin().await.unwrap();
        assert!(begin_deletion(&mut tx, row.id).await.unwrap());
        assert!(!begin_deletion(&mut tx, row.id).await.unwrap(), "two replicas would delete it");
        tx.commit().await.unwrap();
        world.end(OperationKind::DeleteSnapshot { snapshot: row.id }, Some(Cause::new("io", "no"))).await;
        assert_eq!(world.all().await[0].state, SnapshotState::Ready, "it can be tried again");
        world.end(OperationKind::DeleteSnapshot { snapshot: row.id }, None).await;
        assert_eq!(world.all().await, []);
        assert_eq!(world.shown().await.0, 0);
        assert_eq!(world.events(EventKind::ContainerSnapshotDeleted).await, 1);
    })
    .await;
}

#[tokio::test]
async fn what_was_not_taken_leaves_no_row_however_it_ended() {
    each_backend(|store| async move {
        let world = World::new(store).await;
        let row = world.row("one", SnapshotState::Creating);
        world.add(&row).await.unwrap();
        world.end(OperationKind::CreateSnapshot { snapshot: row.id }, Some(Cause::new("no_space", "full"))).await;
        assert_eq!(world.all().await, []);
        assert_eq!(world.events(EventKind::ContainerSnapshotCreated).await, 0);
        // Never sent.
        let row = world.row("two", SnapshotState::Creating);
        world.add(&row).await.unwrap();
        let id = OperationId::generate();
        let new = NewOperation {
            id,
            container: world.container,
            server: world.server,
            user: None,
            sequence: 6,
            kind: OperationKind::CreateSnapshot { snapshot: row.id },
            created_at: 1,
            begin_before: 5,
            expired: None,
        };
        let mut tx = world.store.begin().await.unwrap();
        operation::insert(&mut tx, &new).await.unwrap();
        tx.commit().await.unwrap();
        assert!(dispatch::expire(&world.store, id, &Cause::new("late", "late"), 9).await.unwrap());
        assert_eq!(world.all().await, []);
    })
    .await;
}

#[tokio::test]
async fn names_and_aliases_are_unique_within_their_container() {
    each_backend(|store| async move {
        let world = World::new(store).await;
        let named = |name: &str, alias: Option<&str>| SnapshotRow {
            alias: alias.map(str::to_owned),
            ..world.row(name, SnapshotState::Ready)
        };
        world.add(&named("one", Some("first"))).await.unwrap();
        world.add(&named("two", None)).await.unwrap();
        world.add(&named("three", None)).await.unwrap();
        let what = |failed: Result<(), StoreError>| match failed {
            Err(StoreError::Duplicate { what }) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(what(world.add(&named("one", None)).await), "this snapshot name");
        assert_eq!(what(world.add(&named("four", Some("first"))).await), "this snapshot alias");
    })
    .await;
}

#[tokio::test]
async fn copies_of_a_snapshot_are_in_an_index() {
    is_indexed(COPIES).await;
}

#[tokio::test]
async fn those_are_due_whose_time_has_come_and_whose_server_is_online() {
    each_backend(|store| async move {
        let world = World::new(store).await;
        let expiring = |name: &str, expires_at, state| SnapshotRow { expires_at, ..world.row(name, state) };
        world.add(&expiring("past", Some(10), SnapshotState::Ready)).await.unwrap();
        world.add(&expiring("future", Some(30), SnapshotState::Ready)).await.unwrap();
        world.add(&expiring("kept", None, SnapshotState::Ready)).await.unwrap();
        world.add(&expiring("going", Some(5), SnapshotState::Deleting)).await.unwrap();
        let names = async || {
            let due = due(&world.store, 20, None, 100).await.unwrap();
            due.into_iter().map(|due| due.snapshot.name).collect::<Vec<_>>()
        };
        link_testing::execute(&world.store, "UPDATE servers SET online = 0".to_owned()).await;
        assert_eq!(names().await, [""; 0]);
        link_testing::execute(&world.store, "UPDATE servers SET online = 1".to_owned()).await;
        assert_eq!(names().await, ["past"]);
        // Those that expired together come one after the other, each once.
        for name in ["a", "b", "c"] {
            world.add(&expiring(name, Some(10), SnapshotState::Ready)).await.unwrap();
        }
        let (mut seen, mut after) = (Vec::new(), None);
        while let Some(next) = due(&world.store, 20, after, 1).await.unwrap().pop() {
            after = Some((next.since, next.snapshot.id));
            assert_eq!(next.server, world.server);
            seen.push(next.snapshot.name);
        }
        seen.sort();
        assert_eq!(seen, ["a", "b", "c", "past"]);
    })
    .await;
}
