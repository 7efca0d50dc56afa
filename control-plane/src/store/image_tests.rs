//! Tests on both databases.

use super::*;
use crate::store::testing::each_backend;
use hoody_protocol::{
    bounded::{List, Map, Text},
    container::{Desired, Limits},
    firewall::FirewallSpec,
    id::{ContainerId, ProjectId, ServerId, UserId},
    image::{Compression, ImageConfig, Layer},
    version::SpecVersion,
};

pub(crate) fn image(name: &str, content: &[u8]) -> NewImage {
    let layer = Layer {
        digest: Digest::of(content),
        size: content.len() as u64,
        compression: Compression::Gzip,
        archive_bytes: None,
    };
    NewImage {
        name: name.to_owned(),
        description: format!("{name} for tests"),
        os: name.split('/').next().unwrap().to_owned(),
        release: name.split('/').nth(1).unwrap_or_default().to_owned(),
        variant: None,
        architecture: "amd64".to_owned(),
        size_bytes: content.len() as u64,
        spec: ImageSpec::new(List::try_from(vec![layer]).unwrap(), ImageConfig::default()),
    }
}

pub(crate) async fn put_image(store: &Store, new: &NewImage) -> ImageRow {
    let mut transaction = store.begin().await.unwrap();
    let row = put(&mut transaction, new).await.unwrap();
    transaction.commit().await.unwrap();
    row
}

