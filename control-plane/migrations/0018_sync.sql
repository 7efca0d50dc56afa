-- Transfers that bring a container up to date which exists. Its file system is replaced by an operation of its own, once
-- the transfer is kept.

-- copy: the specification of a new container names it; sync: of one that exists.
ALTER TABLE transfers ADD COLUMN purpose TEXT NOT NULL DEFAULT 'copy';
-- Of a sync: who asked for it.
ALTER TABLE transfers ADD COLUMN user_id TEXT;
-- Of a sync: the operation that puts it in place; NULL: not begun.
ALTER TABLE transfers ADD COLUMN operation_id TEXT;
-- Of a sync: when it was over, done or not; NULL: under way.
ALTER TABLE transfers ADD COLUMN settled_at BIGINT;
CREATE UNIQUE INDEX transfers_sync_key ON transfers (container_id) WHERE purpose = 'sync' AND settled_at IS NULL;
CREATE INDEX transfers_syncs ON transfers (target_server_id) WHERE purpose = 'sync' AND operation_id IS NULL;

-- Taken by a sync, before it: the next sync's takes its place.
ALTER TABLE snapshots ADD COLUMN before_sync BIGINT NOT NULL DEFAULT 0;
