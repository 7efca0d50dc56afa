//! A control plane without its API: store, keys and the node listener.

use hoody_control_plane::{
    app::App,
    config::Config,
    keys::{Keys, MasterKey},
    nodes::{self, NodesHandle},
    service::enrolment,
    store::{
        Store, server,
        transfer::{self, Transfer},
    },
};
use hoody_protocol::{
    bounded::Text,
    container::{ContainerSpec, Desired, Limits},
    firewall::FirewallSpec,
    id::{ContainerId, OperationId, ProjectId, ServerId, TransferId, UserId},
    image::{Compression, Digest, ImageConfig, ImageSpec, Layer},
    operation::OperationKind,
    time::now_ms,
    version::SpecVersion,
};
use std::{future::Future, net::SocketAddr, time::Duration};

/// The time anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct Plane {
    pub folder: tempfile::TempDir,
    pub app: App,
    pub address: SocketAddr,
    pub user: UserId,
    pub project: ProjectId,
    handle: NodesHandle,
}

/// Calls `check` until it gives something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let looking = async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

async fn open(folder: &std::path::Path, replicas: bool) -> (App, NodesHandle) {
    let mut config = Config::in_dir(folder.to_owned());
    config.node_address = "127.0.0.1:0".parse().unwrap();
    config.node_public_addresses = vec!["127.0.0.1:7443".to_owned()];
    config.replica_address = replicas.then(|| "127.0.0.1:0".parse().unwrap());
    config.heartbeat_interval = Duration::from_millis(200);
    let store = Store::open(config.database_url.reveal()).await.unwrap();
    let keys = Keys::open(&store, MasterKey::from_hex(&"42".repeat(32)).unwrap()).await.unwrap();
    let app = App::new(config, store, keys);
    let handle = nodes::start(app.clone()).await.unwrap();
    (app, handle)
}

impl Plane {
    pub async fn start() -> Self {
        Self::new(false).await
    }

    /// One that listens for other replicas.
    pub async fn with_replicas() -> Self {
        Self::new(true).await
    }

    async fn new(replicas: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (app, handle) = open(folder.path(), replicas).await;
        let (user, project) = (UserId::generate(), ProjectId::generate());
        let plane = Self { folder, app, address: handle.local_address().unwrap(), user, project, handle };
        plane
            .execute(format!(
                "INSERT INTO users (id, username, alias, password_hash, created_at, updated_at) \
                 VALUES ('{user}', 'tenant', 'tenant', 'x', 1, 1)"
            ))
            .await;
        plane
            .execute(format!(
                "INSERT INTO projects (id, user_id, alias, color, created_at, updated_at) \
                 VALUES ('{project}', '{user}', 'project', '#000', 1, 1)"
            ))
            .await;
        plane
    }

    /// Stops and starts again on the same data, as a new process would.
    pub async fn restart(self) -> Self {
        let Self { folder, app, user, project, handle, .. } = self;
        let replicas = handle.replica_address().is_some();
        handle.shutdown().await;
        app.store.close().await;
        drop(app);
        let (app, handle) = open(folder.path(), replicas).await;
        Self { folder, app, address: handle.local_address().unwrap(), user, project, handle }
    }

    /// Where it listens for other replicas.
    pub fn inside(&self) -> SocketAddr {
        self.handle.replica_address().unwrap()
    }

    pub async fn execute(&self, sql: String) {
        let mut tx = self.app.store.begin().await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// One text of the database; NULL as the empty text.
    pub async fn text(&self, sql: String) -> String {
        let found: Option<Option<String>> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_optional(self.app.store.reader()).await.unwrap();
        found.flatten().unwrap_or_default()
    }

    /// One number of the database.
    pub async fn number(&self, sql: String) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(self.app.store.reader()).await.unwrap()
    }

