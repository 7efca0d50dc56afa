//! On both databases: one move of a container at a time, each step from where it was found, and what a server holds of what
//! moved away goes when it says so.

use super::*;
use crate::store::{
    container, departure, dispatch,
    link_testing::{self, number},
    report::{self, Applied},
    share, snapshot,
    testing::{each_backend, is_indexed},
    transfer::{self, Transfer},
};
use hoody_protocol::{
    bounded::Text,
    container::{ContainerSpec, State as Reported, StatusReport},
    id::{ShareId, SnapshotId},
    link::InventoryEntry,
    share::ShareMount,
};

async fn begun(store: &Store) -> (Move, ContainerSpec) {
    let (source, target) = (link_testing::server(store, "one").await, link_testing::server(store, "two").await);
    let spec = link_testing::container(store, source, 3, Vec::new()).await;
    let owned = container::get(store, spec.id).await.unwrap().unwrap();
    let new = Move::new(&owned, Some(target), Some(spec.owner), true, 10);
    let row = Move { transfer: Some(TransferId::generate()), ..new };
    let mut tx = store.begin().await.unwrap();
    insert(&mut tx, &row).await.unwrap();
    tx.commit().await.unwrap();
    (row, spec)
}

async fn advanced(store: &Store, from: State, now: &Move) -> bool {
    let mut tx = store.begin().await.unwrap();
    let advanced = advance(&mut tx, from, now).await.unwrap();
    tx.commit().await.unwrap();
    advanced
}

#[tokio::test]
async fn a_container_moves_once_at_a_time_and_each_step_is_taken_once() {
    each_backend(|store| async move {
        let (mut row, _) = begun(&store).await;
        assert_eq!(get(store.reader(), row.id).await.unwrap(), Some(row.clone()));
        assert_eq!(of_link(&store, row.target.unwrap()).await.unwrap(), [row.clone()]);
        assert_eq!(of_link(&store, row.source).await.unwrap(), []);
        let mut tx = store.begin().await.unwrap();
        let second = insert(&mut tx, &Move { id: MoveId::generate(), ..row.clone() }).await;
        assert!(matches!(second, Err(StoreError::Duplicate { .. })), "{second:?}");
        drop(tx);
        row.state = State::Stopping;
        row.desired = Some(Desired::Running { run: 4 });
        row.held = Some(SpecVersion { epoch: 1, generation: 4 });
        (row.held_at, row.bytes) = (Some(20), 77);
        assert!(advanced(&store, State::Copying, &row).await);
        assert_eq!(active(store.reader(), row.container).await.unwrap(), Some(row.clone()));
        assert!(!advanced(&store, State::Copying, &row).await, "it is not copying any more");
        row.failure = Some(Cause::new("x", "y"));
        (row.state, row.ended_at) = (State::Failed, Some(30));
        assert!(advanced(&store, State::Stopping, &row).await);
        assert_eq!(active(store.reader(), row.container).await.unwrap(), None);
        assert_eq!(before_switch(&store).await.unwrap(), []);
        // Both servers have something to let go of.
        for server in [row.source, row.target.unwrap()] {
            assert_eq!(of_link(&store, server).await.unwrap().len(), 1);
            assert_eq!(delete_before(&store, 100, 9).await.unwrap(), 0);
            let mut tx = store.begin().await.unwrap();
            cleaned(&mut tx, row.id, server).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(of_link(&store, server).await.unwrap(), []);
        }
        assert_eq!(delete_before(&store, 100, 9).await.unwrap(), 1);
        // What the source of one that is done deletes is its departure; only the target is asked to let go of something.
        let done = Move { id: MoveId::generate(), state: State::Done, failure: None, ..row.clone() };
        let mut tx = store.begin().await.unwrap();
        insert(&mut tx, &done).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(of_link(&store, done.source).await.unwrap(), []);
        assert_eq!(delete_before(&store, 100, 9).await.unwrap(), 0);
        let mut tx = store.begin().await.unwrap();
        cleaned(&mut tx, done.id, done.target.unwrap()).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(delete_before(&store, 100, 9).await.unwrap(), 1);
        // What counts while a server is emptied, whenever it began.
        let count = async |since: i64| away_since(&store, row.source, since).await.unwrap().len();
        let mut tx = store.begin().await.unwrap();
        let open =
            Move { id: MoveId::generate(), state: State::Finishing, ended_at: None, created_at: 10, ..row.clone() };
        insert(&mut tx, &open).await.unwrap();
        let over = Move { id: MoveId::generate(), created_at: 20, ..row.clone() };
        insert(&mut tx, &over).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!((count(0).await, count(20).await, count(21).await), (2, 2, 1));
        assert_eq!(leaving(&store, row.source).await.unwrap(), 1);
        let starting = Move { state: State::Starting, ..open };
        assert!(advanced(&store, State::Finishing, &starting).await);
        assert_eq!(leaving(&store, row.source).await.unwrap(), 0, "it is the target's");
    })
    .await;
}

