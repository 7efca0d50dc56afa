-- Folders of containers that others mount.

CREATE TABLE shares (
    id TEXT NOT NULL PRIMARY KEY,
    source_container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
    source_path TEXT NOT NULL,
    -- One of the two.
    target_container_id TEXT REFERENCES containers (id) ON DELETE CASCADE,
    target_project_id TEXT REFERENCES projects (id) ON DELETE CASCADE,
    -- readonly or readwrite.
    mode TEXT NOT NULL,
    alias TEXT,
    label TEXT,
    description TEXT,
    enabled BIGINT NOT NULL,
    -- 1: containers that have not chosen mount it.
    accepted BIGINT NOT NULL,
    expires_at BIGINT,
    -- 1: its client counts in milliseconds, not in seconds.
    expires_in_ms BIGINT NOT NULL,
    expiry_notified BIGINT NOT NULL DEFAULT 0,
    -- 1: its end was carried out.
    expired BIGINT NOT NULL DEFAULT 0,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX shares_source ON shares (source_container_id);
CREATE INDEX shares_target_container ON shares (target_container_id);
CREATE INDEX shares_target_project ON shares (target_project_id);
CREATE INDEX shares_expiry ON shares (expired, expires_at);

-- What a container does with one share, where its people have said so.
CREATE TABLE share_choices (
    id TEXT NOT NULL PRIMARY KEY,
    share_id TEXT NOT NULL REFERENCES shares (id) ON DELETE CASCADE,
    container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
    mount BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    CONSTRAINT share_choices_key UNIQUE (share_id, container_id)
);
CREATE INDEX share_choices_container ON share_choices (container_id);