/// A container row with everything that it refers to.
pub(crate) async fn insert_container(store: &Store, image: &ImageSpec) -> ContainerId {
    let (user, project, server) = (UserId::generate(), ProjectId::generate(), ServerId::generate());
    let container = ContainerId::generate();
    let spec = ContainerSpec {
        id: container,
        project,
        owner: user,
        version: SpecVersion { epoch: 1, generation: 1 },
        sequence: 1,
        desired: Desired::Running { run: 1 },
        autostart: false,
        hostname: Text::try_from("test").unwrap(),
        image: image.clone(),
        env: Map::default(),
        limits: Limits { cpu_millis: 100, memory_bytes: 1 << 26, disk_bytes: 1 << 26, pids: 16, network_mbit: None },
        dns: List::default(),
        firewall: FirewallSpec::default(),
        egress: None,
        ssh_public_key: None,
        kvm: false,
        shares: Default::default(),
        ramdisk: None,
        origin: None,
        transfer: None,
        moved: false,
        snapshots: Default::default(),
    };
    let mut transaction = store.begin().await.unwrap();
    for (sql, binds) in [
        (
            "INSERT INTO users (id, username, alias, password_hash, created_at, updated_at) VALUES ($1, $1, $1, '', 0, 0)",
            vec![user.to_string()],
        ),
        (
            "INSERT INTO projects (id, user_id, alias, color, created_at, updated_at) VALUES ($1, $2, '', '', 0, 0)",
            vec![project.to_string(), user.to_string()],
        ),
        (
            "INSERT INTO servers (id, name, status, created_at, updated_at) VALUES ($1, $1, 'enrolled', 0, 0)",
            vec![server.to_string()],
        ),
        (
            "INSERT INTO containers (id, project_id, owner_id, server_id, name, image_name, spec, generation, epoch, \
             sequence, status, status_changed_at, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, 'test', 'test', $5, 1, 1, 1, 'running', 0, 0, 0)",
            vec![
                container.to_string(),
                project.to_string(),
                user.to_string(),
                server.to_string(),
                serde_json::to_string(&spec).unwrap(),
            ],
        ),
    ] {
        let query = binds.into_iter().fold(sqlx::query(sql), |query, value| query.bind(value));
        query.execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
    container
}

#[tokio::test]
async fn a_name_that_is_imported_again_keeps_its_id() {
    each_backend(|store| async move {
        let first = put_image(&store, &image("debian/12", b"one")).await;
        let mut again = image("debian/12", b"two");
        again.variant = Some("slim".to_owned());
        let second = put_image(&store, &again).await;
        assert_eq!((second.id, second.created_at), (first.id, first.created_at));
        assert_ne!(second.spec, first.spec);
        assert_eq!(find(&store, first.id).await.unwrap().unwrap(), second);
        assert_eq!(find_by_name(&store, "debian/12").await.unwrap().unwrap(), second);
        assert_eq!(names(&store).await.unwrap(), ["debian/12"]);
        assert_eq!(second.variant.as_deref(), Some("slim"));
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    each_backend(|store| async move {
        assert_eq!(find(&store, ImageId::generate()).await.unwrap(), None);
        assert_eq!(find_by_name(&store, "debian/12").await.unwrap(), None);
        let mut transaction = store.begin().await.unwrap();
        assert!(!delete(&mut transaction, ImageId::generate()).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn lists_filter_sort_and_page() {
    each_backend(|store| async move {
        for (name, architecture) in
            [("debian/12", "amd64"), ("debian/11", "arm64"), ("alpine/3", "amd64"), ("odd_name", "amd64")]
        {
            let new = NewImage { architecture: architecture.to_owned(), ..image(name, name.as_bytes()) };
            put_image(&store, &new).await;
        }
        let list = async |filter: Filter, order, limit, offset| {
            let (rows, total) = super::list(&store, &filter, order, limit, offset).await.unwrap();
            (rows.into_iter().map(|row| row.name).collect::<Vec<_>>(), total)
        };
        let all = Filter::default;
        let (names, total) = list(all(), Order::Name, 20, 0).await;
        assert_eq!((names.join(" ").as_str(), total), ("alpine/3 debian/11 debian/12 odd_name", 4));
        let (names, total) = list(all(), Order::NameDescending, 2, 1).await;
        assert_eq!((names.join(" ").as_str(), total), ("debian/12 debian/11", 4));
        assert_eq!(list(all(), Order::CreatedDescending, 9, u64::MAX).await, (vec![], 4));

        let os = Filter { os: "Debian".to_owned(), ..all() };
        assert_eq!(list(os.clone(), Order::Name, 20, 0).await.1, 2);
        let both = Filter { architecture: "arm64".to_owned(), ..os };
        assert_eq!(list(both, Order::Name, 20, 0).await.0, ["debian/11"]);
        // The characters that LIKE takes for wildcards are characters here.
        for (search, found) in [("DEB", 2), ("12", 1), ("_", 1), ("%", 0), ("!", 0), ("for tests", 4), ("'", 0)] {
            let filter = Filter { search: search.to_owned(), ..all() };
            assert_eq!(list(filter, Order::Name, 20, 0).await.1, found, "{search}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_image_that_is_held_is_neither_replaced_nor_deleted() {
    each_backend(|store| async move {
        let row = put_image(&store, &image("debian/12", b"one")).await;
        let mut holder = store.begin().await.unwrap();
        assert_eq!(hold(&mut holder, row.id).await.unwrap().unwrap(), row);
        let other = store.clone();
        let deletion = tokio::spawn(async move {
            let mut transaction = other.begin().await.unwrap();
            assert!(delete(&mut transaction, row.id).await.unwrap());
            transaction.commit().await.unwrap();
        });
        wait_until_blocked(&store).await;
        assert!(!deletion.is_finished());
        assert!(find(&store, row.id).await.unwrap().is_some());
        holder.commit().await.unwrap();
        deletion.await.unwrap();
        assert!(find(&store, row.id).await.unwrap().is_none());
    })
    .await;
}

/// Waits until a second writer waits for the first: on PostgreSQL for its row lock; on SQLite the one
/// writing connection is taken, and there is nothing to wait for.
async fn wait_until_blocked(store: &Store) {
    if store.backend() == crate::store::Backend::Sqlite {
        return;
    }
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    let waiting = "SELECT CAST(COUNT(*) AS BIGINT) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(store.reader()).await.unwrap() == 0 {
        assert!(tokio::time::Instant::now() < deadline, "the deletion did not wait");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn blobs_of_images_and_of_containers_are_referenced() {
    each_backend(|store| async move {
        let catalogued = put_image(&store, &image("debian/12", b"one")).await;
        let gone = image("debian/11", b"two");
        insert_container(&store, &gone.spec).await;
        let digests = |row: &ImageSpec| row.layers.iter().map(|layer| layer.digest).collect::<Vec<_>>();
        let expected: HashSet<Digest> = [digests(&catalogued.spec), digests(&gone.spec)].concat().into_iter().collect();
        assert_eq!(referenced_blobs(&store).await.unwrap(), expected);
    })
    .await;
}
