-- Commands that are run on servers themselves: the catalogue, and what was run.

CREATE TABLE commands (
    id TEXT NOT NULL PRIMARY KEY,
    slug TEXT NOT NULL CONSTRAINT commands_slug_key UNIQUE,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    category TEXT NOT NULL,
    -- low, medium, high or critical.
    risk_level TEXT NOT NULL,
    -- 1: every node knows it; its definition is the build's, the limits are the operators'.
    built_in BIGINT NOT NULL,
    -- A JSON list: the program and its arguments, with places for parameters.
    argv TEXT NOT NULL,
    -- JSON Schema of the parameters, and an example of them.
    parameter_schema TEXT NOT NULL,
    example_parameters TEXT NOT NULL,
    -- nobody or root.
    account TEXT NOT NULL,
    working_directory TEXT,
    requires_confirmation BIGINT NOT NULL,
    enabled BIGINT NOT NULL,
    cooldown_seconds BIGINT,
    rate_limit_per_hour BIGINT,
    rate_limit_per_day BIGINT,
    default_timeout BIGINT NOT NULL,
    max_timeout BIGINT NOT NULL,
    execution_count BIGINT NOT NULL DEFAULT 0,
    -- The operator; none for built-in ones, and where the account is gone.
    created_by TEXT REFERENCES users (id) ON DELETE SET NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE command_executions (
    id TEXT NOT NULL PRIMARY KEY,
    -- Kept where the command was deleted.
    command_id TEXT NOT NULL,
    slug TEXT NOT NULL,
    server_id TEXT NOT NULL REFERENCES servers (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- JSON: the parameters as the client sees them, and the order as it is sent.
    parameters TEXT NOT NULL,
    request TEXT NOT NULL,
    timeout_ms BIGINT NOT NULL,
    -- pending → dispatched → completed, failed, timeout, cancelled or interrupted; pending → expired or cancelled.
    state TEXT NOT NULL,
    -- JSON: why it failed or expired.
    failure TEXT,
    exit_code BIGINT,
    cancel_requested BIGINT NOT NULL DEFAULT 0,
    output_chunks BIGINT NOT NULL DEFAULT 0,
    output_bytes BIGINT NOT NULL DEFAULT 0,
    output_truncated BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    -- Not begun by then: never runs.
    begin_before BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT
);
CREATE INDEX command_executions_server ON command_executions (server_id, created_at);
CREATE INDEX command_executions_command ON command_executions (command_id, server_id, created_at);
CREATE INDEX command_executions_user ON command_executions (user_id);
CREATE INDEX command_executions_open ON command_executions (server_id, state);
CREATE INDEX command_executions_age ON command_executions (created_at);

-- What an execution wrote, piece by piece.
CREATE TABLE command_output (
    execution_id TEXT NOT NULL REFERENCES command_executions (id) ON DELETE CASCADE,
    -- Counted from 0 over both streams.
    position BIGINT NOT NULL,
    -- stdout or stderr.
    stream TEXT NOT NULL,
    content TEXT NOT NULL,
    CONSTRAINT command_output_key PRIMARY KEY (execution_id, position)
);
