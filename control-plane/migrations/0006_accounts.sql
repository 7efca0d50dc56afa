-- Accounts: profiles, sign-up and mail, two-factor authentication, counted attempts, the free tier.

ALTER TABLE users ADD COLUMN email_verified_at BIGINT;
ALTER TABLE users ADD COLUMN avatar_url TEXT;
-- What clients keep about the account, and milestones with their times; each one JSON object.
ALTER TABLE users ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';
ALTER TABLE users ADD COLUMN onboarding TEXT NOT NULL DEFAULT '{}';
-- Ed25519, hexadecimal.
ALTER TABLE users ADD COLUMN public_key TEXT;
-- email, or the name of another way in; NULL: made by an operator.
ALTER TABLE users ADD COLUMN signup_method TEXT;
ALTER TABLE users ADD COLUMN signup_region TEXT;
ALTER TABLE users ADD COLUMN signup_code_failed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN free_tier_unlocked_at BIGINT;
ALTER TABLE users ADD COLUMN free_tier_unlock_source TEXT;
-- Set once: an account gets one free server in its life.
ALTER TABLE users ADD COLUMN free_tier_claimed_at BIGINT;
-- Whoever made these accounts knew the people behind the addresses.
UPDATE users SET email_verified_at = created_at WHERE email IS NOT NULL;

-- Given to accounts of the free tier; not for rent.
ALTER TABLE servers ADD COLUMN is_free BIGINT NOT NULL DEFAULT 0;

-- What becomes an account when its mail is answered. One address may have several, each with a token of its
-- own: nobody's password gets into an account by somebody else's mail.
CREATE TABLE sign_ups (
    id TEXT NOT NULL PRIMARY KEY,
    email TEXT NOT NULL,
    username TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    region TEXT,
    -- SHA-256 of the invite code, hexadecimal.
    invite_hash TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX sign_ups_email ON sign_ups (email);

-- Mail to be written: who asked for what. The token is made when the mail is, so no row holds one.
CREATE TABLE mail_jobs (
    id TEXT NOT NULL PRIMARY KEY,
    -- sign_up, resend or reset.
    kind TEXT NOT NULL,
    email TEXT NOT NULL,
    sign_up_id TEXT REFERENCES sign_ups (id) ON DELETE CASCADE,
    attempts BIGINT NOT NULL DEFAULT 0,
    -- Not before this time: a pause after a failure, or somebody is at it.
    not_before BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX mail_jobs_due ON mail_jobs (not_before);

-- Tokens sent by mail, single-use: using one deletes it.
CREATE TABLE mail_tokens (
    -- SHA-256, hexadecimal.
    token_hash TEXT NOT NULL PRIMARY KEY,
    email TEXT NOT NULL,
    -- Either of the two: an address to be verified, or a password to be reset.
    sign_up_id TEXT REFERENCES sign_ups (id) ON DELETE CASCADE,
    user_id TEXT REFERENCES users (id) ON DELETE CASCADE,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX mail_tokens_sign_up ON mail_tokens (sign_up_id);
CREATE INDEX mail_tokens_user ON mail_tokens (user_id);

CREATE TABLE two_factor (
    user_id TEXT NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    -- The TOTP secret, sealed.
    sealed TEXT NOT NULL,
    -- NULL: set up, but no code was shown yet, so it is not in force.
    enabled_at BIGINT,
    -- Step of the newest code that was used: none is taken twice.
    last_step BIGINT NOT NULL DEFAULT 0,
    require_for_tokens BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL
);

CREATE TABLE backup_codes (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- SHA-256 of user id and code, hexadecimal. A used one is deleted.
    code_hash TEXT NOT NULL,
    PRIMARY KEY (user_id, code_hash)
);

-- Logins that wait for their second factor.
CREATE TABLE login_challenges (
    token_hash TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    tries BIGINT NOT NULL DEFAULT 0,
    expires_at BIGINT NOT NULL
);
CREATE INDEX login_challenges_user ON login_challenges (user_id);

-- What is counted across replicas: one row per counted thing and its current window.
CREATE TABLE attempts (
    -- SHA-256 of what is counted, hexadecimal: the table tells nobody's address.
    key TEXT NOT NULL PRIMARY KEY,
    window_end BIGINT NOT NULL,
    count BIGINT NOT NULL
);
CREATE INDEX attempts_end ON attempts (window_end);

CREATE TABLE security_events (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    event TEXT NOT NULL,
    -- 1: a login; 0: a change of what protects the account.
    is_login BIGINT NOT NULL,
    succeeded BIGINT NOT NULL,
    ip_address TEXT NOT NULL,
    client TEXT,
    created_at BIGINT NOT NULL
);
CREATE INDEX security_events_user ON security_events (user_id, created_at);

CREATE TABLE invite_codes (
    id TEXT NOT NULL PRIMARY KEY,
    code_hash TEXT NOT NULL CONSTRAINT invite_codes_code_key UNIQUE,
    note TEXT NOT NULL DEFAULT '',
    max_uses BIGINT NOT NULL,
    uses BIGINT NOT NULL DEFAULT 0,
    expires_at BIGINT,
    created_at BIGINT NOT NULL
);

CREATE TABLE waitlist (
    email TEXT NOT NULL PRIMARY KEY,
    context TEXT NOT NULL DEFAULT '',
    industry TEXT NOT NULL DEFAULT '',
    interest TEXT NOT NULL DEFAULT '',
    role TEXT NOT NULL DEFAULT '',
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
