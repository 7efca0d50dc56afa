-- Snapshots of containers.

CREATE TABLE snapshots (
    id TEXT NOT NULL PRIMARY KEY,
    container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    -- Another name, for people; NULL: none.
    alias TEXT,
    -- creating → ready → deleting; the row goes when its server holds nothing of it.
    state TEXT NOT NULL,
    -- Bytes that it may keep from being freed.
    size_bytes BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    -- NULL: never.
    expires_at BIGINT,
    last_used_at BIGINT,
    CONSTRAINT snapshots_container_name_key UNIQUE (container_id, name),
    CONSTRAINT snapshots_container_alias_key UNIQUE (container_id, alias)
);
CREATE INDEX snapshots_expiry ON snapshots (expires_at) WHERE expires_at IS NOT NULL;

-- Those that are ready, and the name of the one that was restored or copied last.
ALTER TABLE containers ADD COLUMN snapshot_count BIGINT NOT NULL DEFAULT 0;
ALTER TABLE containers ADD COLUMN last_used_snapshot TEXT;
