-- Where the replica listens for the others; NULL: it does not.
ALTER TABLE replicas ADD COLUMN address TEXT;
