-- Credentials of a container's upstream proxy, sealed; empty: none. They are no part of the specification as stored.
ALTER TABLE containers ADD COLUMN egress_credentials TEXT NOT NULL DEFAULT '';
