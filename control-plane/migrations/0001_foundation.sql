-- Portable over SQLite and PostgreSQL: TEXT ids and JSON, BIGINT milliseconds, BIGINT 0/1 flags.

-- Facts about this database: its epoch, for example.
CREATE TABLE settings (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

-- CA, token-signing, response-signing and sealing keys, sealed by the master key.
CREATE TABLE keys (
    id TEXT NOT NULL PRIMARY KEY,
    purpose TEXT NOT NULL,
    public TEXT NOT NULL,
    sealed TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    retired_at BIGINT
);
CREATE UNIQUE INDEX keys_active ON keys (purpose) WHERE retired_at IS NULL;

CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    username TEXT NOT NULL CONSTRAINT users_username_key UNIQUE,
    email TEXT CONSTRAINT users_email_key UNIQUE,
    alias TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    is_admin BIGINT NOT NULL DEFAULT 0,
    is_banned BIGINT NOT NULL DEFAULT 0,
    -- Every JWT carries the generation it was issued under; logging out raises it.
    token_generation BIGINT NOT NULL DEFAULT 1,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- One row per login: the family of its refresh tokens.
CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    refresh_hash TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX sessions_user ON sessions (user_id);

CREATE TABLE projects (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    alias TEXT NOT NULL,
    color TEXT NOT NULL,
    max_containers BIGINT,
    realm_ids TEXT NOT NULL DEFAULT '[]',
    is_default BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT projects_user_alias_key UNIQUE (user_id, alias)
);

CREATE TABLE servers (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL CONSTRAINT servers_name_key UNIQUE,
    -- The tenant that rents it; NULL: nobody.
    owner_id TEXT REFERENCES users (id) ON DELETE SET NULL,
    -- created → enrolled; revoked and disabled are set by an operator.
    status TEXT NOT NULL,
    country TEXT NOT NULL DEFAULT '',
    region TEXT NOT NULL DEFAULT '',
    city TEXT NOT NULL DEFAULT '',
    datacenter TEXT NOT NULL DEFAULT '',
    rental_start BIGINT,
    rental_end BIGINT,
    -- Ed25519 public key of the agent, hexadecimal; pinned at enrolment, the identity of one server.
    public_key TEXT CONSTRAINT servers_public_key_key UNIQUE,
    -- NodeFacts as JSON, from the last hello.
    facts TEXT,
    agent_version TEXT,
    boot_id TEXT,
    online BIGINT NOT NULL DEFAULT 0,
    online_changed_at BIGINT,
    architecture TEXT NOT NULL DEFAULT '',
    -- Capacity and what containers have reserved of it, changed only by conditional updates.
    cpu_millis BIGINT NOT NULL DEFAULT 0,
    memory_bytes BIGINT NOT NULL DEFAULT 0,
    disk_bytes BIGINT NOT NULL DEFAULT 0,
    max_containers BIGINT NOT NULL DEFAULT 250,
    cpu_millis_used BIGINT NOT NULL DEFAULT 0,
    memory_bytes_used BIGINT NOT NULL DEFAULT 0,
    disk_bytes_used BIGINT NOT NULL DEFAULT 0,
    containers_used BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX servers_owner ON servers (owner_id);

CREATE TABLE join_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    server_id TEXT NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    -- SHA-256 of the secret, hexadecimal.
    secret_hash TEXT NOT NULL CONSTRAINT join_tokens_secret_key UNIQUE,
    expires_at BIGINT NOT NULL,
    -- Public key that enrolled with it; the same key may ask again until its first hello.
    used_by TEXT,
    used_at BIGINT,
    -- Set by the first hello: from then on the token is spent for everybody.
    spent_at BIGINT,
    created_at BIGINT NOT NULL
);

CREATE TABLE images (
    id TEXT NOT NULL PRIMARY KEY,
    -- Catalogue name, for example debian/12.
    name TEXT NOT NULL CONSTRAINT images_name_key UNIQUE,
    description TEXT NOT NULL DEFAULT '',
    os TEXT NOT NULL DEFAULT '',
    release TEXT NOT NULL DEFAULT '',
    variant TEXT,
    architecture TEXT NOT NULL,
    -- Bytes of all layers as transferred.
    size_bytes BIGINT NOT NULL,
    -- ImageSpec as JSON.
    spec TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE containers (
    id TEXT NOT NULL PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id),
    owner_id TEXT NOT NULL REFERENCES users (id),
    server_id TEXT NOT NULL REFERENCES servers (id),
    name TEXT NOT NULL,
    image_name TEXT NOT NULL,
    -- lxc or docker, as its creation said.
    runtime TEXT NOT NULL DEFAULT 'lxc',
    -- RealmIds as a JSON array.
    realm_ids TEXT NOT NULL DEFAULT '[]',
    -- ContainerSpec as JSON: the whole desired state, sent to the node as it is.
    spec TEXT NOT NULL,
    -- Those parts of the specification that queries need.
    generation BIGINT NOT NULL,
    epoch BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    -- The newest (epoch, generation) that the node said it persisted.
    acked_epoch BIGINT NOT NULL DEFAULT 0,
    acked_generation BIGINT NOT NULL DEFAULT 0,
    -- Contract fields that mean nothing to the node (color, comment, ai, …) as one JSON object.
    attributes TEXT NOT NULL DEFAULT '{}',
    -- The contract's status word.
    status TEXT NOT NULL,
    status_changed_at BIGINT NOT NULL,
    -- The last StatusReport of the node as JSON.
    report TEXT,
    -- When the tombstone was written; the row goes when the node confirmed.
    deleted_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX containers_project_name_key ON containers (project_id, name) WHERE deleted_at IS NULL;
CREATE INDEX containers_server ON containers (server_id);
CREATE INDEX containers_owner ON containers (owner_id);

CREATE TABLE status_logs (
    id TEXT NOT NULL PRIMARY KEY,
    container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
    from_status TEXT,
    to_status TEXT NOT NULL,
    -- user, node, scheduler or system.
    triggered_by TEXT NOT NULL,
    -- Cause, exit code and the like as one JSON object, or NULL.
    metadata TEXT,
    -- Milliseconds spent in from_status.
    duration_ms BIGINT,
    transition_time BIGINT NOT NULL
);
CREATE INDEX status_logs_container ON status_logs (container_id, transition_time);

-- Operations: persisted before dispatch, one outcome each.
CREATE TABLE operations (
    id TEXT NOT NULL PRIMARY KEY,
    container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
    server_id TEXT NOT NULL REFERENCES servers (id),
    user_id TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    -- OperationKind as JSON.
    kind TEXT NOT NULL,
    -- pending → dispatched → succeeded | failed; pending → expired.
    state TEXT NOT NULL,
    -- Cause as JSON, where it failed or expired.
    failure TEXT,
    created_at BIGINT NOT NULL,
    -- Not begun by then: never runs.
    begin_before BIGINT NOT NULL,
    finished_at BIGINT
);
CREATE INDEX operations_container ON operations (container_id, sequence);
CREATE INDEX operations_open ON operations (server_id) WHERE state IN ('pending', 'dispatched');

CREATE TABLE idempotency_keys (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    -- SHA-256 of method, path and body, hexadecimal.
    request_hash TEXT NOT NULL,
    -- NULL while the first request is still being worked on.
    status BIGINT,
    body TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, key)
);
