-- Shares at places of their own.

-- Where the share appears in its targets beside /mnt/shares; NULL: there alone.
ALTER TABLE shares ADD COLUMN mount_path TEXT;
