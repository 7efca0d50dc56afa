//! Rows for tests of the stores that a link writes to.

use super::{Store, transfer::Transfer};
use hoody_protocol::{
    bounded::Text,
    container::{ContainerSpec, Desired, Limits},
    id::{ContainerId, OperationId, ProjectId, ServerId, TransferId, UserId},
    image::{ImageConfig, ImageSpec, Layer},
    link::{Hello, NodeFacts},
    operation::OperationKind,
    version::{self, SpecVersion},
};

pub(crate) async fn execute(store: &Store, sql: String) {
    let mut tx = store.begin().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
}

/// The id of a new account.
pub(crate) async fn user(store: &Store) -> String {
    let id = UserId::generate().to_string();
    let sql = format!(
        "INSERT INTO users (id, username, alias, password_hash, created_at, updated_at) \
         VALUES ('{id}', '{id}', 'a', 'x', 1, 1)"
    );
    execute(store, sql).await;
    id
}

pub(crate) async fn server(store: &Store, name: &str) -> ServerId {
    let mut tx = store.begin().await.unwrap();
    let server = ServerId::generate();
    super::server::insert(&mut tx, server, name).await.unwrap();
    tx.commit().await.unwrap();
    server
}

/// A hello of a node that holds nothing.
pub(super) fn hello(cores: u32, memory_bytes: u64) -> Hello {
    Hello {
        protocol: version::SUPPORTED,
        agent_version: Text::truncated("1"),
        boot_id: Text::truncated("boot"),
        instance: None,
        facts: NodeFacts {
            hostname: Text::default(),
            architecture: Text::truncated("arm64"),
            kernel: Text::default(),
            os: Text::default(),
            cpu_model: Text::default(),
            cpu_cores: cores,
            memory_bytes,
            disk_bytes: u64::MAX,
            kvm: false,
        },
        inventory: Default::default(),
        journal_lost: 0,
    }
}

/// A container whose current version is 1.`generation`, with nothing acknowledged and status `creating`
/// since 1000.
pub(crate) async fn container(store: &Store, server: ServerId, generation: u64, layers: Vec<Layer>) -> ContainerSpec {
    let (user, project) = (UserId::generate(), ProjectId::generate());
    let spec = ContainerSpec {
        id: ContainerId::generate(),
        project,
        owner: user,
        version: SpecVersion { epoch: 1, generation },
        sequence: generation,
        desired: Desired::Running { run: 1 },
        autostart: false,
        hostname: Text::truncated("test"),
        image: ImageSpec::new(layers.try_into().unwrap(), ImageConfig::default()),
        env: Default::default(),
        limits: Limits { cpu_millis: 10, memory_bytes: 20, disk_bytes: 30, pids: 64, network_mbit: None },
        dns: Default::default(),
        firewall: Default::default(),
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
    let json = serde_json::to_string(&spec).unwrap();
    let id = spec.id;
    execute(
        store,
        format!(
            "INSERT INTO users (id, username, alias, password_hash, created_at, updated_at) \
             VALUES ('{user}', '{user}', 'a', 'x', 1, 1); \
             INSERT INTO projects (id, user_id, alias, color, created_at, updated_at) \
             VALUES ('{project}', '{user}', 'a', '#000', 1, 1); \
             INSERT INTO containers (id, project_id, owner_id, server_id, name, image_name, spec, generation, epoch, \
             sequence, status, status_changed_at, created_at, updated_at) VALUES ('{id}', '{project}', '{user}', \
             '{server}', '{id}', 'busybox', '{json}', {generation}, 1, {generation}, 'creating', 1000, 1, 1)"
        ),
    )
    .await;
    spec
}

/// A transfer of everything between two new containers on two new servers; not written.
pub(super) async fn transfer(store: &Store) -> Transfer {
    let (target, source) = (server(store, "one").await, server(store, "two").await);
    Transfer {
        id: TransferId::generate(),
        container: container(store, target, 1, Vec::new()).await.id,
        target,
        source_container: container(store, source, 1, Vec::new()).await.id,
        source,
        snapshot: None,
        base: None,
    }
}

pub(super) async fn operation(
    store: &Store,
    server: ServerId,
    container: ContainerId,
    sequence: u64,
    begin_before: i64,
) -> OperationId {
    let id = OperationId::generate();
    let kind = serde_json::to_string(&OperationKind::Restart).unwrap();
    execute(
        store,
        format!(
            "INSERT INTO operations (id, container_id, server_id, user_id, sequence, kind, state, created_at, \
             begin_before) VALUES ('{id}', '{container}', '{server}', 'u', {sequence}, '{kind}', 'pending', 1, {begin_before})"
        ),
    )
    .await;
    id
}

/// One value, as text.
pub(super) async fn text(store: &Store, sql: &str) -> Option<String> {
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).fetch_one(store.reader()).await.unwrap()
}

/// One value, as a number.
pub(super) async fn number(store: &Store, sql: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).fetch_one(store.reader()).await.unwrap()
}