    pub async fn server(&self, name: &str) -> ServerId {
        let mut tx = self.app.store.begin().await.unwrap();
        let id = ServerId::generate();
        server::insert(&mut tx, id, name).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    pub async fn token(&self, server: ServerId) -> String {
        enrolment::create_join_token(&self.app, server).await.unwrap().0
    }

    /// A container of `server`, as the API would store it; its node does not have it yet.
    pub async fn container(&self, server: ServerId, layers: Vec<Layer>) -> ContainerSpec {
        let spec = ContainerSpec {
            id: ContainerId::generate(),
            project: self.project,
            owner: self.user,
            version: SpecVersion { epoch: 1, generation: 1 },
            sequence: 1,
            desired: Desired::Running { run: 1 },
            autostart: false,
            hostname: Text::truncated("test"),
            image: ImageSpec::new(layers.try_into().unwrap(), ImageConfig::default()),
            env: Default::default(),
            limits: Limits {
                cpu_millis: 100,
                memory_bytes: 64 << 20,
                disk_bytes: 64 << 20,
                pids: 64,
                network_mbit: None,
            },
            dns: Default::default(),
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
        let json = serde_json::to_string(&spec).unwrap();
        self.execute(format!(
            "INSERT INTO containers (id, project_id, owner_id, server_id, name, image_name, spec, generation, epoch, \
             sequence, status, status_changed_at, created_at, updated_at) VALUES ('{id}', '{}', '{}', '{server}', \
             '{id}', 'busybox', '{json}', 1, 1, 1, 'creating', 1000, 1, 1)",
            self.project,
            self.user,
            id = spec.id
        ))
        .await;
        self.app.nodes.wake(server);
        spec
    }

    /// A container on each of two servers, and an open transfer from the one to the other.
    pub async fn transfer(&self, source: ServerId, target: ServerId) -> Transfer {
        let source_container = self.container(source, Vec::new()).await.id;
        let container = self.container(target, Vec::new()).await.id;
        let id = TransferId::generate();
        let row = Transfer { id, container, target, source_container, source, snapshot: None, base: None };
        let mut tx = self.app.store.begin().await.unwrap();
        transfer::insert(&mut tx, &row, now_ms() as i64).await.unwrap();
        tx.commit().await.unwrap();
        row
    }

    /// Stores the next version of a container's specification.
    pub async fn update(&self, server: ServerId, spec: &mut ContainerSpec, change: impl FnOnce(&mut ContainerSpec)) {
        spec.version.generation += 1;
        spec.sequence += 1;
        change(spec);
        let json = serde_json::to_string(spec).unwrap();
        self.execute(format!(
            "UPDATE containers SET spec = '{json}', generation = {}, sequence = {} WHERE id = '{}'",
            spec.version.generation, spec.sequence, spec.id
        ))
        .await;
        self.app.nodes.wake(server);
    }

    /// Stores a restart of the container, to begin within `begin_within`.
    pub async fn operation(&self, server: ServerId, spec: &mut ContainerSpec, begin_within: Duration) -> OperationId {
        let id = OperationId::generate();
        spec.sequence += 1;
        let kind = serde_json::to_string(&OperationKind::Restart).unwrap();
        let now = now_ms() as i64;
        self.execute(format!(
            "INSERT INTO operations (id, container_id, server_id, user_id, sequence, kind, state, created_at, begin_before) \
             VALUES ('{id}', '{}', '{server}', '{}', {}, '{kind}', 'pending', {now}, {})",
            spec.id,
            self.user,
            spec.sequence,
            now + begin_within.as_millis() as i64
        ))
        .await;
        self.app.nodes.wake(server);
        id
    }

    /// A blob in the blob folder, and the layer that names it.
    pub fn blob(&self, bytes: &[u8]) -> Layer {
        let digest = Digest::of(bytes);
        std::fs::create_dir_all(self.folder.path().join("blobs")).unwrap();
        std::fs::write(self.folder.path().join("blobs").join(digest.hex()), bytes).unwrap();
        Layer { digest, size: bytes.len() as u64, compression: Compression::None, archive_bytes: None }
    }

    pub async fn status(&self, container: ContainerId) -> String {
        self.text(format!("SELECT status FROM containers WHERE id = '{container}'")).await
    }

    pub async fn online(&self, server: ServerId) -> bool {
        self.number(format!("SELECT online FROM servers WHERE id = '{server}'")).await == 1
    }
}
