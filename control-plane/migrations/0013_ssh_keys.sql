-- SSH keys of containers: one key is one container's, among those of an owner.

-- SHA-256 of type and body of the key, hexadecimal; NULL where there is none, or the container is being deleted.
ALTER TABLE containers ADD COLUMN ssh_key_digest TEXT;
CREATE UNIQUE INDEX containers_owner_ssh_key ON containers (owner_id, ssh_key_digest);