fn report(tombstone: &ContainerSpec, state: Reported) -> StatusReport {
    StatusReport {
        container: tombstone.id,
        version: tombstone.version,
        state,
        converged: true,
        cause: None,
        exit_code: None,
        address: None,
        started_at: None,
        firewall_error: None,
        limits_error: None,
        ssh_key_error: None,
        oom_kills: 0,
        egress: None,
        share_failures: Default::default(),
        at: 5,
    }
}

#[tokio::test]
async fn what_moved_away_is_deleted_once_it_is_seen_elsewhere_and_not_before() {
    each_backend(|store| async move {
        let (mut row, spec) = begun(&store).await;
        let (source, target) = (row.source, row.target.unwrap());
        let version = SpecVersion { epoch: 1, generation: 5 };
        let tombstone = ContainerSpec { desired: Desired::Deleted, version, sequence: 5, ..spec.clone() };
        let mut tx = store.begin().await.unwrap();
        departure::insert(&mut tx, source, &tombstone, 1).await.unwrap();
        let sql = format!("UPDATE containers SET server_id = '{target}' WHERE id = '{}'", spec.id);
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        row.state = State::Starting;
        assert!(advanced(&store, State::Copying, &row).await);
        assert_eq!(dispatch::items(&store, source, spec.id).await.unwrap(), [], "its only other copy");

        (row.state, row.ended_at) = (State::Done, Some(30));
        assert!(advanced(&store, State::Starting, &row).await);
        assert_eq!(dispatch::containers_with_work(&store, source).await.unwrap(), [spec.id]);
        let items = dispatch::items(&store, source, spec.id).await.unwrap();
        assert!(matches!(&items[..], [dispatch::Item::Spec { spec, .. }] if **spec == tombstone), "{items:?}");

        // The server is not asked what an unknown container is, and is sent the tombstone until it has it.
        let entry = |version| InventoryEntry { container: spec.id, version, state: Reported::Stopped, sequence: 1 };
        for (held, left) in [(spec.version, 1), (version, 0)] {
            let mut tx = store.begin().await.unwrap();
            dispatch::acknowledge(&mut tx, source, spec.id, version).await.unwrap();
            let found = dispatch::reconcile_inventory(&mut tx, source, &[entry(held)]).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(found.unknown, []);
            assert_eq!(dispatch::items(&store, source, spec.id).await.unwrap().len(), left);
        }
        // What it holds in a newer version came back there after what is written here: an operator says what becomes of it.
        let newer = SpecVersion { epoch: 1, generation: 6 };
        let mut tx = store.begin().await.unwrap();
        let found = dispatch::reconcile_inventory(&mut tx, source, &[entry(newer)]).await.unwrap();
        let said = report(&ContainerSpec { version: newer, ..tombstone.clone() }, Reported::Running);
        assert_eq!(report::apply(&mut tx, source, 1, &said, 9).await.unwrap(), Applied::Foreign);
        tx.commit().await.unwrap();
        assert_eq!(found.unknown, [entry(newer)]);
        assert_eq!(dispatch::items(&store, source, spec.id).await.unwrap(), [], "it would be deleted");
        let used = format!("SELECT containers_used FROM servers WHERE id = '{source}'");
        let before = number(&store, &used).await;
        for (state, applied) in [
            (Reported::Deleting, Applied::Departed),
            (Reported::Deleted, Applied::Departed),
            (Reported::Deleted, Applied::Foreign),
        ] {
            let mut tx = store.begin().await.unwrap();
            let found = report::apply(&mut tx, source, 1, &report(&tombstone, state), 9).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(found, applied);
        }
        assert_eq!(number(&store, &used).await, before - 1, "given back once");
    })
    .await;
}

