-- Processes of the control plane that serve. Who does not renew its lease is gone, and with it its links.
CREATE TABLE replicas (
    id TEXT NOT NULL PRIMARY KEY,
    started_at BIGINT NOT NULL,
    -- By the database's clock, so that clocks of replicas need not agree.
    expires_at BIGINT NOT NULL
);

-- The replica that has the server's link, while online is 1.
ALTER TABLE servers ADD COLUMN linked_to TEXT;
-- The agent's process that linked last.
ALTER TABLE servers ADD COLUMN instance TEXT;
-- Name of the authority that issued the certificate of the last link.
ALTER TABLE servers ADD COLUMN authority TEXT;
-- The last agent that came with the identity of a server whose link was up, as JSON.
ALTER TABLE servers ADD COLUMN identity_conflict TEXT;

-- What nodes hold and nobody here knows: kept there until an operator decides.
CREATE TABLE unknown_containers (
    server_id TEXT NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    container_id TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    state TEXT NOT NULL,
    first_seen_at BIGINT NOT NULL,
    -- adopt or remove; NULL: nobody has decided.
    decision TEXT,
    -- Where to and under which name it is adopted.
    project_id TEXT REFERENCES projects (id) ON DELETE SET NULL,
    name TEXT,
    -- Why the last decision could not be carried out.
    problem TEXT,
    PRIMARY KEY (server_id, container_id)
);
