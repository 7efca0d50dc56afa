-- Transfers of containers' file systems from one server to another. Only the two servers named here may open the ends of
-- one, and only while it is open.
CREATE TABLE transfers (
    id TEXT NOT NULL PRIMARY KEY,
    -- The container that is made, or brought up to date, and where.
    container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
    target_server_id TEXT NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    -- What is sent, and from where.
    source_container_id TEXT NOT NULL REFERENCES containers (id) ON DELETE CASCADE,
    source_server_id TEXT NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    -- One of the source's snapshots; none: as it is when it is first sent.
    snapshot_id TEXT,
    -- The transfer that this is the difference from; none: everything.
    base_id TEXT,
    -- open → kept or ended.
    state TEXT NOT NULL,
    -- JSON: why the last try failed.
    failure TEXT,
    -- Bytes that were taken by the target when it ended.
    bytes BIGINT,
    created_at BIGINT NOT NULL,
    ended_at BIGINT
);
CREATE INDEX transfers_container ON transfers (container_id, created_at);
CREATE INDEX transfers_source ON transfers (source_container_id, state);
CREATE INDEX transfers_target_server ON transfers (target_server_id);
CREATE INDEX transfers_source_server ON transfers (source_server_id);
