-- The record: events, activity, notifications, vault.

CREATE TABLE events (
    id TEXT NOT NULL PRIMARY KEY,
    event_type TEXT NOT NULL,
    resource_type TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    -- Whose record it is in; NULL: the operators'.
    user_id TEXT REFERENCES users (id) ON DELETE CASCADE,
    project_id TEXT,
    container_id TEXT,
    -- RealmIds as a JSON array.
    realm_ids TEXT NOT NULL DEFAULT '[]',
    -- One JSON object.
    payload TEXT NOT NULL,
    -- What is locked while the event is written: events of one subject have growing positions.
    subject TEXT NOT NULL,
    position BIGINT NOT NULL,
    -- The place in the one order of delivery; given by the publisher after the commit.
    sequence BIGINT CONSTRAINT events_sequence_key UNIQUE,
    created_at BIGINT NOT NULL
);
CREATE INDEX events_user ON events (user_id, created_at);
-- For listeners that resume.
CREATE INDEX events_delivery ON events (user_id, sequence);
CREATE INDEX events_created ON events (created_at);
CREATE INDEX events_resource ON events (resource_id, created_at);
CREATE INDEX events_subject ON events (subject, position);
CREATE INDEX events_unpublished ON events (position) WHERE sequence IS NULL;

-- One row: the last sequence that was given out. It never goes back, also where events are deleted.
CREATE TABLE event_sequence (
    id BIGINT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO event_sequence (id, value) VALUES (1, 0);

-- API requests of users.
CREATE TABLE activity_logs (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    method TEXT NOT NULL,
    -- Without the query.
    path TEXT NOT NULL,
    status BIGINT NOT NULL,
    ip_address TEXT NOT NULL,
    user_agent TEXT NOT NULL,
    realm_id TEXT,
    -- Bytes of the texts above.
    size_bytes BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX activity_logs_user ON activity_logs (user_id, created_at);
CREATE INDEX activity_logs_created ON activity_logs (created_at);

CREATE TABLE notifications (
    id TEXT NOT NULL PRIMARY KEY,
    title TEXT NOT NULL,
    message TEXT NOT NULL,
    -- MAINTENANCE, ANNOUNCEMENT or STATUS_UPDATE.
    kind TEXT NOT NULL,
    -- INFO, WARNING, ERROR or SUCCESS.
    severity TEXT NOT NULL,
    -- Shown to everybody, also without an account.
    is_public BIGINT NOT NULL,
    -- Shown to every user.
    is_global BIGINT NOT NULL,
    expires_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX notifications_created ON notifications (created_at);

-- The users that a notification is for, where it is not for all.
CREATE TABLE notification_targets (
    notification_id TEXT NOT NULL REFERENCES notifications (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (notification_id, user_id)
);
CREATE INDEX notification_targets_user ON notification_targets (user_id);

CREATE TABLE notification_reads (
    notification_id TEXT NOT NULL REFERENCES notifications (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    read_at BIGINT NOT NULL,
    PRIMARY KEY (notification_id, user_id)
);
CREATE INDEX notification_reads_user ON notification_reads (user_id);

-- One data key per user, sealed by the master key.
CREATE TABLE vault_data_keys (
    user_id TEXT NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    sealed TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- How full each realm's vault is; changed only by conditional updates. realm_id '': outside of realms.
CREATE TABLE vault_usage (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    realm_id TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    PRIMARY KEY (user_id, realm_id)
);

CREATE TABLE vault_entries (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    realm_id TEXT NOT NULL,
    key TEXT NOT NULL,
    -- The value and, as JSON, the metadata, each sealed by the user's data key.
    sealed_value TEXT NOT NULL,
    sealed_metadata TEXT,
    -- Bytes of value and metadata before they were sealed.
    size_bytes BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, realm_id, key)
);
