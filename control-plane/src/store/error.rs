//! Database errors, with constraint violations of both databases mapped to one meaning.

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL is of no database we know.
    #[error("a database URL begins with sqlite:// or postgres://")]
    UnknownUrl,
    /// A uniqueness constraint was violated.
    #[error("{what} is already in use")]
    Duplicate {
        /// What must be unique, in a client's words.
        what: &'static str,
    },
    /// A referenced row is missing, or is still referenced.
    #[error("a referenced row is missing or still in use")]
    MissingReference,
    /// The database was written by a newer build.
    #[error("the database has migration {found}, this build knows {known}: run the newer build")]
    Newer {
        /// The newest migration in the database.
        found: i64,
        /// The newest migration of this build.
        known: i64,
    },
    /// A stored value does not parse: damage, or a defect.
    #[error("stored {what} is not valid")]
    Corrupt {
        /// Table and column.
        what: &'static str,
        /// What the parser said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A write was undone because the group it was to be committed with failed.
    #[error("commit a group of writes")]
    Group(#[source] std::sync::Arc<StoreError>),
    /// A write was not begun: the database is being closed, or the group before it failed.
    #[error("the write was not begun")]
    Closed,
    /// Anything else.
    #[error("database")]
    Database(#[source] sqlx::Error),
}

/// Constraint name (PostgreSQL), table and columns (SQLite), and what a client calls it.
const UNIQUE: &[(&str, &str, &str)] = &[
    ("users_username_key", "users.username", "this username"),
    ("users_email_key", "users.email", "this e-mail address"),
    ("projects_user_alias_key", "projects.user_id, projects.alias", "this project alias"),
    ("auth_tokens_public_key_key", "auth_tokens.public_key", "this public key"),
    (
        "project_permissions_project_user_key",
        "project_permissions.project_id, project_permissions.user_id",
        "a permission of this user in this project",
    ),
    ("pools_owner_name_key", "pools.owner_id, pools.name", "this pool name"),
    (
        "pool_members_pool_user_key",
        "pool_members.pool_id, pool_members.user_id",
        "a membership of this user in this pool",
    ),
    ("servers_name_key", "servers.name", "this server name"),
    ("servers_public_key_key", "servers.public_key", "this public key"),
    ("images_name_key", "images.name", "this image name"),
    ("containers_project_name_key", "containers.project_id, containers.name", "this container name"),
    (
        "containers_owner_ssh_key",
        "containers.owner_id, containers.ssh_key_digest",
        "this SSH key, by another of the owner's containers,",
    ),
    ("snapshots_container_name_key", "snapshots.container_id, snapshots.name", "this snapshot name"),
    ("snapshots_container_alias_key", "snapshots.container_id, snapshots.alias", "this snapshot alias"),
    ("moves_container_key", "moves.container_id", "a move of this container"),
    ("transfers_sync_key", "transfers.container_id", "a sync of this container"),
    ("identities_key", "identities.provider, identities.subject", "this sign-in"),
    ("device_logins_user_code_key", "device_logins.user_code_hash", "this code"),
    ("commands_slug_key", "commands.slug", "this command slug"),
    ("share_choices_key", "share_choices.share_id, share_choices.container_id", "a choice about this share"),
    ("invite_codes_code_key", "invite_codes.code_hash", "this invite code"),
];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let Some(database) = error.as_database_error() else { return Self::Database(error) };
        if database.is_unique_violation() {
            let constraint = database.constraint().unwrap_or_default();
            let message = database.message();
            let known = UNIQUE.iter().find(|(name, columns, _)| *name == constraint || message.contains(columns));
            return Self::Duplicate { what: known.map_or("a value that must be unique", |(_, _, what)| what) };
        }
        if database.is_foreign_key_violation() {
            return Self::MissingReference;
        }
        Self::Database(error)
    }
}
