-- Auth tokens, permissions in projects, pools of servers.

CREATE TABLE auth_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- The token that made this one; deleting it ends this one too.
    created_by_token_id TEXT REFERENCES auth_tokens (id) ON DELETE CASCADE,
    -- 0 where a session made it, else one more than its maker's.
    delegation_depth BIGINT NOT NULL DEFAULT 0,
    alias TEXT NOT NULL,
    -- The value's beginning, for people.
    prefix TEXT NOT NULL,
    -- SHA-256 of the value, hexadecimal.
    secret_hash TEXT NOT NULL CONSTRAINT auth_tokens_secret_key UNIQUE,
    -- Names of permissions with spaces between them.
    permissions TEXT NOT NULL,
    -- RealmIds as a JSON array; empty: every realm.
    realm_ids TEXT NOT NULL DEFAULT '[]',
    allow_no_realm BIGINT NOT NULL,
    -- Networks in CIDR form as a JSON array; empty: from everywhere.
    ip_whitelist TEXT NOT NULL DEFAULT '[]',
    vault_access BIGINT NOT NULL DEFAULT 0,
    event_access BIGINT NOT NULL DEFAULT 0,
    deny_reauthorization BIGINT NOT NULL DEFAULT 0,
    is_enabled BIGINT NOT NULL DEFAULT 1,
    -- A token that made this one, or made that one, …, is disabled.
    is_suspended BIGINT NOT NULL DEFAULT 0,
    expires_at BIGINT,
    last_used_at BIGINT,
    last_used_ip TEXT,
    -- Ed25519, hexadecimal.
    public_key TEXT CONSTRAINT auth_tokens_public_key_key UNIQUE,
    -- A JSON object.
    public_storage TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX auth_tokens_user ON auth_tokens (user_id);
CREATE INDEX auth_tokens_maker ON auth_tokens (created_by_token_id);

CREATE TABLE project_permissions (
    id TEXT NOT NULL PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- read, edit or delete; each includes those before it.
    permission_level TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT project_permissions_project_user_key UNIQUE (project_id, user_id)
);
CREATE INDEX project_permissions_user ON project_permissions (user_id);

CREATE TABLE pools (
    -- A default pool has its owner's id.
    id TEXT NOT NULL PRIMARY KEY,
    owner_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    description TEXT,
    -- A JSON object.
    settings TEXT NOT NULL DEFAULT '{}',
    is_default BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT pools_owner_name_key UNIQUE (owner_id, name)
);

-- Members other than the owner, and those who are invited.
CREATE TABLE pool_members (
    id TEXT NOT NULL PRIMARY KEY,
    pool_id TEXT NOT NULL REFERENCES pools (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- admin or user.
    role TEXT NOT NULL,
    -- 0: invited.
    is_authorized BIGINT NOT NULL DEFAULT 0,
    invited_by TEXT REFERENCES users (id) ON DELETE SET NULL,
    invited_at BIGINT NOT NULL,
    joined_at BIGINT,
    CONSTRAINT pool_members_pool_user_key UNIQUE (pool_id, user_id)
);
CREATE INDEX pool_members_user ON pool_members (user_id);

INSERT INTO pools (id, owner_id, name, is_default, created_at, updated_at)
    SELECT id, id, 'Default', 1, created_at, created_at FROM users;

-- NULL: in its owner's default pool.
ALTER TABLE servers ADD COLUMN pool_id TEXT REFERENCES pools (id) ON DELETE SET NULL;
CREATE INDEX servers_pool ON servers (pool_id);
