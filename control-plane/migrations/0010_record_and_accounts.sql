-- Events of shared projects for those they are shared with; what mails of sign-ups say.

CREATE INDEX events_project ON events (project_id, created_at);
-- For listeners that resume.
CREATE INDEX events_project_delivery ON events (project_id, sequence);

-- The last sequence that retention removed: who resumes before it may have missed something for good.
ALTER TABLE event_sequence ADD COLUMN removed_until BIGINT NOT NULL DEFAULT 0;

-- Where a sign-up came from: its mail says so, to whom it may be news.
ALTER TABLE sign_ups ADD COLUMN ip_address TEXT NOT NULL DEFAULT '';
