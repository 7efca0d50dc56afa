-- Ways in beside user name and password: providers (GitHub, Google), devices, and hand-over between pages.

-- Who somebody is at a provider, and which account that is.
CREATE TABLE identities (
    provider TEXT NOT NULL,
    -- The provider's own, lasting id of the person.
    subject TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    CONSTRAINT identities_key PRIMARY KEY (provider, subject)
);
CREATE INDEX identities_user ON identities (user_id);

-- What is given out once and brought back once: using one deletes it.
CREATE TABLE grants (
    -- SHA-256, hexadecimal.
    token_hash TEXT NOT NULL PRIMARY KEY,
    -- launch, flow, intent or code.
    kind TEXT NOT NULL,
    user_id TEXT REFERENCES users (id) ON DELETE CASCADE,
    -- What it stands for, one JSON object without secrets.
    content TEXT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX grants_user ON grants (user_id);
CREATE INDEX grants_expiry ON grants (expires_at);

-- Devices that wait for somebody to let them in (RFC 8628).
CREATE TABLE device_logins (
    id TEXT NOT NULL PRIMARY KEY,
    -- SHA-256, hexadecimal: what the device polls with, and what its owner types.
    device_hash TEXT NOT NULL CONSTRAINT device_logins_device_key UNIQUE,
    user_code_hash TEXT NOT NULL CONSTRAINT device_logins_user_code_key UNIQUE,
    -- SHA-256 of what the page got for the typed code.
    ticket_hash TEXT CONSTRAINT device_logins_ticket_key UNIQUE,
    code_challenge TEXT,
    client TEXT,
    ip_address TEXT NOT NULL,
    -- pending, approved or denied.
    status TEXT NOT NULL,
    user_id TEXT REFERENCES users (id) ON DELETE CASCADE,
    -- The account's token generation when it was approved: a logout since then voids the approval.
    generation BIGINT NOT NULL DEFAULT 0,
    interval_ms BIGINT NOT NULL,
    polled_at BIGINT,
    expires_at BIGINT NOT NULL
);
CREATE INDEX device_logins_expiry ON device_logins (expires_at);
CREATE INDEX device_logins_user ON device_logins (user_id);

-- What a login that waits for its second factor is for: a device, or an intent with this challenge; else a session.
ALTER TABLE login_challenges ADD COLUMN device_id TEXT REFERENCES device_logins (id) ON DELETE CASCADE;
ALTER TABLE login_challenges ADD COLUMN code_challenge TEXT;
