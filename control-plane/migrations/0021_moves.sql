-- Moves of containers to other servers, and servers that are being emptied.
CREATE TABLE moves (
    id TEXT NOT NULL PRIMARY KEY,
    -- No reference: what a server still keeps of it is let go of after the container is gone.
    container_id TEXT NOT NULL,
    -- The container's name when it began.
    name TEXT NOT NULL,
    source_server_id TEXT NOT NULL REFERENCES servers (id),
    -- NULL: none could take it, so it never began.
    target_server_id TEXT REFERENCES servers (id),
    -- Who asked; NULL: nobody who is known any more.
    user_id TEXT,
    -- 1: because its server is being emptied.
    drain BIGINT NOT NULL,
    -- copying → syncing → stopping → finishing → starting → done, or failed.
    state TEXT NOT NULL,
    -- What is on its way, or came last.
    transfer_id TEXT,
    -- JSON: what is reserved on the target.
    limits TEXT NOT NULL,
    -- JSON: what the container should be once it is on the target; from stopping on.
    desired TEXT,
    -- The version by which the source is held, and since when.
    held_epoch BIGINT,
    held_generation BIGINT,
    held_at BIGINT,
    -- Bytes that were sent.
    bytes BIGINT NOT NULL DEFAULT 0,
    -- Between the request to stop and what the target reported first as reached.
    pause_ms BIGINT,
    -- JSON: why it failed.
    failure TEXT,
    -- 1: the server keeps nothing of its transfers any more that is not needed.
    source_clean BIGINT NOT NULL DEFAULT 0,
    target_clean BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    ended_at BIGINT
);
CREATE UNIQUE INDEX moves_container_key ON moves (container_id) WHERE ended_at IS NULL;
CREATE INDEX moves_container ON moves (container_id, created_at);
CREATE INDEX moves_source ON moves (source_server_id, created_at);
CREATE INDEX moves_target ON moves (target_server_id, created_at);

-- What a server still holds of containers that moved away: it deletes them, as it deletes others.
CREATE TABLE departures (
    server_id TEXT NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    container_id TEXT NOT NULL,
    -- JSON: the tombstone.
    spec TEXT NOT NULL,
    -- 1: the node has it in writing.
    acked BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (server_id, container_id)
);

-- Since when a server is being emptied: nothing is placed on it. NULL: it is not.
ALTER TABLE servers ADD COLUMN drain_started_at BIGINT;
-- When that was stopped.
ALTER TABLE servers ADD COLUMN drain_stopped_at BIGINT;
-- Who asked.
ALTER TABLE servers ADD COLUMN drain_user_id TEXT;
CREATE INDEX servers_draining ON servers (id) WHERE drain_started_at IS NOT NULL AND drain_stopped_at IS NULL;