/// The container, with this specification and status.
async fn rewrite(store: &Store, spec: &ContainerSpec, status: &str) {
    let json = serde_json::to_string(spec).unwrap();
    let sql = "UPDATE containers SET spec = $2, status = $3 WHERE id = $1";
    let mut tx = store.begin().await.unwrap();
    let update = sqlx::query(sql).bind(spec.id.to_string()).bind(json).bind(status.to_owned());
    update.execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
}

async fn tied(store: &Store, container: ContainerId) -> (i64, i64) {
    let mut tx = store.begin().await.unwrap();
    let ties = ties(&mut tx, container).await.unwrap();
    (ties.mounted_by, ties.copied_by)
}

#[tokio::test]
async fn what_ties_a_container_is_in_the_tables_and_not_in_what_strangers_write() {
    each_backend(|store| async move {
        let server = link_testing::server(&store, "one").await;
        let spec = link_testing::container(&store, server, 1, Vec::new()).await;
        let mut other = link_testing::container(&store, server, 1, Vec::new()).await;
        let (id, snapshot) = (spec.id, SnapshotId::generate());
        // Looks in the text as a mount of its folder, and as a copy of its snapshot, would.
        let said = [("source", id.to_string()), ("snapshot", snapshot.to_string())];
        let said = said.map(|(name, value)| (Text::truncated(name), Text::truncated(value.as_str())));
        other.env = std::collections::BTreeMap::from(said).try_into().unwrap();
        rewrite(&store, &other, "copying").await;
        assert_eq!(tied(&store, id).await, (0, 0), "a stranger keeps it where it is");
        let copied = async || {
            let mut tx = store.begin().await.unwrap();
            snapshot::is_being_copied(&mut tx, id, snapshot).await.unwrap()
        };
        assert!(!copied().await, "a stranger keeps a snapshot");

        // A share with it that it does not mount, although its text names the source, and one that it does.
        let share_id = ShareId::generate();
        let sql = format!(
            "INSERT INTO shares (id, source_container_id, source_path, target_project_id, mode, enabled, accepted, \
             expires_in_ms, created_by, created_at, updated_at) \
             VALUES ('{share_id}', '{id}', '/a', '{}', 'readonly', 1, 0, 0, '{}', 1, 1)",
            other.project, other.owner
        );
        link_testing::execute(&store, sql).await;
        assert!(share::get(store.reader(), share_id).await.unwrap().is_some());
        assert_eq!(tied(&store, id).await, (0, 0), "it does not mount it");
        let mount = ShareMount {
            id: share_id,
            source: id,
            path: Text::truncated("/a"),
            name: Text::truncated("a"),
            place: None,
            readonly: true,
            until: None,
        };
        other.shares = vec![mount].try_into().unwrap();
        rewrite(&store, &other, "copying").await;
        assert_eq!(tied(&store, id).await, (1, 0));

        // A copy on its own server has all that it comes of from the first moment, and is being made; one that is sent is open.
        let local = Transfer {
            id: TransferId::generate(),
            container: other.id,
            target: server,
            source_container: id,
            source: server,
            snapshot: Some(snapshot),
            base: None,
        };
        let mut tx = store.begin().await.unwrap();
        transfer::insert(&mut tx, &local, 1).await.unwrap();
        transfer::keep(&mut tx, local.id, 0, 1).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!((tied(&store, id).await, copied().await), ((1, 1), true));
        rewrite(&store, &other, "running").await;
        assert_eq!((tied(&store, id).await, copied().await), ((1, 0), false), "it is made");
        let elsewhere = link_testing::server(&store, "two").await;
        let sent = Transfer { id: TransferId::generate(), target: elsewhere, ..local };
        let mut tx = store.begin().await.unwrap();
        transfer::insert(&mut tx, &sent, 2).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!((tied(&store, id).await, copied().await), ((1, 1), true));
        assert_eq!(tied(&store, other.id).await, (0, 1));
    })
    .await;
}

#[tokio::test]
async fn what_is_looked_for_each_second_is_in_an_index() {
    for statement in [SHARED_WITH, SENT, MADE] {
        is_indexed(statement).await;
    }
    is_indexed(&format!("SELECT {COLUMNS} FROM moves WHERE {ORPHANED}")).await;
}
